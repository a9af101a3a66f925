//! Why state could not be kept or read.

use p2p_core::NodeId;
use std::{io, path::PathBuf};

/// Why state could not be kept or read. Unless a variant says otherwise, what was on disk is still there,
/// and a retry can help once the cause is gone.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The directory could not be created or opened.
    #[error(
        "cannot use the state directory {}: {source}; make it writable for this user or set state_directory",
        .directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the directory's lock.
    #[error(
        "the state directory {} is in use by {}; stop that one, or set state_directory to one of this node's own",
        .directory.display(),
        .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The holder, if its id could be read.
        pid: Option<u32>,
    },
    /// A file is there but could not be read.
    #[error("cannot read {}: {source}; check its owner and permissions, and the disk", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written. The one before it is kept; only if the last step, the directory's
    /// fsync, failed may either be found after a power failure.
    #[error("cannot write {}: {source}; check the space and permissions of the disk", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A damaged file could not be moved out of the way.
    #[error("{} is damaged and cannot be moved aside: {source}; move it away by hand", .path.display())]
    MoveAside {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state has no JSON form, or uses the field `version` for itself. A retry cannot help.
    #[error("cannot encode the state for {}: {why}; this is a bug, please report it", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        why: String,
    },
    /// The state is larger than a state file may be. A retry cannot help.
    #[error("the state for {} has {len} bytes, at most {limit} can be kept", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What was to be written, in bytes.
        len: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The directory holds the state of another node. A retry cannot help.
    #[error(
        "{} belongs to node {found}, and this is {expected}; set state_directory to one of this node's own, or \
         node_id to {found}",
        .path.display()
    )]
    OtherNode {
        /// The file that says so.
        path: PathBuf,
        /// Whose state it is.
        found: NodeId,
        /// Who we are.
        expected: NodeId,
    },
    /// No higher epoch exists, so that no later start could be told from this one. A retry cannot help.
    #[error("the epoch in {} is the largest there is; remove the file to start from the clock", .path.display())]
    EpochExhausted {
        /// The file.
        path: PathBuf,
    },
}
