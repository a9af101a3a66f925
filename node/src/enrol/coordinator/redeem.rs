//! Redeeming a join token: the request is proven, the node dialled back, the certificate issued and recorded.

use super::{Enrolment, authority, blocking, certify, shown};
use crate::{
    config::AdvertiseAddress,
    enrol::{
        refusal::Refusal,
        store::TokenStore,
        token::{Base64, Newest, Redeemable, StoredToken, Use, check_secret, hash},
    },
    identity::{Enrolled, LeafRequest, TokenId, TokenSecret, UnixTime, Validity, proven_key},
};
use p2p_core::{NodeId, Role, SpiffeId, gossip::MemberView, grant::Grant};
use p2p_proto::{
    Timestamp,
    v1::{JoinTokenState, MemberState},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Longest wait for a new node to be reached.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(3);

/// A request to enrol, as it came.
#[derive(Clone)]
pub struct Request {
    /// Where it came from.
    pub from: IpAddr,
    /// Whether another node passed it on.
    pub forwarded: bool,
    /// Should be a [`TokenId`].
    pub token_id: Vec<u8>,
    /// Should be a [`TokenSecret`].
    pub secret: Vec<u8>,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
    /// Should be a node id.
    pub node_id: String,
    /// Should be `ip:port`.
    pub advertise_address: String,
    /// Names for the certificate.
    pub sans: Vec<String>,
    /// PKCS #10, DER, for the CA of a coordinator; else empty.
    pub ca_csr: Vec<u8>,
}

/// What a request comes to once it is proven.
pub(super) struct Proven {
    token: TokenId,
    public_key: Vec<u8>,
    /// Of a coordinator's own CA.
    ca_key: Option<Vec<u8>>,
    node: NodeId,
    address: SocketAddr,
}

pub(super) enum Step {
    Again(Box<Use>),
    DialBack(Proven),
}

impl Enrolment {
    /// Redeems a token: the certificate and the roots of the cluster, recorded before they are returned.
    ///
    /// # Errors
    ///
    /// Each is logged and counted here; the caller is told [`Refusal::to_fault`].
    pub async fn enrol(self: &Arc<Self>, request: Request) -> Result<Enrolled, Refusal> {
        let (from, node) = (request.from, shown(&request.node_id));
        let token = token_id(&request).map(|id| id.to_string()).unwrap_or_default();
        let result = self.enrol_charged(request).await;
        match &result {
            Ok((_, word)) => {
                self.metrics.count(word);
                tracing::info!(peer.address = %from, member = node, token.id = token, result = word, "node enrolled");
            }
            Err(refusal) => {
                self.metrics.count(refusal.word());
                tracing::warn!(
                    peer.address = %from, member = node, token.id = token,
                    reason = refusal.word(), error = %refusal, "enrolment refused"
                );
            }
        }
        result.map(|(enrolled, _)| enrolled)
    }

    async fn enrol_charged(self: &Arc<Self>, request: Request) -> Result<(Enrolled, &'static str), Refusal> {
        let from = request.from;
        self.charge(from)?;
        let enrolled = self.enrol_proven(request).await?;
        self.attempts().give_back(from, Instant::now());
        Ok(enrolled)
    }

    async fn enrol_proven(self: &Arc<Self>, request: Request) -> Result<(Enrolled, &'static str), Refusal> {
        if request.forwarded {
            return Err(Refusal::Forwarded);
        }
        let (this, proving) = (self.clone(), request.clone());
        let step = blocking(move || this.prove(&proving, UnixTime::now()));
        let proven = match step.await.map_err(|_| Refusal::Interrupted)?? {
            Step::Again(before) => return Ok((self.answer(*before), "again")),
            Step::DialBack(proven) => proven,
        };
        self.dial_back(proven.address).await?;
        let this = self.clone();
        let issued = blocking(move || this.issue(&proven, &request.sans, UnixTime::now()));
        let issued = issued.await.map_err(|_| Refusal::Interrupted)??;
        Ok((self.answer(issued), "ok"))
    }

    fn answer(&self, given: Use) -> Enrolled {
        let trust = self.identity.current().trust();
        let below =
            |first: Base64| std::iter::once(first).chain(given.chain.clone()).map(|der| der.0).collect();
        Enrolled {
            chain: below(given.certificate),
            roots: trust.roots().iter().map(|root| root.to_vec()).collect(),
            ca_chain: given.ca_certificate.map(below).unwrap_or_default(),
        }
    }

    /// Everything that can be judged without dialling. The same work for everybody up to the secret.
    pub(super) fn prove(&self, request: &Request, now: UnixTime) -> Result<Step, Refusal> {
        let csr = proven_key(&request.csr);
        let secret = request.secret.as_slice().try_into().map(TokenSecret::new);
        let store = self.store();
        let found = token_id(request).as_ref().and_then(|id| store.find(id));
        check_secret(found, &secret.unwrap_or(TokenSecret::new([0; 32])))?;
        let token = found.ok_or(Refusal::Unknown)?;
        // The state first: who holds a token that is over is told no more than a stranger.
        match token.state(now) {
            JoinTokenState::Revoked => return Err(Refusal::Revoked),
            JoinTokenState::Expired => return Err(Refusal::Expired),
            JoinTokenState::Unspecified | JoinTokenState::Valid | JoinTokenState::Used => {}
        }
        let public_key = match csr {
            Ok(public_key) => public_key,
            Err(_) if token.uses_left() == 0 => return Err(Refusal::Used),
            Err(error) => return Err(error.into()),
        };
        let redeemable = token.redeem(&public_key, now)?;
        let node = node_for(token, &request.node_id)?;
        self.may_issue(&node)?;
        let ca_key = authority::ca_key(token.role, &request.ca_csr, &public_key)?;
        if let Redeemable::Again(before) = redeemable {
            authority::check_same(&before, ca_key.as_deref())?;
            return Ok(Step::Again(before));
        }
        self.check_free(&store, token, &node, &public_key, now)?;
        let address = advertised(&request.advertise_address)?;
        Ok(Step::DialBack(Proven { token: token.id, public_key, ca_key, node, address }))
    }

    /// Whether nobody else has the id, or the token hands it over. A coordinator's is never handed to a worker.
    fn check_free(
        &self,
        store: &TokenStore,
        token: &StoredToken,
        node: &NodeId,
        public_key: &[u8],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let taken = |holder: String| Err(Refusal::NodeIdTaken { node: node.clone(), holder });
        if *node == self.identity.current().spiffe().name {
            return taken("it is this coordinator's own".to_owned());
        }
        let view = self.view.borrow();
        let member = view.members.get(node);
        if token.role != Role::Coordinator && member.is_some_and(|member| member.role() == Role::Coordinator)
        {
            return taken("it is a coordinator's".to_owned());
        }
        if token.replace {
            return Ok(());
        }
        if let Some(member) = member.filter(|member| holds_id(member, now)) {
            let until = until(member.records.signer.expires_at);
            return taken(format!(
                "a member that is {} has a certificate until {until}",
                member.state.word()
            ));
        }
        let key = hash(public_key);
        let used = store.issued_to(node).map(|used| (&used.key_sha256, used.not_after));
        let newest = store.newest(node).map(|newest| (&newest.key_sha256, newest.not_after));
        let mut issued = used.chain(newest);
        match issued.find(|(holder, not_after)| *not_after >= now.as_secs() && **holder != key) {
            Some((_, not_after)) => taken(format!(
                "a node that joined with another key has a certificate until {}",
                until(i64::try_from(not_after).unwrap_or(i64::MAX))
            )),
            None => Ok(()),
        }
    }

    /// Whether the address that the new node wants to be dialled at takes connections.
    async fn dial_back(&self, address: SocketAddr) -> Result<(), Refusal> {
        let unreachable = |why: String| Refusal::Unreachable { address, why };
        let _permit = self.dial_backs.acquire().await.map_err(|_| Refusal::Interrupted)?;
        match tokio::time::timeout(DIAL_BACK_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_stream)) => Ok(()),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_elapsed) => Err(unreachable(format!("no answer within {} s", DIAL_BACK_TIMEOUT.as_secs()))),
        }
    }

    /// Issues and records. The token is looked at again: others may have used it up during the dial.
    fn issue(&self, proven: &Proven, sans: &[String], now: UnixTime) -> Result<Use, Refusal> {
        self.may_issue(&proven.node)?;
        let identity = self.identity.current();
        let names = self.names(&identity, &proven.node, Some(proven.address.ip()));
        let ca = self.ca(&identity, now)?;
        let mut store = self.store();
        let token = store.find(&proven.token).ok_or(Refusal::Unknown)?;
        if let Redeemable::Again(before) = token.redeem(&proven.public_key, now)? {
            authority::check_same(&before, proven.ca_key.as_deref())?;
            return Ok(*before);
        }
        self.check_free(&store, token, &proven.node, &proven.public_key, now)?;
        let grant = token.grant.as_ref().map(|globs| Grant::parse(globs)).transpose()?;
        let spiffe = SpiffeId::new(identity.cluster_id().clone(), token.role, proven.node.clone());
        let (sans, left_out) = names.choose(sans);
        if !left_out.is_empty() {
            tracing::warn!(member = %proven.node, names = ?left_out, "names left out of the certificate: not valid, or another node's");
        }
        let request = LeafRequest {
            spiffe,
            sans,
            grant,
            vouchers: Vec::new(),
            validity: Validity::lasting(now, self.policy.ttl),
        };
        let (certificate, said) = certify(&ca, &request, &proven.public_key)?;
        let own_ca = proven.ca_key.as_deref();
        let own_ca = own_ca.map(|key| ca.certify_coordinator(identity.cluster_id(), &proven.node, key, now));
        let own_ca = own_ca.transpose()?.map(|der| der.to_vec());
        let redemption = Use::new(proven.node.clone(), &proven.public_key, &certificate, said.not_after)
            .with_authority(ca.chain(), own_ca);
        let newest = Newest::of(&said);
        store.record(&proven.token, redemption.clone(), newest, self.forget_before(now))?;
        Ok(redemption)
    }
}

