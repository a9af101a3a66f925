//! THE table of who may call what, and the rules of `access:` that come before it.
//!
//! | access | anonymous | node | admin | token |
//! |---|---|---|---|---|
//! | [`Access::Public`] | yes | yes | yes | yes |
//! | [`Access::Authenticated`]: services of users | | yes, asserted ones too | yes, asserted ones too | if its scope means the method |
//! | [`Access::Member`]: facts about the cluster | | yes | yes | if its scope names the method |
//! | [`Access::Minter`]: acts that can be passed on | | | yes | if its scope names the method |
//! | [`Access::Node`]: gossip | | yes | | |
//! | [`Access::Admin`]: acts that change who may do what | | | yes | |
//!
//! The user who operates this node (root, or the one it runs as) may also do what changes this node only, and no user of
//! this host, whomever it counts as, speaks for a node. An admin or node that a forwarding node merely asserts counts for services of users only. HTTP endpoints
//! have the access of the method that shows the same: `/cluster/nodes` that of `ClusterService/ListNodes`.

use super::evidence::{Caller, LocalUser};
use crate::{
    config::{AccessRules, Allow, access::LOCAL_ACTS},
    error::{Fault, Reason},
};
use p2p_core::{Principal, scope::MethodGlob};
use std::sync::LazyLock;

/// Who may call a method or endpoint, unless a rule says otherwise. The table above says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Whoever proved to belong to the cluster, and tokens whose scope means the method.
    Authenticated,
    /// Nodes and admins, each with their own evidence, and tokens whose scope names the method.
    Member,
    /// Admins with their own evidence, and tokens whose scope names the method.
    Minter,
    /// Nodes only.
    Node,
    /// Admins only, with their own evidence on this very connection.
    Admin,
}

impl Access {
    /// Every class.
    pub(super) const ALL: [Self; 6] =
        [Self::Public, Self::Authenticated, Self::Member, Self::Minter, Self::Node, Self::Admin];

    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Authenticated => "authenticated",
            Self::Member => "member",
            Self::Minter => "minter",
            Self::Node => "node",
            Self::Admin => "admin",
        }
    }

    /// What it takes, for those who have a certificate.
    fn takes(self) -> &'static str {
        match self {
            Self::Node => "a node's certificate",
            Self::Admin => "an admin's certificate, shown to the node that acts",
            Self::Minter => {
                "an admin's certificate, shown to the node that acts, or a token whose scope names it"
            }
            Self::Public | Self::Authenticated | Self::Member => "a node's or an admin's certificate",
        }
    }
}

/// Every method, first match first. What no row means is an admin's: a method of the system that somebody
/// forgot to list must not be open.
const TABLE: &[(&str, Access)] = &[
    // It tells the names of all services.
    ("grpc.health.v1.Health/List", Access::Member),
    ("grpc.health.v1.Health/*", Access::Public),
    ("grpc.reflection.v1.ServerReflection/*", Access::Member),
    ("grpc.reflection.v1alpha.ServerReflection/*", Access::Member),
    ("p2p.v1.AuthService/IssueToken", Access::Minter),
    ("p2p.v1.AuthService/ListRevocations", Access::Admin),
    ("p2p.v1.AuthService/RevokeToken", Access::Admin),
    ("p2p.v1.AuthService/VerifyToken", Access::Public),
    ("p2p.v1.ClusterService/Events", Access::Member),
    ("p2p.v1.ClusterService/Evict", Access::Admin),
    ("p2p.v1.ClusterService/GetStatus", Access::Member),
    ("p2p.v1.ClusterService/ListNodes", Access::Member),
    ("p2p.v1.ClusterService/Readmit", Access::Admin),
    ("p2p.v1.ClusterService/Why", Access::Member),
    ("p2p.v1.EnrollmentService/CreateJoinToken", Access::Admin),
    ("p2p.v1.EnrollmentService/Enroll", Access::Public),
    ("p2p.v1.EnrollmentService/ListJoinTokens", Access::Admin),
    ("p2p.v1.EnrollmentService/Recover", Access::Public),
    ("p2p.v1.EnrollmentService/ReissueCa", Access::Node),
    ("p2p.v1.EnrollmentService/Renew", Access::Node),
    ("p2p.v1.EnrollmentService/RevokeJoinToken", Access::Admin),
    ("p2p.v1.EnrollmentService/RotateCa", Access::Admin),
    ("p2p.v1.GossipService/*", Access::Node),
    ("p2p.v1.PeerService/*", Access::Node),
    ("p2p.v1.RegistryService/DeregisterService", Access::Admin),
    ("p2p.v1.RegistryService/GetDescriptors", Access::Member),
    ("p2p.v1.RegistryService/ListMethods", Access::Member),
    ("p2p.v1.RegistryService/ListServices", Access::Member),
    ("p2p.v1.RegistryService/RegisterService", Access::Admin),
    ("p2p.v1.RegistryService/SetServiceState", Access::Admin),
    ("p2p.v1.RpcService/Broadcast", Access::Member),
    ("p2p.v1.RpcService/Call", Access::Member),
    ("p2p.v1.SystemService/Echo", Access::Member),
    ("p2p.v1.SystemService/Examine", Access::Admin),
    ("p2p.v1.SystemService/GetConfig", Access::Admin),
    ("p2p.v1.SystemService/GetInfo", Access::Member),
    ("p2p.v1.SystemService/GetMetrics", Access::Member),
    ("p2p.v1.SystemService/Reload", Access::Admin),
    ("*", Access::Authenticated),
];

