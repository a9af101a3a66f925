//! Who makes a request, as far as it is proven.

use super::metrics::ASSERTION;
use crate::{
    error::{Fault, Reason},
    identity::PeerCertificate,
    revocation::{LiveConnection, UsedToken},
    token::{AccessToken, TokenRefusal, Verifier},
};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use p2p_core::{NodeId, Principal, SpiffeId};
use rustls_pki_types::UnixTime;
use std::{net::IpAddr, sync::Arc};

/// Set on calls between nodes: this call has made its one hop and must be served here.
pub const HOP: HeaderName = HeaderName::from_static("p2p-hop");
/// Whom the forwarding node says it calls for: a SPIFFE id. Services find here who calls: a SPIFFE id, or the
/// subject of an access token. Stripped from everyone but nodes.
pub const PRINCIPAL: HeaderName = HeaderName::from_static("p2p-principal");
/// The node where the call entered the cluster. Reaches services; stripped from everyone but nodes.
pub const ENTRY_NODE: HeaderName = HeaderName::from_static("p2p-entry-node");
/// Which node's service answered. Answers without it are a node's own word: why a call did not reach its service.
pub const SERVED_BY: HeaderName = HeaderName::from_static("p2p-served-by");
/// Set by callers: only this node may serve the call.
pub const TARGET_NODE: HeaderName = HeaderName::from_static("p2p-target-node");

/// What a connection proved when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where it comes from.
    pub address: IpAddr,
    /// Whom its certificate names.
    pub principal: Principal,
    /// What the certificate says, where there is one.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// The principal as services read it.
    header: Option<HeaderValue>,
    /// Closes it when what it rests on is revoked.
    live: Option<LiveConnection>,
    /// Who opened it over the local socket, as the system says.
    pub user: Option<LocalUser>,
}

/// A user of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalUser {
    /// Its number.
    pub uid: u32,
    /// Whether it operates the node: root, or the user that the node runs as.
    pub operator: bool,
}

impl Connection {
    /// A connection from `address` whose certificate names `principal`.
    pub fn new(address: IpAddr, principal: Principal) -> Self {
        let header = match &principal {
            Principal::Anonymous => None,
            Principal::Certificate(_) | Principal::Token(_) => {
                HeaderValue::from_str(&principal.to_string()).ok()
            }
        };
        Self { address, principal, certificate: None, header, live: None, user: None }
    }

    /// A connection from `address` that was opened with `certificate`, which is verified.
    pub fn with_certificate(address: IpAddr, certificate: PeerCertificate) -> Self {
        let principal = Principal::Certificate(certificate.spiffe.clone());
        Self { certificate: Some(Arc::new(certificate)), ..Self::new(address, principal) }
    }

    /// The same, opened by a user of this host.
    pub fn of_user(self, user: LocalUser) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The node at the other end: not a user of this host who counts as its node.
    pub fn peer(&self) -> Option<&NodeId> {
        self.principal.node().filter(|_| self.user.is_none())
    }

    /// The same, to be closed when a token that is shown over it is revoked.
    pub fn closed_by(self, live: LiveConnection) -> Self {
        Self { live: Some(live), ..self }
    }

    /// Lets the connection rest on `token`, too. A node forwards many callers' tokens over one connection, which rests
    /// on none of them: the caller's own connection, where the call entered, is closed instead.
    fn rests_on(&self, token: &AccessToken) {
        if let Some(live) = self.live.as_ref().filter(|_| self.peer().is_none()) {
            live.note(&token.holder, || UsedToken {
                holder: token.holder.clone(),
                issued_at: token.issued_at,
                signer: token.signer.clone(),
            });
        }
    }
}

/// A token as it was shown, and what it proves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    token: Arc<AccessToken>,
    /// The value of `authorization`, marked as sensitive.
    header: HeaderValue,
}

/// Who makes one request; every handler finds it in the request's extensions as `Arc<Caller>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whom the connection's certificate names.
    pub connection: Arc<Connection>,
    /// Where the request comes from: the connection's address, or what a trusted proxy says.
    pub address: IpAddr,
    /// Who calls: the holder of the token, else the connection's principal, or whom a forwarding node asserts.
    pub principal: Principal,
    /// The node that forwarded the call, if one did.
    pub forwarded_by: Option<NodeId>,
    shown: Option<Shown>,
    header: Option<HeaderValue>,
}

impl Caller {
    /// `principal` as if it called over a connection of its own.
    #[cfg(test)]
    pub(crate) fn of(principal: Principal, address: IpAddr) -> Self {
        let connection = Arc::new(Connection::new(address, principal.clone()));
        Self { connection, address, principal, forwarded_by: None, shown: None, header: None }
    }

    /// The same, coming from `address`.
    pub(super) fn coming_from(self, address: IpAddr) -> Self {
        Self { address, ..self }
    }

    /// The token that the request showed.
    pub fn token(&self) -> Option<&Arc<AccessToken>> {
        self.shown.as_ref().map(|shown| &shown.token)
    }

