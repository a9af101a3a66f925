//! Streams with other nodes: whom there is one with, opening and closing them, and sending.

use super::{super::handle::introduction, Task};
use crate::{
    gossip::{
        frame::Outgoing,
        handle::{Command, DialFailure},
        link::{self, Introduction, Link},
        metrics::FrameSize,
        outbox::Room,
    },
    peer::DialError,
};
use p2p_core::NodeId;
use p2p_proto::v1::gossip_message::Kind;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Frames kept for a peer while it is being dialled.
const PENDING: usize = 64;
/// Streams kept with one peer: one each way when both dial at once.
const LINKS_PER_PEER: usize = 3;
/// How long a stream stays open that carries nothing. Who has the other in its active view probes it more often.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Pause between looks for idle ones.
const IDLE_PAUSE: Duration = Duration::from_secs(15);

/// The streams with one peer.
pub(super) struct PeerLinks {
    pub(super) links: VecDeque<Link>,
    /// When the last frame went or came.
    last_used: Instant,
}

impl Default for PeerLinks {
    fn default() -> Self {
        Self { links: VecDeque::new(), last_used: Instant::now() }
    }
}

impl Task {
    pub(super) fn linked(&mut self, link: Link) {
        let node = link.peer.identity.node.clone();
        if self.engine.is_banned(&node) {
            return;
        }
        tracing::debug!(peer.id = %node, peer.address = %link.peer.identity.address, "gossip stream open");
        self.estranged.remove(&node);
        self.make_room(&node);
        let peer = link.peer.clone();
        let entry = self.links.entry(node.clone()).or_default();
        entry.last_used = Instant::now();
        // A new process of that node: streams to the one before are dead, or lead to a duplicate.
        let instance = link.peer.identity.instance;
        entry.links.retain(|older| older.peer.identity.instance == instance);
        entry.links.push_back(link);
        if entry.links.len() > LINKS_PER_PEER {
            entry.links.pop_front();
        }
        self.engine.connected(self.now(), &peer);
        for outgoing in self.dialling.remove(&node).unwrap_or_default() {
            self.send_linked(&node, outgoing);
        }
    }

    /// Closes the streams of the peer unused for longest when there are too many.
    fn make_room(&mut self, newcomer: &NodeId) {
        if self.links.len() < self.setup.links_max || self.links.contains_key(newcomer) {
            return;
        }
        let idle = self.links.iter().min_by_key(|(_, entry)| entry.last_used).map(|(node, _)| node.clone());
        if let Some(idle) = idle {
            self.links.remove(&idle);
        }
    }

    /// Ends all streams with `node`.
    pub(in crate::gossip) fn hang_up(&mut self, node: &NodeId) {
        self.links.remove(node);
    }

    /// A frame has come from `peer`.
    pub(super) fn heard(&mut self, peer: &NodeId) {
        if let Some(entry) = self.links.get_mut(peer) {
            entry.last_used = Instant::now();
        }
    }

    /// Ends the streams that this side opened and that carry nothing: those with members that were in an active view
    /// once, or met by chance.
    pub(super) fn close_idle(&mut self) {
        let now = Instant::now();
        if now < self.idle_at {
            return;
        }
        self.idle_at = now + IDLE_PAUSE;
        for entry in self.links.values_mut().filter(|entry| now.duration_since(entry.last_used) >= IDLE_MAX) {
            entry.links.retain(|link| !link.dialled);
        }
        self.links.retain(|_, entry| !entry.links.is_empty());
    }

    pub(super) fn unlinked(&mut self, peer: &NodeId, id: u64, broke: bool) {
        let Some(entry) = self.links.get_mut(peer) else { return };
        entry.links.retain(|link| link.id != id);
        if !entry.links.is_empty() {
            return;
        }
        self.links.remove(peer);
        // A member's last stream broke: dial at once. If nobody listens there any more, that is evidence. Where the peer has
        // ended it, it makes room for others; who dials it again takes that room from one who does the same.
        let alive = self.engine.members().get(peer).filter(|member| broke && member.serves());
        if let Some(address) = alive.and_then(|member| member.address)
            && !self.leaving
        {
            self.start_dial(peer.clone(), address);
        }
    }

