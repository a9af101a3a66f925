//! The coordinator's side: makes join tokens, and certificates for those who redeem them.

mod admin;
mod authority;
mod redeem;
mod reissue;

pub use admin::NewToken;
pub use redeem::Request;
pub use reissue::{RecoverRequest, RenewRequest};

use super::{attempts::Attempts, metrics::EnrolMetrics, names::Names, refusal::Refusal, store::TokenStore};
use crate::{
    error::{Fault, Reason},
    identity::{Ca, CaError, Identity, IdentityStore, LeafRequest, PeerCertificate, San, UnixTime},
    persist::PersistError,
    revocation::Revocations,
    telemetry::Metrics,
    token::{KeepSigners, StoredSigner},
};
use p2p_core::{NodeId, Role, gossip::View};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};

/// Most new nodes that are dialled at a time.
const DIAL_BACKS_MAX: usize = 64;

/// How certificates are issued to nodes.
#[derive(Clone, Copy, Debug)]
pub struct IssuePolicy {
    /// `enrolled_certificate_ttl`: how long they live.
    pub ttl: Duration,
    /// `recover_window`: how long after its end a certificate still proves who asks for a new one.
    pub recover_window: Duration,
}

/// What enrolment works with.
#[derive(Debug)]
pub struct Issuing {
    /// This node's certificates, and where the CA lies.
    pub identity: Arc<IdentityStore>,
    /// The tokens.
    pub store: TokenStore,
    /// The cluster as this node sees it.
    pub view: watch::Receiver<Arc<View>>,
    /// Where this node tells others to dial it, most preferred first.
    pub advertised: Vec<SocketAddr>,
    /// How it issues.
    pub policy: IssuePolicy,
    /// Who is banned.
    pub revocations: Arc<Revocations>,
}

/// Enrolment at one node. At one that cannot issue, every token is unknown.
#[derive(Debug)]
pub struct Enrolment {
    identity: Arc<IdentityStore>,
    store: Mutex<TokenStore>,
    view: watch::Receiver<Arc<View>>,
    advertised: Vec<SocketAddr>,
    policy: IssuePolicy,
    revocations: Arc<Revocations>,
    attempts: Mutex<Attempts>,
    dial_backs: Semaphore,
    metrics: EnrolMetrics,
}

impl Enrolment {
    /// Enrolment with `issuing`.
    pub fn new(issuing: Issuing, metrics: &Metrics) -> Arc<Self> {
        let metrics = metrics.register(EnrolMetrics::register);
        let enrolment = Self {
            identity: issuing.identity,
            store: Mutex::new(issuing.store),
            view: issuing.view,
            advertised: issuing.advertised,
            policy: issuing.policy,
            revocations: issuing.revocations,
            attempts: Mutex::new(Attempts::new(Instant::now())),
            dial_backs: Semaphore::new(DIAL_BACKS_MAX),
            metrics,
        };
        enrolment.show_tokens();
        Arc::new(enrolment)
    }

    fn store(&self) -> MutexGuard<'_, TokenStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_tokens(&self) {
        self.metrics.tokens.set(i64::try_from(self.store().tokens().len()).unwrap_or(i64::MAX));
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges one attempt to `from`.
    fn charge(&self, from: IpAddr) -> Result<(), Refusal> {
        let charged = self.attempts().take(from, Instant::now());
        charged.map_err(|retry_after| Refusal::TooMany { retry_after })
    }

    /// Whether a certificate may be issued to `node` at all, asked by enrolment, renewal and recovery alike.
    fn may_issue(&self, node: &NodeId) -> Result<(), Refusal> {
        match self.revocations.is_evicted(node) {
            true => Err(Refusal::Evicted { node: node.clone() }),
            false => Ok(()),
        }
    }

    /// Certificates that ended before it prove nothing any more.
    fn forget_before(&self, now: UnixTime) -> u64 {
        now.as_secs().saturating_sub(self.policy.recover_window.as_secs())
    }

    /// The names that are other nodes': their ids, their addresses, and what our own certificate carries.
    fn names(&self, identity: &Identity, node: &NodeId, proven: Option<IpAddr>) -> Names {
        let mut taken: BTreeSet<San> = identity.names().into_iter().collect();
        let view = self.view.borrow();
        for (other, member) in view.members.iter().filter(|(other, _)| *other != node) {
            taken.insert(San::Dns(other.to_string()));
            let addresses = member.records.node.addresses.iter().filter_map(|text| text.parse().ok());
            taken.extend(addresses.map(|address: SocketAddr| San::Ip(address.ip())));
        }
        Names { taken, proven }
    }

    pub(super) fn identity(&self) -> Arc<Identity> {
        self.identity.current()
    }

    /// The CA of this coordinator, for who asks for it over the network.
    pub(super) fn issuing_ca(&self, now: UnixTime) -> Result<Ca, Fault> {
        let ca = self.ca(&self.identity.current(), now);
        ca.map_err(|error| Fault::new(Reason::Precondition, format!("no CA here: {error}")))
    }

    /// Whether the CA here is a root, and not this coordinator's own below one.
    pub(crate) fn holds_root(&self) -> bool {
        let files = self.identity.files();
        files.ca_key.exists() && !files.issuer_cert().exists()
    }

    /// The CA of this coordinator, read anew: it may have been replaced.
    fn ca(&self, identity: &Identity, now: UnixTime) -> Result<Ca, CaError> {
        let files = self.identity.files();
        if identity.spiffe().role != Role::Coordinator {
            return Err(CaError::NotCa(identity.spiffe().to_string()));
        }
        let ca = Ca::load(&files.ca_cert, &files.ca_key)?;
        ca.check(identity.cluster_id(), now)?;
        Ok(ca)
    }
}

/// `identity_state.json` has one owner, so that nobody overwrites what another keeps there.
impl KeepSigners for Enrolment {
    fn signers(&self) -> Vec<StoredSigner> {
        self.store().signers()
    }

    fn keep_signers(&self, signers: Vec<StoredSigner>) -> Result<(), PersistError> {
        self.store().keep_signers(signers)
    }
}

/// Signs, and reads what was signed.
fn certify(ca: &Ca, request: &LeafRequest, public_key: &[u8]) -> Result<(Vec<u8>, PeerCertificate), CaError> {
    let certificate = ca.certify(request, public_key)?.to_vec();
    let said = PeerCertificate::parse(&certificate)?;
    Ok((certificate, said))
}

/// What a stranger sent, short enough for a log line.
fn shown(text: &str) -> String {
    text.chars().take(64).filter(|c| !c.is_control()).collect()
}

/// Runs what waits for the disk, or computes for long, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Fault::new(Reason::ShuttingDown, "this node is shutting down"))
}

#[cfg(test)]
mod tests;