fn token_id(request: &Request) -> Option<TokenId> {
    request.token_id.as_slice().try_into().ok().map(TokenId::new)
}

/// The node id that the certificate will carry.
fn node_for(token: &StoredToken, asked: &str) -> Result<NodeId, Refusal> {
    let malformed = |error| Refusal::Malformed(format!("the node id {:?} is invalid: {error}", shown(asked)));
    let asked: NodeId = asked.parse().map_err(malformed)?;
    match &token.node_id {
        Some(bound) if *bound != asked => Err(Refusal::OtherNode { bound: bound.clone(), asked }),
        Some(_) | None => Ok(asked),
    }
}

fn advertised(text: &str) -> Result<SocketAddr, Refusal> {
    let malformed =
        |why: String| Refusal::Malformed(format!("the address {:?} cannot be dialled: {why}", shown(text)));
    let address: SocketAddr =
        text.parse().map_err(|_| malformed("it is not of the form ip:port".to_owned()))?;
    let checked: Result<AdvertiseAddress, _> = text.parse();
    checked.map(|_| address).map_err(|error| malformed(error.to_string()))
}

fn holds_id(member: &MemberView, now: UnixTime) -> bool {
    let serving = match member.state {
        MemberState::Alive | MemberState::Suspect => true,
        MemberState::Down | MemberState::Left | MemberState::Unspecified => false,
    };
    serving || u64::try_from(member.records.signer.expires_at).is_ok_and(|end| end >= now.as_secs())
}

fn until(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}
