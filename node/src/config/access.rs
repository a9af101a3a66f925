//! The rules of `access:`: who may call which methods, before the built-in table.
//!
//! ```yaml
//! access:
//!   - {methods: ["p2p.v1.ClusterService/ListNodes"], allow: [anonymous]}
//!   - {methods: ["shop.Orders/*"], allow: [admin, "spiffe://shop/worker/*", ci-bot]}
//! ```

use super::setting::{Setting, Wrong, list, show_fields, show_list, text};
use p2p_core::{
    ClusterId, NodeId, Role, Scope, SpiffeId, Subject,
    scope::{InvalidScope, MethodGlob},
};
use serde_yaml::Value;
use std::{fmt, str::FromStr};

/// Most rules of one node.
pub const MAX_RULES: usize = 64;
/// Most callers that one rule lists.
pub const MAX_ALLOWED: usize = 64;

/// What rules may open to anybody. All other methods of the system change the cluster, or are how its nodes
/// trust each other: a rule can only narrow the admins that may use them.
const OPEN: [&str; 11] = [
    "*",
    "grpc.health.v1.Health/*",
    "grpc.reflection.v1.ServerReflection/*",
    "grpc.reflection.v1alpha.ServerReflection/*",
    "p2p.v1.ClusterService/GetStatus",
    "p2p.v1.ClusterService/ListNodes",
    "p2p.v1.RegistryService/GetDescriptors",
    "p2p.v1.RegistryService/ListMethods",
    "p2p.v1.SystemService/Echo",
    "p2p.v1.SystemService/GetInfo",
    "p2p.v1.SystemService/GetMetrics",
];
/// What rules may open to evidence, but never to anybody.
const EVIDENCED: [&str; 3] =
    ["p2p.v1.RegistryService/ListServices", "p2p.v1.RpcService/Broadcast", "p2p.v1.RpcService/Call"];
/// What no rule may touch: without it a node is no member, or cannot become one.
const UNTOUCHED: [&str; 2] = ["p2p.v1.GossipService/*", "p2p.v1.EnrollmentService/Enroll"];
/// What shows or changes this node only, and users of this host may be let do.
pub const LOCAL_ACTS: [&str; 6] = [
    "p2p.v1.RegistryService/DeregisterService",
    "p2p.v1.RegistryService/RegisterService",
    "p2p.v1.RegistryService/SetServiceState",
    "p2p.v1.SystemService/Examine",
    "p2p.v1.SystemService/GetConfig",
    "p2p.v1.SystemService/Reload",
];
/// What admins may do, and tokens that name it.
const MINTERS: [&str; 1] = ["p2p.v1.AuthService/IssueToken"];

/// Holders of certificates: `spiffe://<cluster>/<role>/<name>`, or `*` for the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeGlob {
    cluster: ClusterId,
    role: Role,
    name: Option<NodeId>,
}

impl SpiffeGlob {
    /// Whether `id` is meant.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let named = self.name.as_ref().is_none_or(|name| *name == id.name);
        self.cluster == id.cluster && self.role == id.role && named
    }
}

impl fmt::Display for SpiffeGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map_or("*", NodeId::as_str);
        write!(f, "spiffe://{}/{}/{name}", self.cluster, self.role)
    }
}

/// Whom a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Anybody, also without evidence.
    Anonymous,
    /// Nodes, admins, and tokens within their scope.
    Authenticated,
    /// Admins.
    Admin,
    /// Nodes.
    Node,
    /// Any token, within its scope.
    Token,
    /// Certain certificates.
    Certificate(SpiffeGlob),
    /// Tokens of one subject, within their scope.
    Subject(Subject),
    /// A user of this host, over the local socket.
    User(u32),
}

/// Why a text means no callers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAllow {
    /// A SPIFFE id of another form.
    #[error("write a SPIFFE id or, for all of a role, spiffe://CLUSTER/ROLE/*")]
    Spiffe,
    /// A user id that is none.
    #[error("write uid:N, with the number of a user of this host")]
    User,
    /// Neither a word nor a subject.
    #[error(transparent)]
    Subject(#[from] p2p_core::principal::InvalidSubject),
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::Admin => f.write_str("admin"),
            Self::Node => f.write_str("node"),
            Self::Token => f.write_str("token"),
            Self::Certificate(glob) => glob.fmt(f),
            Self::Subject(subject) => subject.fmt(f),
            Self::User(uid) => write!(f, "uid:{uid}"),
        }
    }
}

