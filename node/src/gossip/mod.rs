//! The one task that drives `p2p-core`, and the streams that carry its frames.
//!
//! | file | what it holds |
//! |---|---|
//! | `handle` | what other parts hold: view, publish, leave, accepted streams |
//! | `task` `task/links` | the loop: commands and time in, effects out; streams opened, used and closed |
//! | `link` | one gossip stream: hello, then frames both ways |
//! | `inbox` `outbox` | how much is taken in of each peer and of all; how much may wait for one |
//! | `frame` | one message on its way: encoded, compressed for peers that read that |
//! | `revoke` `receipt` | revocations: signed, kept, enforced; evictions confirmed by every member |
//! | `keyring` | signing and verifying for the engine, with this node's identity |
//! | `events` `metrics` | what is logged and counted |
//!
//! ```text
//! rpc::gossip (accepted streams) ┐                      ┌ watch: View → registry, gateway, rpc
//! links (dialled streams) ───────┼─ commands → task ────┤
//! app (publish, leave) ──────────┘     │   ↑            └ frames → links
//!                                   p2p_core::gossip::Engine
//! ```

mod events;
mod frame;
mod handle;
mod inbox;
mod keyring;
mod link;
mod memory;
mod metrics;
mod outbox;
mod receipt;
mod revoke;
mod task;

pub use handle::{Gossip, GossipCost, Watched};
pub use keyring::NodeKeyring;
pub use link::{Accepted, LinkError};
pub use memory::Memory;
pub use receipt::Receipt;
pub use revoke::{Enforced, Revoke, Revoking};
pub use task::{GossipSetup, spawn};
