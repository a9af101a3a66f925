//! A running node's side of renewal: a new certificate before the present one ends, or after, if nobody could
//! be reached in time.
//!
//! ```text
//! coordinator with the CA's key ─▶ signs its own
//! worker, certificate in time   ─▶ Renew over mTLS, at a live coordinator, else at a seed
//! worker, certificate expired   ─▶ Recover over anonymous TLS (`recover`)
//! ```

use super::recover;
use crate::{
    config::SeedAddress,
    identity::{
        Bundle, Ca, CaError, Enrolled, EnrolledError, Identity, IdentityFiles, IdentityStore, InvalidCsr,
        LeafRequest, RenewalKey, San, UnixTime, Validity, coordinator_of, proven_key,
    },
    peer::{PeerConnection, PeerPool, resolve},
};
use p2p_core::{NodeId, Role, gossip::View};
use p2p_proto::v1::{
    EnrollResponse, MemberState, RenewRequest, enrollment_service_client::EnrollmentServiceClient,
};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::{Code, Status};

/// Longest wait for a coordinator's answer.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses that are tried in one go.
const ADDRESSES_MAX: usize = 16;

/// Why there is no new certificate. The present one stays in force; another try may succeed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// There is nobody to ask.
    #[error("no coordinator is known; coordinator_addresses should name one")]
    Nobody,
    /// Nobody who could issue was reached.
    #[error("no coordinator renews now; the last try: {last}")]
    Away {
        /// What went wrong last.
        last: String,
    },
    /// Everybody who was reached refuses for good.
    #[error("the coordinator at {address} refused: {message}")]
    Refused {
        /// Which.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// Keys, files, or an answer that is not to be believed.
    #[error(transparent)]
    Files(#[from] EnrolledError),
    /// This coordinator cannot sign its own.
    #[error("this coordinator cannot issue its own certificate: {0}")]
    Ca(#[from] CaError),
    /// The node is shutting down.
    #[error("interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// TLS cannot be set up: a defect.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl From<InvalidCsr> for RenewError {
    fn from(_: InvalidCsr) -> Self {
        Self::Ca(CaError::PublicKey)
    }
}

impl RenewError {
    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Nobody | Self::Away { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Ca(_) => "ca",
            Self::Files(
                EnrolledError::File(_)
                | EnrolledError::PendingKey { .. }
                | EnrolledError::OtherCa(_)
                | EnrolledError::Make(_)
                | EnrolledError::Write(_)
                | EnrolledError::CaKeyExists(_)
                | EnrolledError::NoCa
                | EnrolledError::Ca(_),
            )
            | Self::Interrupted(_)
            | Self::Tls(_) => "files",
            Self::Files(
                EnrolledError::NoPinnedRoot
                | EnrolledError::Roots(_)
                | EnrolledError::Certificate(_)
                | EnrolledError::OtherKey
                | EnrolledError::OtherNode { .. }
                | EnrolledError::OtherCoordinator { .. }
                | EnrolledError::NoGain(_)
                | EnrolledError::Untrusted(_),
            ) => "invalid",
        }
    }
}

/// How a new certificate was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// From a coordinator, in time, or from the node's own CA.
    Renewed,
    /// From a coordinator, after the old one had expired.
    Recovered,
}

impl How {
    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Renewed => "ok",
            Self::Recovered => "recovered",
        }
    }
}

/// Every word of [`How::word`] and [`RenewError::word`].
pub(super) const WORDS: [&str; 7] = ["ok", "recovered", "unreachable", "refused", "invalid", "files", "ca"];

/// A new certificate that is not checked or written yet.
#[derive(Debug)]
pub struct Renewal {
    pub(super) key: RenewalKey,
    pub(super) answer: Enrolled,
    /// How it was come by.
    pub how: How,
}

impl Renewal {
    /// Checks it against the `present` identity and replaces the files. Blocks on the disk. `root`: it must lead there,
    /// and may then end before the present one.
    ///
    /// # Errors
    ///
    /// As [`RenewalKey::install`].
    pub fn install(
        self,
        files: &IdentityFiles,
        present: &Identity,
        root: Option<&Bundle>,
        now: UnixTime,
    ) -> Result<How, EnrolledError> {
        self.key.install(files, present, &self.answer, root, now)?;
        Ok(self.how)
    }
}