    pub(super) fn send(&mut self, to: NodeId, address: SocketAddr, message: Kind) {
        let outgoing = Outgoing::of(message);
        if self.links.contains_key(&to) {
            self.send_linked(&to, outgoing);
        } else if let Some(waiting) = self.dialling.get_mut(&to) {
            if waiting.len() < PENDING {
                waiting.push_back(outgoing);
            } else {
                self.metrics.dropped.inc();
            }
        } else if address.port() == 0 || self.leaving {
            self.metrics.dropped.inc();
        } else {
            self.start_dial(to.clone(), address);
            self.dialling.entry(to).or_default().push_back(outgoing);
        }
    }

    /// Sends over a stream that is open, compressed if that is on and the peer reads it. In place: the largest
    /// message of the engine takes well below a millisecond.
    pub(super) fn send_linked(&mut self, to: &NodeId, outgoing: Outgoing) {
        let Some(entry) = self.links.get_mut(to) else { return };
        entry.last_used = Instant::now();
        // A stream may break before its link is stored; the next frame then dials anew.
        while entry.links.pop_back_if(|link| link.frames.is_closed()).is_some() {}
        let sent = match entry.links.back_mut().map(|link| (link.frames.room(Instant::now()), link)) {
            Some((Room::Free, link)) => {
                let word = outgoing.word;
                let frame = outgoing.seal(self.setup.compression.filter(|_| link.peer.lz4));
                self.metrics.frame("sent", word, &FrameSize::of(&frame));
                link.frames.send(frame)
            }
            Some((Room::Stalled, _)) => {
                tracing::warn!(peer.id = %to, "the peer has long stopped reading gossip; closing its connections");
                self.metrics.refused("stalled");
                entry.links.clear();
                // Their queues go with them.
                self.setup.revoking.table.live().close_of(to);
                false
            }
            Some((Room::Full, _)) | None => false,
        };
        if entry.links.is_empty() {
            self.links.remove(to);
        }
        if !sent {
            self.metrics.dropped.inc();
        }
    }

    fn introduction(&self, peer: &NodeId) -> Introduction {
        introduction(&self.setup.cluster, self.engine.own(), self.engine.known_epoch(peer))
    }

    pub(super) fn start_dial(&mut self, node: NodeId, address: SocketAddr) {
        if self.dialling.contains_key(&node) {
            return;
        }
        self.dialling.insert(node.clone(), VecDeque::new());
        let introduction = self.introduction(&node);
        let (pool, commands, inbox) = (self.setup.pool.clone(), self.commands.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let result = match pool.get(&node, address).await {
                Err(error) => Err(DialFailure::Dial(error)),
                Ok(connection) => {
                    link::open(connection, introduction, inbox).await.map_err(DialFailure::Link)
                }
            };
            if commands.send(Command::Dialled { node, result }).await.is_err() {
                tracing::debug!("gossip has stopped during a dial");
            }
        });
    }

    pub(super) fn dialled(&mut self, node: &NodeId, result: Result<Link, DialFailure>) {
        match result {
            Ok(link) => self.linked(link),
            Err(failure) => {
                self.dialling.remove(node);
                // It answered, but will not gossip with us: that does not mend itself, so say it, once.
                match &failure {
                    DialFailure::Link(error) if self.estranged.insert(node.clone()) => {
                        tracing::warn!(peer.id = %node, %error, "the peer answers but does not gossip with this node");
                    }
                    DialFailure::Link(_) | DialFailure::Dial(_) => {
                        tracing::debug!(peer.id = %node, error = %failure, "peer not reached");
                    }
                }
                if let DialFailure::Dial(error) = failure
                    && matches!(*error, DialError::Refused { .. })
                {
                    self.engine.refused(self.now(), node);
                }
            }
        }
    }
}
