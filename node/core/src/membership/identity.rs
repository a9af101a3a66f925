//! A node's identity as the failure detector sees it, and its encoding.

use crate::{
    id::{Epoch, NodeId},
    tag::Shared,
};
use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, PostcardCodec};
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    fmt,
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// One life of a node: its id, the durable number of this start, the renewals within it, and a random
/// number of the process. Lives of one node are ordered by (epoch, generation, instance).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The name in the node's certificate.
    pub node: NodeId,
    /// Durable number of this start.
    pub epoch: Epoch,
    /// Renewals since the start: +1 each time the cluster had declared this life down.
    pub generation: u64,
    /// Random number of this process.
    pub instance: u32,
    /// Where the node accepts connections.
    pub address: SocketAddr,
}

thread_local! {
    static LIVES: RefCell<Shared<Life>> = RefCell::new(Shared::new());
}

/// A [`Life`], as the failure detector compares and copies it: small, and the same copy for all who know it.
///
/// Equality ignores the address, so that a node may come back elsewhere without being taken for somebody else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Life", into = "Life")]
pub struct Identity {
    /// foca compares it in every scan of its members.
    tag: u64,
    life: Arc<Life>,
}

impl From<Life> for Identity {
    fn from(life: Life) -> Self {
        let tag = life.node.tag();
        let shared =
            |lives: &mut Shared<Life>| lives.get(tag, |known| *known == life, || Arc::new(life.clone()));
        Self { tag, life: LIVES.with_borrow_mut(shared) }
    }
}

impl From<Identity> for Life {
    fn from(identity: Identity) -> Self {
        Arc::unwrap_or_clone(identity.life)
    }
}

impl Deref for Identity {
    type Target = Life;
    fn deref(&self) -> &Life {
        &self.life
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.life.fmt(f)
    }
}

impl Identity {
    pub(super) fn order(&self) -> (Epoch, u64, u32) {
        (self.epoch, self.generation, self.instance)
    }

    /// Whether this life is later than `other`, another life of the same node.
    pub fn supersedes(&self, other: &Self) -> bool {
        self.order() > other.order()
    }

    /// The very same, address included.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.life, &other.life) || self.life == other.life
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag
            && (Arc::ptr_eq(&self.life, &other.life)
                || self.order() == other.order() && self.node == other.node)
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        Some(Life { generation: self.generation + 1, ..Life::clone(self) }.into())
    }

    fn addr(&self) -> u64 {
        self.tag
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.supersedes(adversary)
    }
}

/// Postcard, refusing lives whose epoch lies in the far future: accepting one would let a single bad
/// clock, or a stolen node, shut another node out for good.
#[derive(Clone, Debug)]
pub(super) struct WireCodec {
    highest_epoch: Arc<AtomicU64>,
}

/// Why a packet of the failure detector could not be decoded or encoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Not a packet, or one of an unknown format.
    #[error("malformed membership packet: {0}")]
    Malformed(#[from] postcard::Error),
    /// An epoch more than [`Epoch::MAX_AHEAD_MS`] ahead of our clock.
    #[error("the epoch {epoch} of node {node} lies more than 24 h ahead of this node's clock")]
    EpochAhead {
        /// Whose.
        node: NodeId,
        /// Which.
        epoch: Epoch,
    },
}

impl WireCodec {
    pub(super) fn new(unix_ms: u64) -> Self {
        let codec = Self { highest_epoch: Arc::default() };
        codec.set_clock(unix_ms);
        codec
    }

    pub(super) fn set_clock(&self, unix_ms: u64) {
        self.highest_epoch.store(unix_ms.saturating_add(Epoch::MAX_AHEAD_MS), Ordering::Relaxed);
    }

    fn check(&self, id: &Identity) -> Result<(), CodecError> {
        if id.epoch.0 > self.highest_epoch.load(Ordering::Relaxed) {
            return Err(CodecError::EpochAhead { node: id.node.clone(), epoch: id.epoch });
        }
        Ok(())
    }

    /// The header of a packet, for those who only need to know who sends what.
    pub(super) fn peek(&mut self, packet: &[u8]) -> Result<Header<Identity>, CodecError> {
        self.decode_header(packet)
    }
}

impl Codec<Identity> for WireCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_header(header, buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        self.check(&header.src)?;
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        self.check(member.id())?;
        Ok(member)
    }
}
