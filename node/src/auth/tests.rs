use super::*;
use crate::{
    config::Config,
    error::Reason,
    token::tests::{Coordinator, NOW},
};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use p2p_core::NodeId;
use std::net::IpAddr;

const ADMIN: &str = "spiffe://c/admin/alice";
const WORKER: &str = "spiffe://c/worker/w";
const GREET: &str = "demo.Greeter/Hi";

fn connection(id: Option<&str>) -> Arc<Connection> {
    let principal = id.map_or(Principal::Anonymous, |id| Principal::Certificate(id.parse().expect("an id")));
    Arc::new(Connection::new(IpAddr::from([127, 0, 0, 1]), principal))
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).expect("a value");
    pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

/// A node's gate with rules, and a coordinator whose tokens it takes.
struct Gate {
    coordinator: Coordinator,
    rules: AccessRules,
}

impl Gate {
    fn new() -> Self {
        Self { coordinator: Coordinator::new("c", "c1"), rules: AccessRules::default() }
    }

    fn with_rules(yaml: &str) -> Self {
        let config = Config::from_yaml(&format!("node_id: a\naccess: {yaml}\n"), "test").expect("valid");
        Self { rules: config.access, ..Self::new() }
    }

    fn enter(&self, id: Option<&str>, sent: &mut HeaderMap) -> Result<Caller, evidence::Failure> {
        evidence::authenticate(&connection(id), sent, &self.coordinator.verifier, NOW)
    }

    fn caller(&self, id: Option<&str>, sent: &[(HeaderName, &str)]) -> Caller {
        self.enter(id, &mut headers(sent)).expect("known")
    }

    /// A caller without certificate, with a token of that scope.
    fn bearer(&self, scope: &str) -> Caller {
        self.caller(None, &[(AUTHORIZATION, &self.header(scope))])
    }

    fn header(&self, scope: &str) -> String {
        format!("Bearer {}", self.coordinator.token("ci", scope))
    }

    fn may(&self, caller: &Caller, path: &str) -> Result<(), Fault> {
        policy::authorize(&self.rules, caller, access_of(path), path, path)
    }

    fn class(&self, caller: &Caller, access: Access) -> bool {
        policy::authorize(&self.rules, caller, access, "x.Y/Z", "x").is_ok()
    }
}

#[test]
fn only_nodes_may_speak_for_others_and_only_for_services_of_users() {
    let gate = Gate::new();
    let forged = [(HOP, "1"), (PRINCIPAL, ADMIN), (ENTRY_NODE, "w")];
    for id in [None, Some(ADMIN)] {
        let mut sent = headers(&forged);
        let caller = gate.enter(id, &mut sent).expect("known");
        assert_eq!(caller.principal, connection(id).principal, "the assertion is not believed");
        assert!(sent.is_empty(), "the headers do not reach services");
    }
    let caller = gate.caller(Some(WORKER), &forged);
    assert_eq!(caller.principal.to_string(), ADMIN);
    assert!(gate.may(&caller, GREET).is_ok());
    assert_eq!(caller.forwarded_by.as_ref().map(NodeId::as_str), Some("w"));
    // The node's own evidence counts for the system's services, not whom it asserts.
    assert!(gate.may(&caller, "p2p.v1.EnrollmentService/CreateJoinToken").is_err());
}

#[test]
fn a_service_hears_who_calls_and_which_node_proved_to_have_forwarded_it() {
    let gate = Gate::new();
    let here = HeaderValue::from_static("here");
    let token = gate.header("*");
    let told = |id: Option<&str>, sent: &[(HeaderName, &str)]| {
        let mut left = headers(sent);
        let caller = gate.enter(id, &mut left).expect("known");
        assert!(!left.contains_key(AUTHORIZATION), "a token is for nodes only");
        // Also for a call that this node makes for the caller, which starts without headers.
        let mut inner = HeaderMap::new();
        caller.identify(&mut inner, &here);
        (inner[&PRINCIPAL].clone(), inner[&ENTRY_NODE].clone())
    };
    assert_eq!(told(Some(ADMIN), &[]), (HeaderValue::from_static(ADMIN), here.clone()));
    let forged = [(HOP, "1"), (PRINCIPAL, ADMIN), (ENTRY_NODE, "somebody-else")];
    assert_eq!(told(Some(WORKER), &forged), (HeaderValue::from_static(ADMIN), HeaderValue::from_static("w")));
    // A token comes before the certificate, and before what a node asserts.
    let ci = HeaderValue::from_static("ci");
    assert_eq!(told(Some(ADMIN), &[(AUTHORIZATION, &token)]), (ci.clone(), here.clone()));
    let forwarded = [(HOP, "1"), (PRINCIPAL, ADMIN), (AUTHORIZATION, token.as_str())];
    assert_eq!(told(Some(WORKER), &forwarded), (ci, HeaderValue::from_static("w")));
}