impl FromStr for Allow {
    type Err = InvalidAllow;
    fn from_str(text: &str) -> Result<Self, InvalidAllow> {
        Ok(match text {
            "anonymous" => Self::Anonymous,
            "authenticated" => Self::Authenticated,
            "admin" => Self::Admin,
            "node" => Self::Node,
            "token" => Self::Token,
            id if id.starts_with("spiffe:") => Self::Certificate(spiffe_glob(id)?),
            user if user.starts_with("uid:") => {
                Self::User(user[4..].parse().map_err(|_| InvalidAllow::User)?)
            }
            subject => Self::Subject(subject.parse()?),
        })
    }
}

fn spiffe_glob(text: &str) -> Result<SpiffeGlob, InvalidAllow> {
    // Any name does to read the rest.
    let (whole, any) = match text.strip_suffix("/*") {
        Some(rest) => (format!("{rest}/x"), true),
        None => (text.to_owned(), false),
    };
    let id: SpiffeId = whole.parse().map_err(|_| InvalidAllow::Spiffe)?;
    Ok(SpiffeGlob { cluster: id.cluster, role: id.role, name: (!any).then_some(id.name) })
}

/// One rule: who may call the methods it means, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// The methods.
    pub methods: Scope,
    /// Who may call them.
    pub allow: Vec<Allow>,
}

impl AccessRule {
    /// Whether it lets in callers without evidence.
    pub fn widens(&self) -> bool {
        self.allow.contains(&Allow::Anonymous)
    }

    /// Why the rule must not be, if so.
    fn forbidden(&self) -> Option<String> {
        self.methods.globs().iter().find_map(|glob| {
            let admins = self.allow.iter().all(is_admin);
            let minters = self.allow.iter().all(|who| {
                is_admin(who) || matches!(who, Allow::Token | Allow::Subject(_))
            });
            let users = self.allow.iter().all(|who| is_admin(who) || matches!(who, Allow::User(_)));
            let anybody = self.allow.contains(&Allow::Anonymous);
            if means_any(&UNTOUCHED, glob) {
                return Some(format!("{glob} is how nodes form a cluster; no rule may change who uses it"));
            }
            let open = within(&OPEN, glob)
                || (within(&EVIDENCED, glob) && !anybody)
                || (within(&MINTERS, glob) && minters)
                || (within(&LOCAL_ACTS, glob) && users);
            if open || admins {
                return None;
            }
            Some(format!(
                "{glob} can be opened to admins only (admin, or spiffe://CLUSTER/admin/NAME): it changes who may do \
                 what, or includes methods that do; name the methods one by one"
            ))
        })
    }
}

fn is_admin(who: &Allow) -> bool {
    match who {
        Allow::Admin => true,
        Allow::Certificate(glob) => glob.role == Role::Admin,
        Allow::Anonymous
        | Allow::Authenticated
        | Allow::Node
        | Allow::Token
        | Allow::Subject(_)
        | Allow::User(_) => false,
    }
}

fn globs(texts: &[&str]) -> impl Iterator<Item = MethodGlob> {
    texts.iter().filter_map(|text| text.parse().ok())
}

fn within(texts: &[&str], glob: &MethodGlob) -> bool {
    globs(texts).any(|outer| outer.covers(glob))
}

fn means_any(texts: &[&str], glob: &MethodGlob) -> bool {
    globs(texts).any(|other| other.covers(glob) || glob.covers(&other))
}

/// The rules, first match first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules(Vec<AccessRule>);

impl AccessRules {
    /// The first rule that means `path`, as in `shop.Orders/Get`.
    pub fn find(&self, path: &str) -> Option<&AccessRule> {
        self.0.iter().find(|rule| rule.methods.matches(path))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &AccessRule> {
        self.0.iter()
    }
}

impl fmt::Display for AccessRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules", self.0.len())
    }
}

impl Setting for Allow {
    const EXPECTED: &'static str =
        "anonymous, authenticated, admin, node, token, a SPIFFE id, the subject of a token, or uid:N";
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value)?.parse().map_err(|why| Wrong::because(value, why))
    }
    fn show(&self) -> Value {
        Value::from(self.to_string())
    }
}

impl Setting for AccessRule {
    const EXPECTED: &'static str = "a mapping such as {methods: [shop.*], allow: [admin]}";
    fn read(value: &Value) -> Result<Self, Wrong> {
        let mapping = value.as_mapping().ok_or_else(|| Wrong::kind(value))?;
        let field =
            |name: &str| mapping.get(name).ok_or_else(|| Wrong::because(value, format!("{name} is missing")));
        if mapping.len() != 2 {
            field("methods").and(field("allow"))?;
            return Err(Wrong::because(value, "a rule has methods and allow, and nothing else"));
        }
        let (methods, allow) = (field("methods")?, field("allow")?);
        let texts = methods.as_sequence().ok_or_else(|| Wrong::kind(methods))?;
        let texts: Vec<&str> = texts.iter().map(text).collect::<Result<_, _>>()?;
        let scope = Scope::parse(&texts).map_err(|why: InvalidScope| Wrong::because(methods, why))?;
        let allow: Vec<Allow> = list(allow, MAX_ALLOWED)?;
        if allow.is_empty() {
            return Err(Wrong::because(
                value,
                "allow lists at least one caller; to close a method, list admin",
            ));
        }
        let rule = Self { methods: scope, allow };
        match rule.forbidden() {
            Some(why) => Err(Wrong::because(value, why)),
            None => Ok(rule),
        }
    }
    fn show(&self) -> Value {
        show_fields([("methods", show_scope(&self.methods)), ("allow", show_list(&self.allow))])
    }
}

