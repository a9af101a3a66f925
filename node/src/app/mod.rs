//! Builds every part of a node and wires them; the only module that knows them all.
//!
//! | file | what it holds |
//! |---|---|
//! | [`builder`] | start-up, in order, in one function |
//! | [`node`] | a running node and its shutdown, in order |
//! | [`error`] | why a node does not start |
//! | `state` | what a start finds on disk |
//! | `advertise` | the address that others should dial |
//! | `certificate` | the node's certificate at start: found, made or joined for |
//! | `publish` | what the node tells the cluster of itself, with which certificates |
//! | `upkeep` | certificates renewed in time, and reloaded when their files change |
//! | [`reload`] | another configuration taken over while the node runs, all or nothing |
//! | `systemd` | what the service manager is told |
//! | `run` | a node as a process: configuration, signals, exit codes |

mod advertise;
pub mod builder;
mod certificate;
pub mod error;
pub mod node;
mod publish;
pub mod reload;
mod run;
mod state;
mod systemd;
mod upkeep;

pub use builder::NodeBuilder;
pub use error::StartError;
pub use node::Node;
pub use reload::ReloadError;
pub use run::{EXIT_CONFIG, EXIT_FAILURE, main_with, run_with_services};