/// What a node renews with.
#[derive(Debug)]
pub struct Renewer {
    /// Its identity.
    pub identity: Arc<IdentityStore>,
    /// Connections to others.
    pub pool: Arc<PeerPool>,
    /// The cluster as it sees it.
    pub view: watch::Receiver<Arc<View>>,
    /// Where to look when no coordinator is alive in the view.
    pub seeds: Vec<SeedAddress>,
    /// Names for its certificate, beside those that it carries.
    pub names: Vec<San>,
    /// `enrolled_certificate_ttl`, for a coordinator's own.
    pub ttl: Duration,
}

impl Renewer {
    /// Gets a new certificate; nothing is in force yet.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn ask(&self) -> Result<Renewal, RenewError> {
        let identity = self.identity.current();
        let names = names(&identity, &self.names);
        let (files, node) = (self.identity.files().clone(), identity.spiffe().name.clone());
        if identity.spiffe().role == Role::Coordinator {
            let ttl = self.ttl;
            let own = move || own(&identity, &files, &names, ttl, UnixTime::now());
            return tokio::task::spawn_blocking(own).await?;
        }
        let key = tokio::task::spawn_blocking(move || RenewalKey::prepare(&files, &node)).await??;
        let sans = names.iter().map(ToString::to_string).collect();
        let addresses = self.addresses().await;
        if UnixTime::now() > identity.not_after() {
            let addresses: Vec<SocketAddr> = addresses.into_iter().map(|(_, address)| address).collect();
            let answer = recover::ask(&identity, key.csr(), sans, &addresses).await?;
            return Ok(Renewal { key, answer, how: How::Recovered });
        }
        let request = RenewRequest { csr: key.csr().to_vec().into(), sans };
        let mut tries = Tries::default();
        for (node, address) in addresses {
            let dialled = match &node {
                Some(node) => self.pool.get(node, address).await.map_err(|error| error.to_string()),
                None => self.pool.get_any(address).await.map_err(|error| error.to_string()),
            };
            let answer = match dialled {
                Ok(connection) => renew_at(connection, request.clone()).await,
                Err(why) => Err(Failed::Later(why)),
            };
            match answer {
                Ok(answer) => return Ok(Renewal { key, answer, how: How::Renewed }),
                Err(failed) => tries.note(address, failed),
            }
        }
        Err(tries.into_error())
    }

    /// Whether the present certificate is of the coordinator's CA: its own, or the root whose key it holds.
    fn issued_by(&self, coordinator: &NodeId) -> bool {
        let chain = self.identity.current();
        match chain.chain_der().get(1) {
            Some(ca) => coordinator_of(ca).as_ref() == Some(coordinator),
            None => {
                let view = self.view.borrow();
                view.members
                    .get(coordinator)
                    .is_some_and(|member| member.records.node.certificate_chain.len() == 1)
            }
        }
    }

    /// Live coordinators in random order, then the seeds.
    async fn addresses(&self) -> Vec<(Option<NodeId>, SocketAddr)> {
        let mut coordinators: Vec<(Option<NodeId>, SocketAddr)> = {
            let view = self.view.borrow();
            let members = view.members.iter().filter(|(_, member)| {
                member.role() == Role::Coordinator && member.state == MemberState::Alive
            });
            members.filter_map(|(node, member)| Some((Some(node.clone()), member.address?))).collect()
        };
        if !coordinators.is_empty() {
            let first = rand::random_range(0..coordinators.len());
            coordinators.rotate_left(first);
        }
        // Those first whose CA issued the present one: whoever is evicted takes with it what it issued, and nodes that it
        // never enrolled should not be among them.
        coordinators.sort_by_key(|(node, _)| node.as_ref().is_none_or(|node| !self.issued_by(node)));
        let mut known: BTreeSet<SocketAddr> = coordinators.iter().map(|(_, address)| *address).collect();
        for address in resolve_all(&self.seeds).await {
            if known.insert(address) {
                coordinators.push((None, address));
            }
        }
        coordinators.truncate(ADDRESSES_MAX);
        coordinators
    }
}