    /// The user of this host who calls, unless it shows a token: evidence that is named is meant.
    pub fn user(&self) -> Option<LocalUser> {
        self.connection.user.filter(|_| self.shown.is_none())
    }

    /// Who calls, by evidence that this node has seen itself: the token, else the connection's certificate.
    pub fn proven(&self) -> &Principal {
        if self.shown.is_some() { &self.principal } else { &self.connection.principal }
    }

    /// Tells a service of this node who calls and where the call entered the cluster: at the node that
    /// forwarded it, as its certificate proves, else `here`. The token was taken out: it is for nodes only.
    pub fn identify(&self, headers: &mut HeaderMap, here: &HeaderValue) {
        match &self.header {
            Some(header) => headers.insert(PRINCIPAL, header.clone()),
            None => headers.remove(PRINCIPAL),
        };
        let forwarder = self.forwarded_by.as_ref().and_then(|node| HeaderValue::from_str(node.as_str()).ok());
        headers.insert(ENTRY_NODE, forwarder.unwrap_or_else(|| here.clone()));
    }

    /// Tells the next node who calls: by the token, which it verifies itself, else by name.
    pub fn pass_on(&self, headers: &mut HeaderMap, here: &HeaderValue) {
        self.identify(headers, here);
        headers.insert(HOP, HeaderValue::from_static("1"));
        if let Some(shown) = &self.shown {
            headers.remove(PRINCIPAL);
            headers.insert(AUTHORIZATION, shown.header.clone());
        }
    }
}

/// Why a request's evidence does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    #[error("p2p-principal is not a SPIFFE id of this cluster")]
    Assertion,
}

impl Failure {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Token(refusal) => refusal.word(),
            Self::Assertion => ASSERTION,
        }
    }

    pub(super) fn to_fault(&self) -> Fault {
        match self {
            Self::Assertion => Fault::new(Reason::InvalidArgument, self.to_string()),
            Self::Token(refusal) => {
                let mut fault = Fault::new(Reason::Unauthenticated, refusal.public());
                fault.refused_token = true;
                fault
            }
        }
    }
}

/// Makes out who calls. A token comes before the certificate, and before what a forwarding node asserts.
pub(super) fn authenticate(
    connection: &Arc<Connection>,
    headers: &mut HeaderMap,
    verifier: &Verifier,
    now: UnixTime,
) -> Result<Caller, Failure> {
    let own = &connection.principal;
    let forwarded_by = connection.peer().filter(|_| headers.contains_key(HOP)).cloned();
    let asserted = headers.get(PRINCIPAL).cloned().filter(|_| forwarded_by.is_some());
    for name in [HOP, PRINCIPAL, ENTRY_NODE] {
        headers.remove(name);
    }
    let shown = match take_bearer(headers)? {
        None => None,
        Some(header) => {
            let token = verifier.verify(bearer_text(&header), now)?;
            connection.rests_on(&token);
            // Once more: whoever revoked it in between did not find this connection.
            verifier.check(&token)?;
            Some(Shown { token, header })
        }
    };
    let (principal, header) = match (&shown, &forwarded_by, asserted) {
        (Some(shown), _, _) => (shown.token.principal(), Some(shown.token.header.clone())),
        (None, None, _) => (own.clone(), connection.header.clone()),
        (None, Some(_), None) => (Principal::Anonymous, None),
        (None, Some(_), Some(value)) => (Principal::Certificate(asserted_id(&value, own)?), Some(value)),
    };
    Ok(Caller {
        connection: connection.clone(),
        address: connection.address,
        principal,
        forwarded_by,
        shown,
        header,
    })
}

/// A node may assert members of its own cluster only.
fn asserted_id(value: &HeaderValue, forwarder: &Principal) -> Result<SpiffeId, Failure> {
    let id: Option<SpiffeId> = value.to_str().ok().and_then(|text| text.parse().ok());
    let ours = |id: &SpiffeId| matches!(forwarder, Principal::Certificate(own) if own.cluster == id.cluster);
    id.filter(ours).ok_or(Failure::Assertion)
}

const BEARER: &[u8] = b"bearer ";

fn is_bearer(value: &HeaderValue) -> bool {
    value.as_bytes().get(..BEARER.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER))
}

/// The token that is shown, if one is.
pub(super) fn shown(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(AUTHORIZATION).iter().find(|value| is_bearer(value)).map(bearer_text)
}

/// Takes the header with the token out. Other schemes are a service's own business and stay.
fn take_bearer(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, TokenRefusal> {
    let values = headers.get_all(AUTHORIZATION);
    if !values.iter().any(is_bearer) {
        return Ok(None);
    }
    if values.iter().count() > 1 {
        return Err(TokenRefusal::Malformed("there are several authorization headers"));
    }
    Ok(headers.remove(AUTHORIZATION).map(|mut header| {
        header.set_sensitive(true);
        header
    }))
}

/// The token in the header; what is not text is no token.
fn bearer_text(header: &HeaderValue) -> &str {
    header.to_str().ok().and_then(|text| text.get(BEARER.len()..)).unwrap_or_default().trim()
}
