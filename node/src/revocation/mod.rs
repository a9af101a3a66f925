//! What is revoked, as this node enforces it.
//!
//! | file | what it holds |
//! |---|---|
//! | [`table`] | [`Revocations`]: is this token revoked, is this node evicted |
//! | [`live`] | open connections by whose evidence they rest on, to be closed when it is revoked |
//! | [`keeper`] | the disk: a journal, and the state file that it is folded into |
//!
//! ```text
//! gossip task ── Effect::Revoked ─▶ Revocations (at once) ─▶ closes connections
//!      │                                  ▲
//!      └── segments ─▶ Keeper thread      └── asked by auth for each token, by server and peer for each connection
//!                      journal, fsync ─▶ acknowledged
//! ```
//!
//! Not here: signing, merging and spreading (`p2p_core::revocation` and the gossip task), and who may revoke.

pub mod keeper;
pub mod live;
pub mod table;

pub use keeper::{Everything, Keeper, KeeperEnd, Kept};
pub use live::{Live, LiveConnection, UsedToken};
pub use table::{Listed, Revocations};
