//! The rules of `rate_limit_overrides:` and the networks of `trusted_proxies:`.
//!
//! ```yaml
//! rate_limit_overrides:
//!   - {clients: [ci-bot], requests: 600, burst: 50}
//!   - {methods: ["shop.Search/*"], clients: [anonymous], requests: 30, burst: 5}
//!   - {methods: ["shop.Report/Make"], requests: 60, burst: 5, shared: true}
//! ```

use super::{
    access::{Allow, show_scope},
    setting::{Setting, Wrong, list, show_fields, show_list, text},
};
use p2p_core::{Scope, scope::InvalidScope, suggest::nearest};
use serde_yaml::Value;
use std::{fmt, net::IpAddr, num::NonZeroU32, str::FromStr};

/// Most rules of one node.
pub const MAX_LIMIT_RULES: usize = 64;
/// Most clients that one rule lists.
const MAX_CLIENTS: usize = 64;
/// Most networks of proxies.
const MAX_PROXIES: usize = 64;

/// One rule: a limit of its own for certain methods and clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// The methods; `None` for all.
    pub methods: Option<Scope>,
    /// Whose calls; empty for everybody's.
    pub clients: Vec<Allow>,
    /// Requests a minute; 0 for no limit.
    pub requests: u32,
    /// How many at once before the rate counts.
    pub burst: NonZeroU32,
    /// Whether all whom the rule means share one budget, charged after each one's own.
    pub shared: bool,
}

impl fmt::Display for LimitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.methods {
            Some(methods) => methods.fmt(f),
            None => f.write_str("all methods"),
        }
    }
}

const FIELDS: [&str; 5] = ["methods", "clients", "requests", "burst", "shared"];

impl Setting for LimitRule {
    const EXPECTED: &'static str = "a mapping such as {methods: [shop.*], requests: 600, burst: 50}";
    fn read(value: &Value) -> Result<Self, Wrong> {
        let mapping = value.as_mapping().ok_or_else(|| Wrong::kind(value))?;
        for (name, _) in mapping {
            let name = text(name)?;
            if !FIELDS.contains(&name) {
                let meant = nearest(name, FIELDS).map(|name| format!("; did you mean {name}?"));
                return Err(Wrong::because(
                    value,
                    format!("{name} is no field{}", meant.unwrap_or_default()),
                ));
            }
        }
        let needed =
            |name: &str| mapping.get(name).ok_or_else(|| Wrong::because(value, format!("{name} is missing")));
        let methods = match mapping.get("methods") {
            None => None,
            Some(globs) => {
                let texts = globs.as_sequence().ok_or_else(|| Wrong::kind(globs))?;
                let texts: Vec<&str> = texts.iter().map(text).collect::<Result<_, _>>()?;
                Some(Scope::parse(&texts).map_err(|why: InvalidScope| Wrong::because(globs, why))?)
            }
        };
        let clients = match mapping.get("clients") {
            None => Vec::new(),
            Some(clients) => list(clients, MAX_CLIENTS)?,
        };
        let shared = match mapping.get("shared") {
            None => false,
            Some(shared) => bool::read(shared)?,
        };
        let requests = needed("requests")?;
        let requests = u32::read(requests)
            .map_err(|_| Wrong::because(requests, format!("requests is {}", u32::EXPECTED)))?;
        let burst = match mapping.get("burst") {
            None if requests == 0 => NonZeroU32::MIN,
            None => return Err(Wrong::because(value, "burst is missing")),
            Some(burst) => NonZeroU32::read(burst)
                .map_err(|_| Wrong::because(burst, format!("burst is {}", NonZeroU32::EXPECTED)))?,
        };
        if shared && requests == 0 {
            return Err(Wrong::because(value, "a shared limit of 0 would limit nothing"));
        }
        if clients.contains(&Allow::Node) {
            let why = "nodes are never limited: what they forward was charged where it entered";
            return Err(Wrong::because(value, why));
        }
        Ok(Self { methods, clients, requests, burst, shared })
    }
    fn show(&self) -> Value {
        show_fields([
            ("methods", self.methods.as_ref().map_or(Value::Null, show_scope)),
            ("clients", show_list(&self.clients)),
            ("requests", self.requests.show()),
            ("burst", self.burst.show()),
            ("shared", self.shared.show()),
        ])
    }
}