/// A coordinator's own new certificate, from the CA whose key it has.
pub(super) fn own(
    identity: &Identity,
    files: &IdentityFiles,
    names: &[San],
    ttl: Duration,
    now: UnixTime,
) -> Result<Renewal, RenewError> {
    let ca = Ca::load(&files.ca_cert, &files.ca_key)?;
    ca.check(identity.cluster_id(), now)?;
    let key = RenewalKey::prepare(files, &identity.spiffe().name)?;
    let request = LeafRequest {
        spiffe: identity.spiffe().clone(),
        sans: names.to_vec(),
        grant: identity.certificate().grant.clone(),
        vouchers: Vec::new(),
        validity: Validity::lasting(now, ttl),
    };
    let certificate = ca.certify(&request, &proven_key(key.csr())?)?;
    let chain = std::iter::once(&certificate).chain(ca.chain()).map(|der| der.to_vec()).collect();
    let answer = Enrolled { chain, roots: Vec::new(), ca_chain: Vec::new() };
    Ok(Renewal { key, answer, how: How::Renewed })
}

/// The names that a certificate carries already, and those that the configuration adds.
pub(super) fn names(identity: &Identity, configured: &[San]) -> Vec<San> {
    let names: BTreeSet<San> = identity.names().into_iter().chain(configured.iter().cloned()).collect();
    names.into_iter().collect()
}

/// The addresses of all seeds, each once.
pub(super) async fn resolve_all(seeds: &[SeedAddress]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for seed in seeds {
        for address in resolve(seed).await {
            if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
    }
    addresses
}

async fn renew_at(connection: PeerConnection, request: RenewRequest) -> Result<Enrolled, Failed> {
    let address = connection.address;
    let mut client = client(connection)?;
    answer(address, client.renew(request)).await
}

/// A client of the coordinator at the other end of `connection`.
pub(super) fn client(connection: PeerConnection) -> Result<EnrollmentServiceClient<PeerConnection>, Failed> {
    let origin =
        http::Uri::builder().scheme("https").authority(connection.address.to_string()).path_and_query("/");
    let origin = origin.build().map_err(|error| Failed::Later(error.to_string()))?;
    Ok(EnrollmentServiceClient::with_origin(connection, origin))
}

/// Waits for an answer, not for ever.
pub(super) async fn answer(
    address: SocketAddr,
    call: impl Future<Output = Result<tonic::Response<EnrollResponse>, Status>>,
) -> Result<Enrolled, Failed> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    let answer = answer.map_err(|_elapsed| Failed::Later(format!("{address} did not answer in time")))?;
    let answer = answer.map_err(|status| failed(address, &status))?.into_inner();
    let bytes = |list: Vec<bytes::Bytes>| list.into_iter().map(Vec::from).collect();
    let (chain, roots) = (bytes(answer.certificate_chain), bytes(answer.roots));
    Ok(Enrolled { chain, roots, ca_chain: Vec::new() })
}

/// How one try at one address ended.
#[derive(Debug)]
pub(super) enum Failed {
    /// It may succeed later, or elsewhere.
    Later(String),
    /// The coordinator knows who asks, and refuses.
    Denied(String),
}

fn failed(address: SocketAddr, status: &Status) -> Failed {
    match status.code() {
        Code::PermissionDenied => Failed::Denied(status.message().to_owned()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Failed::Later(format!("{address}: {}", status.message())),
    }
}

/// What came of all addresses.
#[derive(Debug, Default)]
pub(super) struct Tries {
    last: Option<String>,
    denied: Option<(SocketAddr, String)>,
}

impl Tries {
    pub(super) fn note(&mut self, address: SocketAddr, failed: Failed) {
        match failed {
            Failed::Later(why) => self.last = Some(why),
            Failed::Denied(why) => self.denied = Some((address, why)),
        }
    }

    /// A refusal counts only if nobody is left who may think otherwise.
    pub(super) fn into_error(self) -> RenewError {
        match (self.last, self.denied) {
            (Some(last), _) => RenewError::Away { last },
            (None, Some((address, message))) => RenewError::Refused { address, message },
            (None, None) => RenewError::Nobody,
        }
    }
}
