//! Why a node does not start, or does not go on.

use crate::{
    audit::AuditError,
    enrol::{JoinError, RenewError},
    identity::IdentityError,
    persist::PersistError,
    registry::{DuplicateService, ServiceError},
    upstream::LoadError,
};
use p2p_core::record::Refusal;
use std::{io, net::SocketAddr, path::PathBuf};

/// Why a node did not start, or ended otherwise than it should. Whatever was opened is closed again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// State directory, lock or epoch.
    #[error(transparent)]
    State(#[from] PersistError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Joining with a token.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The certificate has expired, and the node gets no new one.
    #[error("{expired}; it could not be recovered: {why}")]
    Recover {
        /// What was found.
        expired: Box<IdentityError>,
        /// Why there is no new one.
        why: Box<RenewError>,
    },
    /// The port is taken.
    #[error("{address} is in use by another process; stop that one, or set port or bind_address")]
    PortInUse {
        /// Which.
        address: SocketAddr,
    },
    /// The port cannot be opened.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The local socket cannot be opened.
    #[error("cannot listen on the socket {}: {error}; set listen_socket to a path in a directory that this user may write", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Two services of one name.
    #[error(transparent)]
    Duplicate(#[from] DuplicateService),
    /// A service of an upstream.
    #[error(transparent)]
    Upstream(#[from] LoadError),
    /// The node's own records break a rule.
    #[error("this node's records cannot be published: {0}")]
    Records(#[from] Refusal),
    /// The process cannot listen for signals.
    #[error("cannot listen for signals: {error}")]
    Signals {
        /// What the system says.
        error: io::Error,
    },
    /// A part that must never end has ended: a defect.
    #[error("the {part} task ended by itself; this is a defect")]
    Broken {
        /// Which.
        part: &'static str,
    },
    /// A second signal came before the shutdown was through.
    #[error("ended at once by a second signal; calls in flight were cut off")]
    Hurried,
    /// A part of the start-up was cut off.
    #[error("start-up was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}