/// The rules, first match first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRules(pub Vec<LimitRule>);

impl fmt::Display for LimitRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules", self.0.len())
    }
}

impl Setting for LimitRules {
    const EXPECTED: &'static str = "a list of rules such as [{methods: [shop.*], requests: 600, burst: 50}]";
    fn read(value: &Value) -> Result<Self, Wrong> {
        list(value, MAX_LIMIT_RULES).map(Self)
    }
    fn show(&self) -> Value {
        show_list(&self.0)
    }
}

/// An address, or all addresses that begin with the same bits: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Not an address.
    #[error("it is neither an IP address nor a network such as 10.0.0.0/8")]
    Address,
    /// More bits than the address has.
    #[error("the number behind / is 0 to 32, for IPv6 0 to 128")]
    Prefix,
}

impl Network {
    /// Whether `address` belongs to it. An IPv4 address in IPv6 form is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differs >= self.prefix
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().map_err(|_| InvalidNetwork::Prefix)?,
        };
        if prefix > bits { Err(InvalidNetwork::Prefix) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Setting for Network {
    const EXPECTED: &'static str = "an address or network such as 10.0.0.5 or 10.0.0.0/8";
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value)?.parse().map_err(|why| Wrong::because(value, why))
    }
    fn show(&self) -> Value {
        Value::from(self.to_string())
    }
}

impl Setting for Vec<Network> {
    const EXPECTED: &'static str = "a list such as [\"10.0.0.5\"] or [\"10.0.0.0/8\"]";
    fn read(value: &Value) -> Result<Self, Wrong> {
        list(value, MAX_PROXIES)
    }
    fn show(&self) -> Value {
        show_list(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(rule: &str) -> Result<LimitRule, String> {
        Config::from_yaml(&format!("node_id: a\nrate_limit_overrides:\n  - {rule}\n"), "test")
            .map(|config| config.rate_limit_overrides.0[0].clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_names_methods_clients_or_both() {
        let rule = read("{clients: [ci-bot], requests: 600, burst: 50}").expect("fine");
        assert_eq!((rule.methods, rule.requests, rule.shared), (None, 600, false));
        let rule = read("{methods: [shop.*], requests: 60, burst: 5, shared: true}").expect("fine");
        assert!(rule.shared && rule.clients.is_empty());
        assert!(read("{clients: [admin], requests: 0}").is_ok(), "no limit needs no burst");
    }

    #[test]
    fn a_rule_that_is_none_says_what_is_wrong() {
        for (rule, why) in [
            ("{methods: [shop.*]}", "requests is missing"),
            ("{methods: [shop.*], requests: 5}", "burst is missing"),
            ("{methods: [shop.*], requests: 5, burst: 0}", "from 1 to"),
            ("{methods: ['shop orders'], requests: 5, burst: 1}", "shop orders"),
            ("{metods: [shop.*], requests: 5, burst: 1}", "did you mean methods?"),
            ("{requests: 0, shared: true}", "would limit nothing"),
            ("{clients: [node], requests: 5, burst: 1}", "nodes are never limited"),
        ] {
            let error = read(rule).expect_err(rule);
            assert!(error.contains(why), "{rule}: {error}");
        }
    }

    #[test]
    fn a_network_is_an_address_or_all_that_begin_alike() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().expect("a network").contains(address.parse().expect("an address"))
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.5", "10.0.0.5") && contains("10.0.0.5", "::ffff:10.0.0.5"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        for (bad, why) in [("10.0.0/8", InvalidNetwork::Address), ("10.0.0.0/33", InvalidNetwork::Prefix)] {
            assert_eq!(bad.parse::<Network>(), Err(why));
        }
    }
}