#[test]
fn the_next_node_gets_the_token_itself_or_the_name_of_a_certificate() {
    let gate = Gate::new();
    let here = HeaderValue::from_static("here");
    let mut sent = HeaderMap::new();
    gate.bearer("*").pass_on(&mut sent, &here);
    assert!(!sent.contains_key(PRINCIPAL), "no claim where there is evidence");
    assert!(sent[AUTHORIZATION].is_sensitive() && sent.contains_key(HOP));
    let next = gate.enter(Some(WORKER), &mut sent).expect("it verifies again");
    assert_eq!(next.principal.to_string(), "ci");
    let mut sent = HeaderMap::new();
    gate.caller(Some(ADMIN), &[]).pass_on(&mut sent, &here);
    assert_eq!(
        (&sent[&PRINCIPAL], sent.contains_key(AUTHORIZATION)),
        (&HeaderValue::from_static(ADMIN), false)
    );
}

#[test]
fn a_node_asserts_members_of_its_own_cluster_only() {
    let gate = Gate::new();
    for id in ["spiffe://elsewhere/admin/alice", "ci", "spiffe://c/king/x"] {
        let mut sent = headers(&[(HOP, "1"), (PRINCIPAL, id)]);
        let failure = gate.enter(Some(WORKER), &mut sent).expect_err("refused");
        assert_eq!((failure.word(), failure.to_fault().reason), ("assertion", Reason::InvalidArgument));
    }
}

#[test]
fn a_node_that_forwards_an_anonymous_call_does_not_lend_its_own_name() {
    let gate = Gate::new();
    let fault = gate.may(&gate.caller(Some(WORKER), &[(HOP, "1")]), GREET).expect_err("refused");
    assert_eq!(fault.reason, Reason::Unauthenticated);
}

#[test]
fn an_admin_whom_a_node_asserts_may_not_act_as_one() {
    let gate = Gate::new();
    let caller = gate.caller(Some(WORKER), &[(HOP, "1"), (PRINCIPAL, ADMIN)]);
    assert!(caller.principal.is_admin());
    let fault = gate.may(&caller, "p2p.v1.EnrollmentService/ListJoinTokens").expect_err("refused");
    assert_eq!(fault.reason, Reason::Denied);
    assert!(fault.message.contains("an admin's certificate, shown to the node that acts"), "{fault}");
    // It is who calls that is refused.
    assert!(fault.metadata.is_some_and(|fact| fact.0 == "principal"));
}

#[test]
fn a_token_that_does_not_hold_is_not_made_up_for_by_a_certificate() {
    let gate = Gate::new();
    let fine = gate.header("*");
    for (sent, word) in [
        (vec![(AUTHORIZATION, "Bearer nonsense")], "malformed"),
        (vec![(AUTHORIZATION, "bearer ")], "malformed"),
        (vec![(AUTHORIZATION, fine.as_str()), (AUTHORIZATION, fine.as_str())], "malformed"),
        (vec![(AUTHORIZATION, "Basic eA=="), (AUTHORIZATION, fine.as_str())], "malformed"),
    ] {
        let mut headers = HeaderMap::new();
        for (name, text) in sent {
            headers.append(name, HeaderValue::from_str(text).expect("a value"));
        }
        let failure = gate.enter(Some(ADMIN), &mut headers).expect_err("refused");
        assert_eq!(failure.word(), word);
        let fault = failure.to_fault();
        assert!(fault.reason == Reason::Unauthenticated && fault.refused_token);
    }
    // Another scheme is a service's own business.
    let mut basic = headers(&[(AUTHORIZATION, "Basic eA==")]);
    assert!(gate.enter(Some(ADMIN), &mut basic).is_ok());
    assert!(basic.contains_key(AUTHORIZATION));
}

#[test]
fn a_token_may_call_exactly_what_its_scope_says() {
    let gate = Gate::new();
    let shop = gate.bearer("shop.Orders/Get demo.* p2p.v1.SystemService/GetInfo");
    for path in ["shop.Orders/Get", GREET, "p2p.v1.SystemService/GetInfo"] {
        assert!(gate.may(&shop, path).is_ok(), "{path}");
    }
    for path in
        ["shop.Orders/Put", "shop.Orders/GetAll", "p2p.v1.SystemService/Echo", "p2p.v1.RpcService/Call"]
    {
        let fault = gate.may(&shop, path).expect_err(path);
        assert_eq!(fault.reason, Reason::Denied);
        assert_eq!(fault.message, format!("this token's scope does not include {path}"));
    }
    // Everything, which is everything of users.
    assert!(gate.may(&gate.bearer("*"), "shop.Orders/Put").is_ok());
    assert!(gate.may(&gate.bearer("*"), "p2p.v1.ClusterService/ListNodes").is_err());
}

#[test]
fn no_scope_makes_a_token_a_node_or_an_admin() {
    let gate = Gate::new();
    let scope = "p2p.v1.GossipService/* p2p.v1.EnrollmentService/* p2p.v1.AuthService/IssueToken";
    let caller = gate.bearer(scope);
    for path in ["p2p.v1.GossipService/Exchange", "p2p.v1.EnrollmentService/CreateJoinToken"] {
        assert_eq!(gate.may(&caller, path).expect_err(path).reason, Reason::Denied);
    }
    assert!(gate.may(&caller, "p2p.v1.AuthService/IssueToken").is_ok());
    assert!(gate.may(&gate.bearer("*"), "p2p.v1.AuthService/IssueToken").is_err());
}

