//! The same certificate again, for a new key: renewal before the end, recovery after it.
//!
//! Both take id, role and grant from the certificate that the node has, and of the request only a proven key
//! and free names. What a node got through a token it keeps, and nothing widens it.

use super::{Enrolment, blocking, certify, shown};
use crate::{
    enrol::{
        refusal::Refusal,
        token::{Newest, hash},
    },
    identity::{
        CaError, Enrolled, LeafRequest, PeerCertificate, TrustError, UnixTime, Validity, proven_key,
        recovery_message,
    },
};
use p2p_core::{NodeId, Role};
use std::{net::IpAddr, sync::Arc};

/// A request to renew, as it came.
#[derive(Clone, Debug)]
pub struct RenewRequest {
    /// Where it came from.
    pub from: IpAddr,
    /// Whether another node passed it on.
    pub forwarded: bool,
    /// What the connection's certificate says; it was verified when the connection was opened.
    pub presented: Option<Arc<PeerCertificate>>,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
    /// Names for the certificate.
    pub sans: Vec<String>,
}

/// A request to recover, as it came.
#[derive(Clone, Debug)]
pub struct RecoverRequest {
    /// Where it came from.
    pub from: IpAddr,
    /// Whether another node passed it on.
    pub forwarded: bool,
    /// Should be an expired certificate of this cluster, DER, and its intermediates.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
    /// Should be the expired certificate's key's, over [`recovery_message`].
    pub signature: Vec<u8>,
    /// Names for the certificate.
    pub sans: Vec<String>,
}

impl Enrolment {
    /// Renews the certificate of the node that asks.
    ///
    /// # Errors
    ///
    /// Each is logged and counted here; the caller is told [`Refusal::to_fault`].
    pub async fn renew(self: &Arc<Self>, request: RenewRequest) -> Result<Enrolled, Refusal> {
        let from = request.from;
        let node = request.presented.as_ref().map(|certificate| certificate.spiffe.to_string());
        let result = self.issue_anew(from, move |this| this.renew_now(&request, UnixTime::now())).await;
        self.tell("renewed", from, &node.unwrap_or_default(), result)
    }

    /// Gives a node whose certificate has expired a new one.
    ///
    /// # Errors
    ///
    /// Each is logged and counted here; the caller is told [`Refusal::to_fault`].
    pub async fn recover(self: &Arc<Self>, request: RecoverRequest) -> Result<Enrolled, Refusal> {
        let from = request.from;
        // Unproven, and for the log only.
        let named = request.chain.first().and_then(|der| PeerCertificate::parse(der).ok());
        let node = named.map(|certificate| shown(&certificate.spiffe.to_string())).unwrap_or_default();
        let result = self.issue_anew(from, move |this| this.recover_now(&request, UnixTime::now())).await;
        self.tell("recovered", from, &node, result)
    }

    /// Each costs an attempt, also one that succeeds: nobody needs many, and each waits for the disk.
    async fn issue_anew(
        self: &Arc<Self>,
        from: IpAddr,
        work: impl FnOnce(&Self) -> Result<Vec<Vec<u8>>, Refusal> + Send + 'static,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        self.charge(from)?;
        let this = self.clone();
        blocking(move || work(&this)).await.map_err(|_| Refusal::Interrupted)?
    }

    fn tell(
        &self,
        word: &'static str,
        from: IpAddr,
        node: &str,
        result: Result<Vec<Vec<u8>>, Refusal>,
    ) -> Result<Enrolled, Refusal> {
        match result {
            Ok(chain) => {
                self.metrics.count(word);
                tracing::info!(peer.address = %from, member = node, result = word, "certificate issued anew");
                let trust = self.identity.current().trust();
                let roots = trust.roots().iter().map(|root| root.to_vec()).collect();
                Ok(Enrolled { chain, roots, ca_chain: Vec::new() })
            }
            Err(refusal) => {
                self.metrics.count(refusal.word());
                tracing::warn!(
                    peer.address = %from, member = node, reason = refusal.word(), error = %refusal,
                    "renewal or recovery refused"
                );
                Err(refusal)
            }
        }
    }

    pub(super) fn renew_now(&self, request: &RenewRequest, now: UnixTime) -> Result<Vec<Vec<u8>>, Refusal> {
        if request.forwarded {
            return Err(Refusal::Forwarded);
        }
        let presented = request.presented.as_ref().ok_or(TrustError::NoCertificate)?;
        if !presented.is_in_time(now) {
            return Err(Refusal::Lapsed(presented.spiffe.clone()));
        }
        let public_key = proven_key(&request.csr)?;
        self.reissue(presented, &public_key, &request.sans, now)
    }

