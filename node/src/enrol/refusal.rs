//! Why an enrolment, a renewal or a recovery is refused. Whoever does not prove to hold a valid token learns nothing of the reason.

use crate::{
    config::format_duration,
    error::{Fault, Reason},
    identity::{CaError, InvalidCsr, TrustError},
    persist::PersistError,
};
use p2p_core::{NodeId, SpiffeId, grant::InvalidGrant};
use p2p_proto::Timestamp;
use std::{net::SocketAddr, time::Duration};

/// What strangers are told, whatever was wrong.
pub const ONE_ANSWER: &str = "the join token is not valid";
/// What whoever does not prove to hold an expired certificate of this cluster is told.
pub const ONE_RECOVERY_ANSWER: &str = "the certificate and the signature do not prove a node of this cluster";

/// Why a certificate is refused. A token can still be redeemed unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such token was made here, or it is long gone.
    #[error("no such join token was made by this node")]
    Unknown,
    /// The token exists; the secret is not its.
    #[error("the secret is not the token's")]
    WrongSecret,
    /// All its uses are up, by other keys.
    #[error("the join token is used up, and this is another key")]
    Used,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// An admin took it back.
    #[error("the join token was revoked")]
    Revoked,
    /// Too many attempts.
    #[error("too many enrolment attempts; retry in {:.1} s", retry_after.as_secs_f64())]
    TooMany {
        /// When one more is allowed.
        retry_after: Duration,
    },
    /// Another node passed it on; it has seen the secret.
    #[error("enrolment takes a connection to the coordinator itself, not through another node")]
    Forwarded,
    /// The request for the certificate.
    #[error(transparent)]
    Csr(#[from] InvalidCsr),
    /// The node id or address is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The token is another node's.
    #[error("the join token is for node {bound}, and this is {asked}; make one with --node {asked}")]
    OtherNode {
        /// Whom it is for.
        bound: NodeId,
        /// Who asks.
        asked: NodeId,
    },
    /// Somebody has the id.
    #[error(
        "node id {node} is taken: {holder}; choose another node_id, or make the join token with --replace to hand \
         the id over"
    )]
    NodeIdTaken {
        /// The id.
        node: NodeId,
        /// Who has it.
        holder: String,
    },
    /// Nobody answers at the address that the node wants to be dialled at.
    #[error(
        "the coordinator cannot reach this node at {address} ({why}); open the port to the other nodes, or set \
         advertise_addresses to an address that they reach. The join token can still be used"
    )]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// The certificate shown for a recovery, or the signature, is not to be believed.
    #[error("the recovery is not proven: {0}")]
    Untrusted(#[from] TrustError),
    /// The certificate of the connection has expired meanwhile.
    #[error("the certificate of {0} has expired; Recover takes it")]
    Lapsed(SpiffeId),
    /// The certificate ended too long ago.
    #[error(
        "the certificate of {spiffe} expired on {}, longer ago than recover_window ({}); join anew with a token of \
         `p2pctl cluster join-token create --node {} --replace`",
        Timestamp { seconds: i64::try_from(*ended).unwrap_or(i64::MAX), nanos: 0 }, format_duration(*window), spiffe.name
    )]
    TooOld {
        /// Whose.
        spiffe: SpiffeId,
        /// When, Unix seconds.
        ended: u64,
        /// How long ago it may be.
        window: Duration,
    },
    /// The id was given to somebody else since.
    #[error(
        "another key has a newer certificate of {0}: the id was handed over, or this host runs on old files; join anew \
         with a token of `p2pctl cluster join-token create --node {0} --replace`"
    )]
    Superseded(NodeId),
    /// A coordinator asks.
    #[error("{0} is not a worker: who holds the CA's key issues for itself, and no other coordinator does")]
    NoWorker(SpiffeId),
    /// This node issues no certificates; who does.
    #[error("{0}")]
    NotHere(String),
    /// The node id is banned from the cluster.
    #[error("node {node} is evicted; an admin must run `p2pctl cluster readmit {node}` first")]
    Evicted {
        /// Whose.
        node: NodeId,
    },
    /// The CA cannot issue.
    #[error("the coordinator cannot issue certificates: {0}")]
    Ca(#[from] CaError),
    /// The stored grant does not read; the token is unusable.
    #[error("the token's grant is unusable: {0}")]
    Grant(#[from] InvalidGrant),
    /// The use could not be kept, so nothing was issued.
    #[error("the coordinator could not record the enrolment: {0}")]
    State(#[from] PersistError),
    /// The node is shutting down.
    #[error("the coordinator is shutting down")]
    Interrupted,
}

impl Refusal {
    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::WrongSecret => "wrong_secret",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::TooMany { .. } => "limited",
            Self::Forwarded => "forwarded",
            Self::Csr(_) => "csr",
            Self::Malformed(_) => "malformed",
            Self::OtherNode { .. } => "other_node",
            Self::NodeIdTaken { .. } => "node_id_taken",
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted(_) => "untrusted",
            Self::Lapsed(_) => "lapsed",
            Self::TooOld { .. } => "too_old",
            Self::Superseded(_) => "superseded",
            Self::NoWorker(_) => "no_worker",
            Self::NotHere(_) => "not_here",
            Self::Evicted { .. } => "evicted",
            Self::Ca(_) | Self::Grant(_) => "ca",
            Self::State(_) | Self::Interrupted => "state",
        }
    }

    /// All words of [`Self::word`].
    pub const WORDS: [&'static str; 21] = [
        "unknown",
        "wrong_secret",
        "used",
        "expired",
        "revoked",
        "limited",
        "forwarded",
        "csr",
        "malformed",
        "other_node",
        "node_id_taken",
        "unreachable",
        "untrusted",
        "lapsed",
        "too_old",
        "superseded",
        "no_worker",
        "evicted",
        "not_here",
        "ca",
        "state",
    ];

    /// What the caller is told. Only who proved to hold a valid token is told the reason.
    pub fn to_fault(&self) -> Fault {
        let reason = match self {
            Self::Unknown | Self::WrongSecret | Self::Used | Self::Expired | Self::Revoked => {
                return Fault::new(Reason::Denied, ONE_ANSWER);
            }
            Self::Untrusted(_) => return Fault::new(Reason::Denied, ONE_RECOVERY_ANSWER),
            Self::TooMany { retry_after } => {
                let mut fault = Fault::new(Reason::RateLimited, self.to_string());
                fault.retry_after = Some(*retry_after);
                return fault;
            }
            Self::Ca(_) | Self::Grant(_) | Self::State(_) => {
                return Fault::new(
                    Reason::Internal,
                    "the coordinator cannot issue certificates now; its log says why. Nothing was used up",
                );
            }
            Self::Csr(_) | Self::Malformed(_) => Reason::InvalidArgument,
            Self::Forwarded
            | Self::OtherNode { .. }
            | Self::NodeIdTaken { .. }
            | Self::Unreachable { .. }
            | Self::Lapsed(_)
            | Self::NotHere(_) => Reason::Precondition,
            Self::TooOld { .. } | Self::Superseded(_) | Self::NoWorker(_) | Self::Evicted { .. } => {
                Reason::Denied
            }
            Self::Interrupted => Reason::ShuttingDown,
        };
        Fault::new(reason, self.to_string())
    }
}
