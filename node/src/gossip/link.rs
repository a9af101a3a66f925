//! One gossip stream: a hello each way, then frames both ways until either side ends it.

use super::{
    frame::{self, Outgoing},
    handle::Command,
    inbox::Inbox,
    metrics::{FrameSize, GossipMetrics, kind_word},
    outbox::{Outbox, Outflow, outbox},
};
use crate::{identity::schedule, peer::PeerConnection};
use p2p_core::{
    ClusterId, NodeId,
    gossip::{self, HelloMismatch, Peer},
    wire::MAX_FRAME,
};
use p2p_proto::v1::{GossipFrame, Hello, gossip_message::Kind, gossip_service_client::GossipServiceClient};
use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::oneshot;
use tokio_stream::adapters::Map;
use tonic::{Status, Streaming};

/// Longest wait for the other side's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream is still read that this side has let go: the peer ends it, too, when it hears of that.
const LINGER: Duration = Duration::from_secs(5);

/// Why a gossip stream did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other side is not one to gossip with.
    #[error(transparent)]
    Mismatch(#[from] HelloMismatch),
    /// No hello in time.
    #[error("{peer} sent no hello within {}s", HELLO_TIMEOUT.as_secs())]
    NoHello {
        /// Who.
        peer: NodeId,
    },
    /// The stream failed.
    #[error("gossip stream to {peer} failed: {status}")]
    Stream {
        /// With whom.
        peer: NodeId,
        /// How.
        status: Status,
    },
    /// The connection broke.
    #[error("the connection to {peer} broke: {why}")]
    Broken {
        /// To whom.
        peer: NodeId,
        /// How.
        why: String,
    },
    /// This node's gossip has ended.
    #[error("this node is shutting down")]
    Stopped,
}

impl LinkError {
    /// As the status that ends an accepted stream.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Mismatch(mismatch) => Status::failed_precondition(mismatch.to_string()),
            Self::NoHello { .. } => Status::deadline_exceeded(self.to_string()),
            Self::Stream { status, .. } => status.clone(),
            Self::Broken { .. } => Status::unavailable(self.to_string()),
            Self::Stopped => Status::unavailable(self.to_string()),
        }
    }
}

/// The sending half of a link, and whom it leads to.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) peer: Peer,
    pub(super) frames: Outbox,
    /// Whether this side opened it, and so closes it when it is idle.
    pub(super) dialled: bool,
    /// Dropped with the link: its reader then ends.
    _held: oneshot::Sender<()>,
}

/// What the other side of an accepted stream is sent.
pub type Accepted = Map<Outflow, fn(GossipFrame) -> Result<GossipFrame, Status>>;

