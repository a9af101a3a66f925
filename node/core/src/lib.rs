//! The protocol of P2P Core, without I/O.
//!
//! Nothing here reads a clock, opens a socket, spawns or blocks: the time ([`Moment`]), randomness and
//! bytes come in, effects go out. So a cluster of any size runs in a test, and a failure replays from its
//! seed. `p2p-node` owns every socket and timer and drives this crate from one task.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] [`spiffe`] [`method`] [`principal`] [`grant`] [`scope`] | the shared words as types; invalid states do not parse |
//! | `tag` | maps by node, and one copy of what is read often |
//! | [`time`] | the clock that callers pass in |
//! | [`membership`] | SWIM failure detection: foca behind our identities, guards and evidence |
//! | [`record`] | manifests and records, their verification and the store that merges them |
//! | [`revocation`] | what coordinators take back: signed segments, their merging, who is evicted |
//! | [`gossip`] | the engine: membership, records and revocations of one node as one state machine |
//! | [`wire`] | how one message travels: the frame, and its compression |
//! | [`balancer`] [`retry`] | which provider takes a call; how many calls may be made again |
//! | [`calls`] | the books of a peer stream: calls in flight on it, and their credit |
//! | [`suggest`] | "did you mean": the nearest known name |
//!
//! Data flows one way: frame → [`wire::open`] → [`gossip::Engine`] → [`membership`] / [`record`] /
//! [`revocation`] → effects and a new [`gossip::View`] of the cluster.

pub mod balancer;
pub mod calls;
pub mod gossip;
pub mod grant;
pub mod id;
pub mod membership;
pub mod method;
pub mod principal;
pub mod record;
pub mod retry;
pub mod revocation;
pub mod scope;
pub mod spiffe;
pub mod suggest;
mod tag;
#[cfg(test)]
mod testing;
pub mod time;
pub mod wire;

pub use grant::Grant;
pub use id::{ClusterId, Epoch, NodeId};
pub use method::{MethodPath, ServiceName};
pub use principal::{Principal, Subject, TokenHolder};
pub use scope::Scope;
pub use spiffe::{Role, SpiffeId};
pub use time::Moment;
