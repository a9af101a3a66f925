//! The handle to a node's gossip, and what it tells the task.

use super::{
    inbox::{self, Inbox},
    link::{self, Accepted, Introduction, Link, LinkError},
    revoke::{Answer, Enforced, Revoke},
};
use crate::{
    error::Fault,
    peer::{DialError, PeerConnection, PeerPool},
};
use p2p_core::{
    ClusterId, Epoch, NodeId,
    gossip::{Evidence, View, hello},
    membership::Identity,
    record::{OwnRecords, Refusal},
};
use p2p_proto::v1::{GossipFrame, RevocationSegment, RevocationSegments, gossip_message::Kind};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;
use tonic::Streaming;

/// What the task is told.
#[derive(Debug)]
pub(super) enum Command {
    Linked(Link),
    Dialled {
        node: NodeId,
        result: Result<Link, DialFailure>,
    },
    SeedAnswered(PeerConnection),
    SeedsDone,
    Received {
        peer: NodeId,
        message: Kind,
        /// What it takes of the room for all messages.
        _room: inbox::Room,
    },
    /// A message of a kind that only newer releases know.
    ReceivedUnknown,
    Unlinked {
        peer: NodeId,
        id: u64,
        /// Whether it did not end by the peer's own wish.
        broke: bool,
    },
    Publish {
        records: Box<OwnRecords>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    AnnounceLeaving {
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    Revoke {
        what: Revoke,
        done: Answer,
    },
    Kept {
        made: Vec<Arc<RevocationSegment>>,
        waiters: Vec<Answer>,
        result: Result<(), Fault>,
    },
    Enforce {
        peer: NodeId,
        segments: RevocationSegments,
        done: oneshot::Sender<Enforced>,
    },
    Why {
        node: NodeId,
        done: oneshot::Sender<Vec<Arc<Evidence>>>,
    },
    Watch {
        done: oneshot::Sender<Watched>,
    },
    Leave {
        done: oneshot::Sender<()>,
    },
    BundleTaken(BundleTaken),
}

/// What is kept of members' past, and all that comes after it.
pub type Watched = (Vec<Arc<Evidence>>, broadcast::Receiver<Arc<Evidence>>);

/// How a trust bundle that `peer` sent fared.
#[derive(Debug)]
pub(super) struct BundleTaken {
    pub(super) peer: NodeId,
    pub(super) error: Option<String>,
}

#[derive(Debug)]
pub(super) enum DialFailure {
    Dial(Arc<DialError>),
    Link(LinkError),
}

impl std::fmt::Display for DialFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Link(error) => error.fmt(f),
        }
    }
}

/// The handle to a node's gossip.
#[derive(Clone, Debug)]
pub struct Gossip {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) own: watch::Receiver<Identity>,
    pub(super) cluster: ClusterId,
    pub(super) inbox: Inbox,
    pub(super) pool: Arc<PeerPool>,
    pub(super) twin_noticed: watch::Receiver<Option<SystemTime>>,
}

/// How much gossip costs this node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GossipCost {
    /// Pause between comparisons of records with a peer.
    pub interval: Duration,
    /// Encoded frames since the start, in bytes.
    pub sent: u64,
    /// The same of those received.
    pub received: u64,
}

impl Gossip {
    /// The cluster as this node sees it, and its changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// How much gossip costs now, and has cost.
    pub fn cost(&self) -> GossipCost {
        self.inbox.metrics.cost()
    }

    /// Connections to the members.
    pub fn pool(&self) -> &Arc<PeerPool> {
        &self.pool
    }

    /// When it was last noticed that another live process holds this node's id.
    pub fn twin_noticed(&self) -> Option<SystemTime> {
        *self.twin_noticed.borrow()
    }

    /// Why this node thinks what it thinks of `node`, oldest first; nothing once gossip has ended.
    pub async fn why(&self, node: NodeId) -> Vec<Arc<Evidence>> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::Why { node, done }).await;
        answer.await.unwrap_or_default()
    }

    /// What is kept of all members, oldest first, and all that comes after it; `None` once gossip has ended.
    pub async fn watch(&self) -> Option<Watched> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::Watch { done }).await;
        answer.await.ok()
    }

    /// Takes a gossip stream that the node `peer` opened.
    ///
    /// # Errors
    ///
    /// When the two cannot gossip; the error names both sides.
    pub async fn accept(&self, peer: NodeId, frames: Streaming<GossipFrame>) -> Result<Accepted, LinkError> {
        let introduction = {
            let known = self.view.borrow().members.get(&peer).map(|member| member.epoch);
            introduction(&self.cluster, &self.own.borrow(), known)
        };
        let accepted = link::accept(peer, frames, introduction, self.inbox.clone()).await;
        let (link, answer) = accepted.inspect_err(|error| {
            tracing::warn!(%error, "gossip stream refused");
            self.inbox.metrics.refused("hello");
        })?;
        self.commands.send(Command::Linked(link)).await.map_err(|_| LinkError::Stopped)?;
        Ok(answer.map(Ok))
    }

    /// Publishes what this node is and serves.
    ///
    /// # Errors
    ///
    /// When the records break a rule that every receiver would refuse them for.
    pub async fn publish(&self, records: OwnRecords) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::Publish { records: Box::new(records), done }).await;
        answer.await.unwrap_or(Ok(()))
    }

    /// Tells the cluster that this node is shutting down.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub async fn announce_leaving(&self) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::AnnounceLeaving { done }).await;
        answer.await.unwrap_or(Ok(()))
    }

    /// Leaves the cluster and ends the task.
    pub async fn leave(&self) {
        let (done, answer) = oneshot::channel();
        self.tell(Command::Leave { done }).await;
        if answer.await.is_err() {
            tracing::debug!("gossip had stopped already");
        }
    }

    pub(super) async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("gossip has stopped");
        }
    }
}

pub(super) fn introduction(cluster: &ClusterId, own: &Identity, known: Option<Epoch>) -> Introduction {
    Introduction { cluster: cluster.clone(), own: own.node.clone(), hello: hello(cluster, own, known) }
}