/// The access of the method `path`, as in `shop.Orders/Get`, by the table.
pub fn access_of(path: &str) -> Access {
    row_of(path).unwrap_or(Access::Admin)
}

fn row_of(path: &str) -> Option<Access> {
    static ROWS: LazyLock<Vec<(MethodGlob, Access)>> = LazyLock::new(|| {
        TABLE.iter().filter_map(|(glob, access)| Some((glob.parse().ok()?, *access))).collect()
    });
    ROWS.iter().find(|(glob, _)| glob.matches(path)).map(|(_, access)| *access)
}

/// Whether `caller` may use `path`: by the first rule that means it, else by `access`.
pub(super) fn authorize(
    rules: &AccessRules,
    caller: &Caller,
    access: Access,
    path: &str,
    what: &str,
) -> Result<(), Fault> {
    let reserved = path.starts_with("p2p.") || path.starts_with("grpc.");
    // An assertion counts for services of users only; all else looks at the evidence itself.
    let principal = if reserved { caller.proven() } else { &caller.principal };
    let in_scope = caller.token().is_some_and(|token| token.scope.matches(path));
    let user = caller.user();
    let (allowed, takes) = match rules.find(path) {
        Some(rule) => {
            let allowed = rule.allow.iter().any(|who| admits(who, principal, in_scope, user));
            (allowed, "what this node's `access` rules list for it")
        }
        None => {
            let here = user.is_some_and(|user| user.operator) && LOCAL_ACTS.contains(&path);
            let speaks_for_node = access == Access::Node && user.is_some();
            (here || (grants(access, principal, in_scope) && !speaks_for_node), access.takes())
        }
    };
    if allowed {
        return Ok(());
    }
    Err(match principal {
        Principal::Anonymous if let Some(user) = user => Fault::new(
            Reason::Denied,
            format!(
                "user {0} of this host may not use {what}; root may, or list uid:{0} in `access`",
                user.uid
            ),
        ),
        Principal::Anonymous => Fault::new(
            Reason::Unauthenticated,
            format!(
                "{what} needs a client certificate of this cluster or an access token; none was presented"
            ),
        ),
        Principal::Token(_) if !in_scope && !matches!(access, Access::Node | Access::Admin) => {
            Fault::new(Reason::Denied, format!("this token's scope does not include {path}"))
        }
        Principal::Token(_) | Principal::Certificate(_) => {
            let message = format!("{principal} may not use {what}; it takes {takes}");
            let mut fault = Fault::new(Reason::Denied, message);
            // What tells this refusal, which another principal would not get, from those of what was asked for.
            fault.metadata = Some(Box::new(("principal", principal.to_string())));
            fault
        }
    })
}

fn grants(access: Access, principal: &Principal, in_scope: bool) -> bool {
    match (access, principal) {
        (Access::Public, _) => true,
        (_, Principal::Anonymous) => false,
        (Access::Authenticated | Access::Member, Principal::Certificate(id)) => {
            id.role.is_node() || principal.is_admin()
        }
        (Access::Node, Principal::Certificate(id)) => id.role.is_node(),
        (Access::Minter | Access::Admin, Principal::Certificate(_)) => principal.is_admin(),
        (Access::Authenticated | Access::Member | Access::Minter, Principal::Token(_)) => in_scope,
        (Access::Node | Access::Admin, Principal::Token(_)) => false,
    }
}

/// Whether a rule's word means the principal. A token never reaches beyond its scope, whoever is let in.
pub(crate) fn admits(who: &Allow, principal: &Principal, in_scope: bool, user: Option<LocalUser>) -> bool {
    match (who, principal) {
        (Allow::Anonymous, _) => true,
        (Allow::User(uid), _) => user.is_some_and(|user| user.uid == *uid),
        (_, Principal::Anonymous) => false,
        (Allow::Authenticated, Principal::Certificate(id)) => id.role.is_node() || principal.is_admin(),
        (Allow::Admin, Principal::Certificate(_)) => principal.is_admin(),
        (Allow::Node, Principal::Certificate(id)) => id.role.is_node(),
        (Allow::Certificate(glob), Principal::Certificate(id)) => glob.matches(id),
        (Allow::Authenticated | Allow::Token, Principal::Token(_)) => in_scope,
        (Allow::Subject(subject), Principal::Token(holder)) => in_scope && *subject == holder.subject,
        (Allow::Token | Allow::Subject(_), Principal::Certificate(_))
        | (Allow::Admin | Allow::Node | Allow::Certificate(_), Principal::Token(_)) => false,
    }
}

#[cfg(test)]
pub(crate) fn is_listed(path: &str) -> bool {
    row_of(path).is_some()
}
