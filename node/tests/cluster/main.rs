//! A cluster of real processes over real TLS, from start to end.
//!
//! | file | what it shows |
//! |---|---|
//! | `calls` | calls through another node than the provider: everything arrives as sent |
//! | `streams` | streams of every kind, deadlines and cancellation through a hop |
//! | `lifecycle` | join, leave, death, return, and new certificates |
//! | `renewal` | certificates that renew, recover, expire and are replaced under running calls |

mod calls;
mod lifecycle;
mod renewal;
mod streams;
#[path = "../support/mod.rs"]
mod support;