    pub(super) fn recover_now(
        &self,
        request: &RecoverRequest,
        now: UnixTime,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        if request.forwarded {
            return Err(Refusal::Forwarded);
        }
        let public_key = proven_key(&request.csr)?;
        let trust = self.identity.current().trust();
        let message = recovery_message(trust.cluster_id(), &request.csr);
        let presented = match trust.verify_signed(&request.chain, &message, &request.signature, now) {
            // By this clock it is still valid; it proves no less for that.
            Ok(certificate) => certificate,
            Err(TrustError::Expired(certificate)) => *certificate,
            Err(
                error @ (TrustError::NoCertificate
                | TrustError::LongChain(_)
                | TrustError::Certificate(_)
                | TrustError::OtherCluster { .. }
                | TrustError::WrongRole { .. }
                | TrustError::OtherCa { .. }
                | TrustError::OtherCoordinator { .. }
                | TrustError::Banned(_)
                | TrustError::NotYetValid(_)
                | TrustError::Chain { .. }
                | TrustError::Signature(_)),
            ) => return Err(error.into()),
        };
        let window = self.policy.recover_window;
        if presented.not_after.as_secs().saturating_add(window.as_secs()) < now.as_secs() {
            let (spiffe, ended) = (presented.spiffe, presented.not_after.as_secs());
            return Err(Refusal::TooOld { spiffe, ended, window });
        }
        self.reissue(&presented, &public_key, &request.sans, now)
    }

    /// The certificate of the holder of `presented` again, for the key `public_key`, and what goes behind it.
    fn reissue(
        &self,
        presented: &PeerCertificate,
        public_key: &[u8],
        sans: &[String],
        now: UnixTime,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let identity = self.identity.current();
        if identity.spiffe().role != Role::Coordinator {
            let why = CaError::NotCa(identity.spiffe().to_string());
            return Err(Refusal::NotHere(self.not_here(&why).message));
        }
        let node = &presented.spiffe.name;
        if presented.spiffe.role != Role::Worker {
            return Err(Refusal::NoWorker(presented.spiffe.clone()));
        }
        self.may_issue(node)?;
        let ca = self.ca(&identity, now)?;
        let names = self.names(&identity, node, self.dialled_at(node));
        let mut store = self.store();
        self.check_newest(store.newest(node), presented, public_key)?;
        let request = LeafRequest {
            spiffe: presented.spiffe.clone(),
            // What is left out was told when the node joined.
            sans: names.choose(sans).0,
            grant: presented.grant.clone(),
            // Whoever of them is evicted takes this one along, wherever it was issued.
            vouchers: presented.vouchers.clone(),
            validity: Validity::lasting(now, self.policy.ttl),
        };
        let (certificate, said) = certify(&ca, &request, public_key)?;
        store.record_newest(node, Newest::of(&said), self.forget_before(now))?;
        Ok(std::iter::once(certificate).chain(ca.chain().iter().map(|der| der.to_vec())).collect())
    }

    /// Where the others dial a node.
    fn dialled_at(&self, node: &NodeId) -> Option<IpAddr> {
        self.view.borrow().members.get(node)?.address.map(|address| address.ip())
    }

    /// Whether `presented` is the newest certificate of its id that is known, here or through gossip. If not,
    /// its holder has been replaced, or its files are a copy. The key that asks may have the newest one: then
    /// an answer was lost.
    fn check_newest(
        &self,
        issued: Option<&Newest>,
        presented: &PeerCertificate,
        public_key: &[u8],
    ) -> Result<(), Refusal> {
        let node = &presented.spiffe.name;
        let published = {
            let view = self.view.borrow();
            let chain = view.members.get(node).map(|member| member.records.node.certificate_chain.clone());
            chain.and_then(|chain| PeerCertificate::parse(chain.first()?).ok())
        };
        let published = published.map(|certificate| Newest::of(&certificate));
        let keys = [hash(&presented.public_key), hash(public_key)];
        let newer = |newest: &&Newest| {
            newest.not_before > presented.not_before.as_secs() && !keys.contains(&newest.key_sha256)
        };
        match issued.into_iter().chain(&published).find(newer) {
            Some(_) => Err(Refusal::Superseded(node.clone())),
            None => Ok(()),
        }
    }
}
