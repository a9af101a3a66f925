//! What bad input gets: a clear message that says what to do, and where it is traffic, a count.
//!
//! | file | what it feeds |
//! |---|---|
//! | `start` | configurations, files and certificates with which a node must not start |
//! | `connections` | bytes and certificates that are no client's |
//! | `admission` | clients that take more than their share of connections, calls and verifying |
//! | `requests` | requests of those who may connect |
//! | `resets` | calls that are begun and taken back without end |
//! | `answers` | what a service answers against its own descriptors |
//! | `gossip` | records that a node with a valid certificate must not get through |
//! | `envelope` | compressed frames that lie about what they hold |
//! | `flood` | nodes that send too much, read nothing, or say nothing |
//! | `identity` | an id that two processes hold, and one whose state was set back |

mod admission;
mod answers;
mod connections;
mod envelope;
mod flood;
mod gossip;
mod identity;
mod requests;
mod resets;
mod start;
#[path = "../support/mod.rs"]
mod support;
