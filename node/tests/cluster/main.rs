//! A cluster of real processes over real TLS, from start to end.
//!
//! | file | what it shows |
//! |---|---|
//! | `calls` | calls through another node than the provider: everything arrives as sent |
//! | `streams` | streams of every kind, deadlines and cancellation through a hop |
//! | `events` | why a member is in its state, asked of a node and followed as it happens |
//! | `lifecycle` | join, leave, death, return, and new certificates |
//! | `memory` | slow readers, and the memory of the nodes between |
//! | `renewal` | certificates that renew, recover, expire and are replaced under running calls |

mod calls;
mod events;
mod lifecycle;
mod memory;
mod renewal;
mod streams;
#[path = "../support/mod.rs"]
mod support;
