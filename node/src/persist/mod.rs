//! What survives a restart: files that are whole or absent, in a directory that one process owns.
//!
//! | file | what it holds |
//! |---|---|
//! | [`directory`] | [`StateDirectory`]: creation, the lock, durable writes |
//! | [`file`](mod@file) | [`StateFile`]: one versioned JSON file that keeps the fields it does not know |
//! | [`journal`] | [`Journal`]: records appended durably between two saves of a state file |
//! | `disk` | the steps that change the disk, each of which tests have fail |
//! | [`gossip`] | [`GossipFile`]: the number that rises at each start, and where members were |
//!
//! ```text
//! save:  T → JSON → .<name>.tmp (0600) → fsync → rename to <name> → fsync of the directory
//! load:  <name> → T, or <name>.corrupt-<time> when it cannot be one
//! ```
//!
//! What is promised, of a disk that keeps what it has confirmed by fsync:
//!
//! - *A state file is whole*: whenever the process is killed, and whichever step of a save fails, the next start reads the
//!   state before the save or the one that was saved. If the save returned `Ok`, it is the latter.
//! - *An acknowledged record stays*: once [`Journal::append`] has returned `Ok`, the record is read at every later start, until
//!   [`Journal::clear`]; also if appends or clears in between have failed or were torn. Of those that were not acknowledged,
//!   some may be read.
//! - *An epoch is given once*: [`GossipFile::start`] returns only what is on disk, above all that it has returned before.
//! - *Damage is told*: a file that cannot be what it should (another length, checksum, form or version; a directory, a link)
//!   is moved aside, never overwritten or followed, and its owner learns of it. What is lost is for the owner to answer for.
//! - *A full or read-only disk changes nothing*: what could not be kept is refused with the reason, what was kept stays.
//!
//! Not promised: anything of a disk that confirms what it has not kept, or that gives back other bytes which pass for the
//! right ones: JSON has no checksum, journals have one. `tests.rs`, `journal.rs` and `revocation/keeper.rs` have each step fail
//! (`disk/faults.rs`); `node/tests/crash.rs`, `disk.rs` and `damage.rs` do the same to real processes.
//!
//! Every call here blocks on the disk: call from a blocking thread, not from an async task. What is kept,
//! and when it is saved, is for the owners of the state to say.

pub mod directory;
pub(crate) mod disk;
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
