//! Evidence and policy: who calls, and whether they may.
//!
//! Evidence is the certificate of the connection. Where a node forwards a call for somebody else, the
//! forwarding node asserts that caller in `p2p-principal`; the assertion is honoured for the services of
//! users only, never for `p2p.v1`, because a stolen node could assert anybody.

use crate::{
    error::{Fault, Reason},
    identity::PeerCertificate,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use p2p_core::{NodeId, Principal, SpiffeId};
use std::{net::IpAddr, sync::Arc};

/// Set on calls between nodes: this call has made its one hop and must be served here.
pub const HOP: HeaderName = HeaderName::from_static("p2p-hop");
/// Whom the forwarding node says it calls for: a SPIFFE id. Reaches services; stripped from everyone but nodes.
pub const PRINCIPAL: HeaderName = HeaderName::from_static("p2p-principal");
/// The node where the call entered the cluster. Reaches services; stripped from everyone but nodes.
pub const ENTRY_NODE: HeaderName = HeaderName::from_static("p2p-entry-node");
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
}

impl Connection {
    /// A connection from `address` whose certificate names `principal`.
    pub fn new(address: IpAddr, principal: Principal) -> Self {
        let header = match &principal {
            Principal::Anonymous => None,
            Principal::Certificate(id) => HeaderValue::from_str(&id.to_string()).ok(),
        };
        Self { address, principal, certificate: None, header }
    }

    /// A connection from `address` that was opened with `certificate`, which is verified.
    pub fn with_certificate(address: IpAddr, certificate: PeerCertificate) -> Self {
        let principal = Principal::Certificate(certificate.spiffe.clone());
        Self { certificate: Some(Arc::new(certificate)), ..Self::new(address, principal) }
    }
}

/// Who makes one request; every handler finds it in the request's extensions as `Arc<Caller>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whom the connection's certificate names.
    pub connection: Arc<Connection>,
    /// Who calls: the connection's principal, or whom a forwarding node asserts.
    pub principal: Principal,
    /// The node that forwarded the call, if one did.
    pub forwarded_by: Option<NodeId>,
    header: Option<HeaderValue>,
}

impl Caller {
    /// Tells the next node, or the service, who calls and where the call entered the cluster: at the node that
    /// forwarded it, as its certificate proves, else `here`.
    pub fn identify(&self, headers: &mut HeaderMap, here: &HeaderValue) {
        match &self.header {
            Some(header) => headers.insert(PRINCIPAL, header.clone()),
            None => headers.remove(PRINCIPAL),
        };
        let forwarder = self.forwarded_by.as_ref().and_then(|node| HeaderValue::from_str(node.as_str()).ok());
        headers.insert(ENTRY_NODE, forwarder.unwrap_or_else(|| here.clone()));
    }
}

/// Who may call a method or endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Whoever proved to belong to the cluster: nodes and admins. Services of users.
    Authenticated,
    /// Nodes and admins, each with their own evidence: facts about the cluster.
    Member,
    /// Nodes only: gossip.
    Node,
    /// Admins only, with their own evidence on this very connection: acts that change who may do what.
    Admin,
}

/// Makes out who calls and removes the headers that only nodes may set.
pub fn authenticate(connection: &Arc<Connection>, headers: &mut HeaderMap) -> Result<Caller, Fault> {
    let principal = connection.principal.clone();
    let forwarder = principal.node().filter(|_| headers.contains_key(HOP)).cloned();
    if forwarder.is_none() {
        for name in [HOP, PRINCIPAL, ENTRY_NODE] {
            headers.remove(name);
        }
        let header = connection.header.clone();
        return Ok(Caller { connection: connection.clone(), principal, forwarded_by: None, header });
    }
    let header = headers.get(PRINCIPAL).cloned();
    let asserted = match &header {
        None => Principal::Anonymous,
        Some(value) => Principal::Certificate(asserted_id(value, &connection.principal)?),
    };
    Ok(Caller { connection: connection.clone(), principal: asserted, forwarded_by: forwarder, header })
}

/// A node may assert members of its own cluster only.
fn asserted_id(value: &HeaderValue, forwarder: &Principal) -> Result<SpiffeId, Fault> {
    let id: Option<SpiffeId> = value.to_str().ok().and_then(|text| text.parse().ok());
    let ours = |id: &SpiffeId| matches!(forwarder, Principal::Certificate(own) if own.cluster == id.cluster);
    id.filter(ours).ok_or_else(|| {
        Fault::new(Reason::InvalidArgument, "p2p-principal is not a SPIFFE id of this cluster")
    })
}