impl Setting for AccessRules {
    const EXPECTED: &'static str = "a list of rules such as [{methods: [shop.*], allow: [admin]}]";
    fn read(value: &Value) -> Result<Self, Wrong> {
        list(value, MAX_RULES).map(Self)
    }
    fn show(&self) -> Value {
        show_list(&self.0)
    }
}

/// The globs of a scope, as a list.
pub(super) fn show_scope(scope: &Scope) -> Value {
    Value::Sequence(scope.globs().iter().map(|glob| Value::from(glob.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(rule: &str) -> Result<Config, String> {
        Config::from_yaml(&format!("node_id: a\naccess:\n  - {rule}\n"), "test")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn rules_open_facts_and_narrow_services() {
        let config = read("{methods: [p2p.v1.ClusterService/ListNodes], allow: [anonymous]}").expect("fine");
        let rule = config.access.find("p2p.v1.ClusterService/ListNodes").expect("a rule");
        assert!(rule.widens());
        for fine in [
            "{methods: [shop.*, '*'], allow: ['spiffe://shop/worker/*', ci-bot, token, node]}",
            "{methods: [p2p.v1.EnrollmentService/CreateJoinToken], allow: ['spiffe://shop/admin/alice']}",
            "{methods: [p2p.v1.AuthService/IssueToken], allow: [admin, ci-bot]}",
            "{methods: [p2p.v1.RpcService/Call], allow: [token]}",
            "{methods: [p2p.v1.RpcService/Call, p2p.v1.ClusterService/GetStatus], allow: ['uid:1000']}",
            "{methods: [p2p.v1.RegistryService/RegisterService], allow: [admin, 'uid:1000']}",
        ] {
            assert!(read(fine).is_ok(), "{fine}: {:?}", read(fine).err());
        }
    }

    #[test]
    fn what_holds_the_cluster_together_is_never_opened() {
        for method in [
            "p2p.v1.EnrollmentService/CreateJoinToken",
            "p2p.v1.EnrollmentService/*",
            "p2p.v1.ClusterService/*",
            "p2p.v1.ClusterService/Evict",
            "p2p.v1.AuthService/RevokeToken",
            "p2p.v1.AuthService/*",
            "p2p.v1.GossipService/*",
            "p2p.v1.GossipService/Exchange",
        ] {
            for who in
                ["anonymous", "authenticated", "node", "token", "ci-bot", "'spiffe://c/worker/*'", "'uid:0'"]
            {
                let error = read(&format!("{{methods: [{method}], allow: [{who}]}}")).expect_err(method);
                assert!(
                    error.starts_with("test:3: access") || error.starts_with("test:2: access"),
                    "{error}"
                );
            }
        }
        for who in ["anonymous", "authenticated", "node"] {
            let rule = format!("{{methods: [p2p.v1.AuthService/IssueToken], allow: [{who}]}}");
            assert!(read(&rule).expect_err("refused").contains("admins only"));
        }
        assert!(read("{methods: [p2p.v1.RpcService/Call], allow: [anonymous]}").is_err());
    }

    #[test]
    fn a_rule_that_is_none_says_what_is_wrong() {
        for (rule, why) in [
            ("{methods: [shop.*]}", "allow is missing"),
            ("{allow: [admin]}", "methods is missing"),
            ("{methods: [shop.*], allow: [admin], deny: [x]}", "nothing else"),
            ("{methods: [shop], allow: [admin]}", "is no method glob"),
            ("{methods: ['p2p.*'], allow: [admin]}", "named one by one"),
            ("{methods: [], allow: [admin]}", "at least one method"),
            ("{methods: [shop.*], allow: []}", "at least one caller"),
            ("{methods: [shop.*], allow: ['spiffe://c/king/x']}", "SPIFFE id"),
            ("{methods: [shop.*], allow: ['a b']}", "visible ASCII"),
            ("shop", "expected a list of rules such as"),
        ] {
            let error = read(rule).expect_err(rule);
            assert!(error.contains(why), "{rule}: {error}");
        }
    }
}
