//! What survives a restart: files that are whole or absent, in a directory that one process owns.
//!
//! | file | what it holds |
//! |---|---|
//! | [`directory`] | [`StateDirectory`]: creation, the lock, durable writes |
//! | [`file`](mod@file) | [`StateFile`]: one versioned JSON file that keeps the fields it does not know |
//! | [`journal`] | [`Journal`]: records appended durably between two saves of a state file |
//! | [`gossip`] | [`GossipFile`]: the number that rises at each start, and where members were |
//!
//! ```text
//! save:  T → JSON → .<name>.tmp (0600) → fsync → rename to <name> → fsync of the directory
//! load:  <name> → T, or <name>.corrupt-<time> when it cannot be one
//! ```
//!
//! Every call here blocks on the disk: call from a blocking thread, not from an async task. What is kept,
//! and when it is saved, is for the owners of the state to say.

pub mod directory;
mod error;
pub mod file;
pub mod gossip;
pub mod journal;
#[cfg(test)]
mod tests;

pub use self::{
    directory::StateDirectory,
    error::PersistError,
    file::{Loaded, MAX_FILE_LEN, StateFile},
    gossip::{GossipFile, KnownMember},
    journal::Journal,
};