/// Who this side is, for a hello.
pub(super) struct Introduction {
    pub(super) cluster: ClusterId,
    pub(super) own: NodeId,
    pub(super) hello: Hello,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A hello as it goes on the wire: never compressed, since what the other side reads is not known yet.
fn hello_frame(hello: Hello, metrics: &GossipMetrics) -> GossipFrame {
    let outgoing = Outgoing::of(Kind::Hello(hello));
    let word = outgoing.word;
    let frame = outgoing.seal(None);
    metrics.frame("sent", word, &FrameSize::of(&frame));
    frame
}

fn hello_of(frame: GossipFrame, metrics: &GossipMetrics) -> Option<Hello> {
    match frame::read(frame) {
        Ok((Some(Kind::Hello(hello)), size)) => {
            metrics.frame("received", "hello", &size);
            Some(hello)
        }
        Ok((
            Some(
                Kind::Membership(_)
                | Kind::States(_)
                | Kind::Digest(_)
                | Kind::StatesRequest(_)
                | Kind::Revocations(_)
                | Kind::RevocationPositions(_)
                | Kind::TrustBundle(_)
                | Kind::MemberList(_)
                | Kind::Accusation(_),
            )
            | None,
            _,
        ))
        | Err(_) => None,
    }
}

async fn read_hello(
    peer: &NodeId,
    frames: &mut Streaming<GossipFrame>,
    metrics: &GossipMetrics,
) -> Result<Hello, LinkError> {
    let no_hello = || LinkError::NoHello { peer: peer.clone() };
    let first = tokio::time::timeout(HELLO_TIMEOUT, frames.message()).await.map_err(|_elapsed| no_hello())?;
    let first = first.map_err(|status| LinkError::Stream { peer: peer.clone(), status })?;
    first.and_then(|frame| hello_of(frame, metrics)).ok_or_else(no_hello)
}

/// Opens a stream over a dialled connection and leaves its frames to `commands`.
pub(super) async fn open(
    connection: PeerConnection,
    introduction: Introduction,
    inbox: Inbox,
) -> Result<Link, LinkError> {
    let peer = connection.node.clone();
    let held = connection.clone();
    // Where the connection broke, the status says no more than that the call was cancelled.
    let stream_error = |status: Status| match held.why_broken() {
        Some(why) => LinkError::Broken { peer: peer.clone(), why: why.to_owned() },
        None => LinkError::Stream { peer: peer.clone(), status },
    };
    let (frames_out, flow) = outbox();
    if !frames_out.send(hello_frame(introduction.hello, &inbox.metrics)) {
        return Err(LinkError::Stopped);
    }
    let origin =
        http::Uri::builder().scheme("https").authority(connection.address.to_string()).path_and_query("/");
    let origin = origin.build().map_err(|error| stream_error(Status::internal(error.to_string())))?;
    let mut client =
        GossipServiceClient::with_origin(connection, origin).max_decoding_message_size(MAX_FRAME);
    let answer = tokio::time::timeout(HELLO_TIMEOUT, client.exchange(flow))
        .await
        .map_err(|_elapsed| LinkError::NoHello { peer: peer.clone() })?;
    let mut frames = answer.map_err(stream_error)?.into_inner();
    let hello = read_hello(&peer, &mut frames, &inbox.metrics).await?;
    let agreed = gossip::negotiate(&introduction.cluster, &introduction.own, &peer, &hello)?;
    Ok(link(agreed, frames, frames_out, inbox, Some(held)))
}

/// Takes a stream that `peer` opened: reads its hello, answers it, and leaves its frames to `commands`.
pub(super) async fn accept(
    peer: NodeId,
    mut frames: Streaming<GossipFrame>,
    introduction: Introduction,
    inbox: Inbox,
) -> Result<(Link, Outflow), LinkError> {
    let hello = read_hello(&peer, &mut frames, &inbox.metrics).await?;
    let agreed = gossip::negotiate(&introduction.cluster, &introduction.own, &peer, &hello)?;
    let (frames_out, flow) = outbox();
    if !frames_out.send(hello_frame(introduction.hello, &inbox.metrics)) {
        return Err(LinkError::Stopped);
    }
    Ok((link(agreed, frames, frames_out, inbox, None), flow))
}

fn link(
    peer: Peer,
    frames_in: Streaming<GossipFrame>,
    frames: Outbox,
    inbox: Inbox,
    dialled: Option<PeerConnection>,
) -> Link {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let (held, let_go) = oneshot::channel();
    let is_dialled = dialled.is_some();
    tokio::spawn(read(id, peer.identity.node.clone(), frames_in, inbox, dialled, let_go));
    Link { id, peer, frames, dialled: is_dialled, _held: held }
}

/// Reads frames until the stream ends. A frame that does not decode ends it: the peer is broken. So does the end
/// of a certificate that the connection rests on, if this side dialled it, and the stream is opened anew over another. That
/// connection is held as long, so that the pool does not let it go.
async fn read(
    id: u64,
    peer: NodeId,
    mut frames: Streaming<GossipFrame>,
    inbox: Inbox,
    dialled: Option<PeerConnection>,
    let_go: oneshot::Receiver<()>,
) {
    let Inbox { commands, metrics, .. } = &inbox;
    let allowance = inbox.allowance(&peer);
    let mut abandoned = pin!(async {
        // An error: nothing is ever sent.
        let_go.await.ok();
        tokio::time::sleep(LINGER).await;
    });
    let mut expired = pin!(async {
        match &dialled {
            Some(connection) => schedule::reached(connection.expires).await,
            None => std::future::pending().await,
        }
    });
    let broke = loop {
        let read = tokio::select! {
            read = frames.message() => read,
            () = &mut expired => break true,
            () = &mut abandoned => break true,
        };
        let frame = match read {
            Ok(Some(frame)) => frame,
            Ok(None) => break false,
            Err(status) => {
                tracing::debug!(peer.id = %peer, error = %status, "gossip stream broke");
                break true;
            }
        };
        let Some(room) = inbox.room(&peer, &allowance, &frame).await else { return };
        let (message, size) = match frame::read(frame) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(peer.id = %peer, %error, "gossip frame does not decode; ending the stream");
                metrics.refused(error.reason());
                break true;
            }
        };
        metrics.frame("received", message.as_ref().map_or("unknown", kind_word), &size);
        let command = match message {
            Some(message) => Command::Received { peer: peer.clone(), message, _room: room },
            None => Command::ReceivedUnknown,
        };
        if commands.send(command).await.is_err() {
            return;
        }
    };
    if commands.send(Command::Unlinked { peer, id, broke }).await.is_err() {
        tracing::debug!("gossip has stopped before its streams");
    }
}