#[test]
fn each_access_class_lets_in_who_it_names() {
    let gate = Gate::new();
    let certificate = |id| gate.caller(Some(id), &[]);
    for (access, anonymous, admin, node, token) in [
        (Access::Public, true, true, true, true),
        (Access::Authenticated, false, true, true, true),
        (Access::Member, false, true, true, true),
        (Access::Minter, false, true, false, true),
        (Access::Node, false, false, true, false),
        (Access::Admin, false, true, false, false),
    ] {
        assert_eq!(gate.class(&gate.caller(None, &[]), access), anonymous, "{access:?}");
        assert_eq!(gate.class(&certificate(ADMIN), access), admin, "{access:?}");
        assert_eq!(gate.class(&certificate(WORKER), access), node, "{access:?}");
        assert_eq!(gate.class(&gate.bearer("x.Y/Z"), access), token, "{access:?}");
        assert_eq!(gate.class(&gate.bearer("x.Y/Q"), access), access == Access::Public, "{access:?}");
        let signer = certificate("spiffe://c/token-signer/w");
        assert_eq!(gate.class(&signer, access), access == Access::Public, "{access:?}");
    }
}

#[test]
fn rules_come_before_the_table() {
    let gate = Gate::with_rules(
        "[{methods: [p2p.v1.ClusterService/ListNodes], allow: [anonymous]}, \
          {methods: [shop.Orders/*], allow: [ci, 'spiffe://c/worker/w', 'spiffe://c/admin/*']}, \
          {methods: [shop.*], allow: [token]}]",
    );
    let stranger = gate.caller(None, &[]);
    assert!(gate.may(&stranger, "p2p.v1.ClusterService/ListNodes").is_ok());
    assert!(gate.may(&stranger, "p2p.v1.ClusterService/GetStatus").is_err());
    for (caller, orders, stock) in [
        (gate.caller(Some(WORKER), &[]), true, false),
        (gate.caller(Some("spiffe://c/worker/other"), &[]), false, false),
        (gate.caller(Some(ADMIN), &[]), true, false),
        (gate.bearer("shop.*"), true, true),
        (gate.bearer("shop.Stock/*"), false, true),
        (stranger, false, false),
    ] {
        assert_eq!(gate.may(&caller, "shop.Orders/Get").is_ok(), orders, "{}", caller.principal);
        assert_eq!(gate.may(&caller, "shop.Stock/Get").is_ok(), stock, "{}", caller.principal);
    }
    let fault = gate.may(&gate.caller(Some("spiffe://c/worker/other"), &[]), "shop.Orders/Get");
    assert!(fault.expect_err("refused").message.contains("`access` rules"));
}

#[test]
fn what_nobody_listed_is_an_admins() {
    assert_eq!(access_of("p2p.v1.ClusterService/Forgotten"), Access::Admin);
    assert_eq!(access_of(GREET), Access::Authenticated);
}

#[test]
fn users_of_this_host_are_known_by_their_number() {
    let list = "p2p.v1.ClusterService/ListNodes";
    let gate = Gate::with_rules("[{methods: [p2p.v1.ClusterService/ListNodes], allow: ['uid:1000', admin]}]");
    let local = |id: Option<&str>, uid: u32, operator: bool| {
        let connection = Arc::new(connection(id).as_ref().clone().of_user(LocalUser { uid, operator }));
        evidence::authenticate(&connection, &mut HeaderMap::new(), &gate.coordinator.verifier, NOW)
            .expect("known")
    };
    let (listed, other) = (local(None, 1000, false), local(None, 1001, false));
    gate.may(&listed, list).expect("listed");
    let fault = gate.may(&other, list).expect_err("not listed");
    assert_eq!(fault.reason, Reason::Denied);
    assert!(fault.message.contains("uid:1001"), "{fault}");
    assert!(gate.may(&listed, GREET).is_err(), "no other rule lists it");
    assert!(gate.may(&gate.caller(None, &[]), list).is_err(), "whoever comes over the port is no user");

    // Who operates a worker may change that node, and is not heard as the node itself.
    let operator = local(Some(WORKER), 0, true);
    gate.may(&operator, GREET).expect("as the node");
    gate.may(&operator, "p2p.v1.RegistryService/RegisterService").expect("its own node");
    for beyond in
        ["p2p.v1.ClusterService/Evict", "p2p.v1.GossipService/Exchange", "p2p.v1.EnrollmentService/Renew"]
    {
        assert_eq!(gate.may(&operator, beyond).expect_err(beyond).reason, Reason::Denied);
    }
    assert!(gate.may(&gate.caller(Some(WORKER), &[]), "p2p.v1.RegistryService/RegisterService").is_err());
}