/// Whether `caller` may use `what`, open to `access`.
pub fn authorize(caller: &Caller, access: Access, what: &str) -> Result<(), Fault> {
    // An assertion counts for services of users only; all else looks at the connection's own evidence.
    let principal = match access {
        Access::Public => return Ok(()),
        Access::Authenticated => &caller.principal,
        Access::Member | Access::Node | Access::Admin => &caller.connection.principal,
    };
    let allowed = match (access, principal) {
        (_, Principal::Anonymous) => {
            return Err(Fault::new(
                Reason::Unauthenticated,
                format!("{what} needs a client certificate of this cluster; none was presented"),
            ));
        }
        (Access::Public, _) => true,
        (Access::Authenticated | Access::Member, Principal::Certificate(id)) => {
            id.role.is_node() || principal.is_admin()
        }
        (Access::Node, Principal::Certificate(id)) => id.role.is_node(),
        (Access::Admin, Principal::Certificate(_)) => principal.is_admin(),
    };
    if allowed {
        return Ok(());
    }
    let needed = match access {
        Access::Node => "a node's certificate",
        Access::Admin => "an admin's certificate, shown to the node that acts",
        Access::Public | Access::Authenticated | Access::Member => "a node's or an admin's certificate",
    };
    Err(Fault::new(Reason::Denied, format!("{principal} may not use {what}; it takes {needed}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: Option<&str>) -> Arc<Connection> {
        let principal =
            id.map_or(Principal::Anonymous, |id| Principal::Certificate(id.parse().expect("an id")));
        Arc::new(Connection::new(IpAddr::from([127, 0, 0, 1]), principal))
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    const ADMIN: &str = "spiffe://c/admin/alice";
    const WORKER: &str = "spiffe://c/worker/w";

    #[test]
    fn only_nodes_may_speak_for_others_and_only_for_services_of_users() {
        let forged = [(HOP, "1"), (PRINCIPAL, ADMIN), (ENTRY_NODE, "w")];
        for id in [None, Some(ADMIN)] {
            let mut sent = headers(&forged);
            let caller = authenticate(&connection(id), &mut sent).expect("known");
            assert_eq!(caller.principal, connection(id).principal, "the assertion is not believed");
            assert!(sent.is_empty(), "the headers do not reach services");
        }
        let caller = authenticate(&connection(Some(WORKER)), &mut headers(&forged)).expect("known");
        assert_eq!(caller.principal.to_string(), ADMIN);
        assert!(authorize(&caller, Access::Authenticated, "demo.Greeter/Hi").is_ok());
        assert_eq!(caller.forwarded_by.as_ref().map(NodeId::as_str), Some("w"));
    }

    #[test]
    fn a_service_hears_who_calls_and_which_node_proved_to_have_forwarded_it() {
        let here = HeaderValue::from_static("here");
        let told = |id: &str, sent: &[(HeaderName, &'static str)]| {
            let caller = authenticate(&connection(Some(id)), &mut headers(sent)).expect("known");
            // Also for a call that this node makes for the caller, which starts without headers.
            let mut inner = HeaderMap::new();
            caller.identify(&mut inner, &here);
            (inner[&PRINCIPAL].clone(), inner[&ENTRY_NODE].clone())
        };
        assert_eq!(told(ADMIN, &[]), (HeaderValue::from_static(ADMIN), here.clone()));
        let forged = [(HOP, "1"), (PRINCIPAL, ADMIN), (ENTRY_NODE, "somebody-else")];
        assert_eq!(told(WORKER, &forged), (HeaderValue::from_static(ADMIN), HeaderValue::from_static("w")));
    }

    #[test]
    fn a_node_asserts_members_of_its_own_cluster_only() {
        let sent = [(HOP, "1"), (PRINCIPAL, "spiffe://elsewhere/admin/alice")];
        let fault = authenticate(&connection(Some(WORKER)), &mut headers(&sent)).expect_err("refused");
        assert_eq!(fault.reason, Reason::InvalidArgument);
    }

    #[test]
    fn a_node_that_forwards_an_anonymous_call_does_not_lend_its_own_name() {
        let caller = authenticate(&connection(Some(WORKER)), &mut headers(&[(HOP, "1")])).expect("known");
        let fault = authorize(&caller, Access::Authenticated, "demo.Greeter/Hi").expect_err("refused");
        assert_eq!(fault.reason, Reason::Unauthenticated);
    }

    #[test]
    fn an_admin_whom_a_node_asserts_may_not_act_as_one() {
        let mut sent = headers(&[(HOP, "1"), (PRINCIPAL, ADMIN)]);
        let caller = authenticate(&connection(Some(WORKER)), &mut sent).expect("known");
        assert!(caller.principal.is_admin());
        let fault = authorize(&caller, Access::Admin, "x").expect_err("refused");
        assert_eq!(fault.reason, Reason::Denied);
        assert!(fault.message.contains("an admin's certificate, shown to the node that acts"), "{fault}");
    }

    #[test]
    fn each_access_class_lets_in_who_it_names() {
        let caller = |id| authenticate(&connection(id), &mut HeaderMap::new()).expect("known");
        for (access, anonymous, admin, node) in [
            (Access::Public, true, true, true),
            (Access::Authenticated, false, true, true),
            (Access::Member, false, true, true),
            (Access::Node, false, false, true),
            (Access::Admin, false, true, false),
        ] {
            assert_eq!(authorize(&caller(None), access, "x").is_ok(), anonymous, "{access:?}");
            assert_eq!(authorize(&caller(Some(ADMIN)), access, "x").is_ok(), admin, "{access:?}");
            assert_eq!(authorize(&caller(Some(WORKER)), access, "x").is_ok(), node, "{access:?}");
            let signer = caller(Some("spiffe://c/token-signer/w"));
            assert_eq!(authorize(&signer, access, "x").is_ok(), access == Access::Public, "{access:?}");
        }
    }
}
