//! The services of `services:`: local processes that provide them through this node.
//!
//! ```yaml
//! services:
//!   - {name: shop.Orders, upstream: "http://127.0.0.1:50051"}
//!   - {name: shop.Search, upstream: "https://search.internal:8443", tls_ca: search_ca.pem, max_concurrent: 64}
//! ```

use super::{
    address::{InvalidAddress, SeedAddress, SeedHost},
    setting::{Setting, Wrong, list, show_fields, show_list, text},
};
use p2p_core::{ServiceName, suggest::nearest};
use serde_yaml::Value;
use std::{collections::BTreeSet, fmt, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

/// Most services of upstreams on one node, configured and registered ones together.
pub const MAX_SERVICES: usize = 128;
/// Pause between health checks where none is set.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest and longest pause between health checks.
pub const HEALTH_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// Why a text is no URL of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpstream {
    /// Neither http nor https.
    #[error("write http://HOST:PORT for plain HTTP/2, or https://HOST:PORT for TLS")]
    Scheme,
    /// With a path, a query or a user.
    #[error("an upstream is a scheme, a host and a port, without a path")]
    Path,
    /// Its address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Host and port.
    pub address: SeedAddress,
}

impl UpstreamUrl {
    /// Whether it can only be a process of this host: a loopback address, or `localhost`, which is never asked of a
    /// name server.
    pub fn is_loopback(&self) -> bool {
        match &self.address.host {
            SeedHost::Ip(ip) => ip.to_canonical().is_loopback(),
            SeedHost::Name(name) => name == "localhost",
        }
    }
}

impl FromStr for UpstreamUrl {
    type Err = InvalidUpstream;
    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(InvalidUpstream::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(InvalidUpstream::Path);
        }
        Ok(Self { tls, address: rest.parse()? })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// How an upstream is asked whether it can take calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthCheck {
    /// By `grpc.health.v1` where it implements that; else that it answers at all.
    #[default]
    Auto,
    /// By `grpc.health.v1`.
    Grpc,
    /// By a TCP connection.
    Tcp,
    /// Not at all.
    None,
}

/// A word that is no kind of health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a health check is auto, grpc, tcp or none")]
pub struct UnknownHealthCheck;

impl HealthCheck {
    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::None => "none",
        }
    }
}

impl FromStr for HealthCheck {
    type Err = UnknownHealthCheck;
    fn from_str(text: &str) -> Result<Self, UnknownHealthCheck> {
        let all = [Self::Auto, Self::Grpc, Self::Tcp, Self::None];
        all.into_iter().find(|check| check.word() == text).ok_or(UnknownHealthCheck)
    }
}

/// One service of `services:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its full name.
    pub name: ServiceName,
    /// The process.
    pub upstream: UpstreamUrl,
    /// A file with its `FileDescriptorSet`; without one it is asked by reflection.
    pub descriptors: Option<PathBuf>,
    /// How it is checked.
    pub health: HealthCheck,
    /// Pause between checks.
    pub health_interval: Duration,
    /// Most calls at a time.
    pub max_concurrent: Option<NonZeroU32>,
    /// A file with the CA certificates that an https upstream is checked against.
    pub tls_ca: Option<PathBuf>,
}

/// The services of a node's upstreams, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(Vec<ServiceConfig>);

impl Services {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceConfig> {
        self.0.iter()
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} services", self.0.len())
    }
}

const FIELDS: [&str; 7] =
    ["name", "upstream", "descriptors", "health", "health_interval", "max_concurrent", "tls_ca"];

impl Setting for ServiceConfig {
    const EXPECTED: &'static str =
        "a mapping such as {name: shop.Orders, upstream: \"http://127.0.0.1:50051\"}";
    fn read(value: &Value) -> Result<Self, Wrong> {
        let mapping = value.as_mapping().ok_or_else(|| Wrong::kind(value))?;
        for (field, _) in mapping {
            let field_name = text(field)?;
            if !FIELDS.contains(&field_name) {
                let hint = nearest(field_name, FIELDS).map(|near| format!("; did you mean {near}?"));
                let why = format!("a service has no field {field_name}{}", hint.unwrap_or_default());
                return Err(Wrong::because(value, why));
            }
        }
        let needed =
            |name: &str| mapping.get(name).ok_or_else(|| Wrong::because(value, format!("{name} is missing")));
        let name_value = needed("name")?;
        let name: ServiceName = text(name_value)?.parse().map_err(|_| {
            Wrong::because(name_value, "a service name is package.Service, as in shop.Orders")
        })?;
        if name.is_reserved() {
            return Err(Wrong::because(
                name_value,
                "services of the packages p2p and grpc are the node's own",
            ));
        }
        let upstream_value = needed("upstream")?;
        let upstream: UpstreamUrl =
            text(upstream_value)?.parse().map_err(|why| Wrong::because(upstream_value, why))?;
        let health = match mapping.get("health") {
            None => HealthCheck::default(),
            Some(word) => text(word)?.parse().map_err(|why| Wrong::because(word, why))?,
        };
        let health_interval: Option<Duration> = field(mapping.get("health_interval"))?;
        let health_interval = health_interval.unwrap_or(HEALTH_INTERVAL);
        if !HEALTH_INTERVALS.contains(&health_interval) {
            return Err(Wrong::because(value, "health_interval is 100ms to 1h"));
        }
        let service = Self {
            name,
            upstream,
            descriptors: field(mapping.get("descriptors"))?,
            health,
            health_interval,
            max_concurrent: field(mapping.get("max_concurrent"))?,
            tls_ca: field(mapping.get("tls_ca"))?,
        };
        match (service.upstream.tls, &service.tls_ca) {
            (true, None) => Err(Wrong::because(value, "an https upstream needs tls_ca, the file of its CA")),
            (false, Some(_)) => Err(Wrong::because(value, "tls_ca is for https upstreams")),
            (true, Some(_)) | (false, None) => Ok(service),
        }
    }
    fn show(&self) -> Value {
        show_fields([
            ("name", Value::from(self.name.to_string())),
            ("upstream", Value::from(self.upstream.to_string())),
            ("descriptors", self.descriptors.show()),
            ("health", Value::from(self.health.word())),
            ("health_interval", self.health_interval.show()),
            ("max_concurrent", self.max_concurrent.show()),
            ("tls_ca", self.tls_ca.show()),
        ])
    }
}

fn field<T: Setting>(value: Option<&Value>) -> Result<Option<T>, Wrong> {
    value.map(T::read).transpose()
}

impl Setting for Services {
    const EXPECTED: &'static str =
        "a list such as [{name: shop.Orders, upstream: \"http://127.0.0.1:50051\"}]";
    fn read(value: &Value) -> Result<Self, Wrong> {
        let services: Vec<ServiceConfig> = list(value, MAX_SERVICES)?;
        let mut names = BTreeSet::new();
        for service in &services {
            if !names.insert(&service.name) {
                return Err(Wrong::because(value, format!("{} is listed twice", service.name)));
            }
        }
        Ok(Self(services))
    }
    fn show(&self) -> Value {
        show_list(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(service: &str) -> Result<ServiceConfig, String> {
        Config::from_yaml(&format!("node_id: a\nservices:\n  - {service}\n"), "test")
            .map(|config| config.services.0[0].clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_needs_a_name_and_an_upstream_and_has_defaults_for_the_rest() {
        let service = read("{name: shop.Orders, upstream: 'http://127.0.0.1:50051/'}").expect("fine");
        assert_eq!(service.upstream.to_string(), "http://127.0.0.1:50051");
        assert!(service.upstream.is_loopback());
        assert_eq!((service.health, service.health_interval), (HealthCheck::Auto, HEALTH_INTERVAL));
        assert_eq!((service.max_concurrent, service.descriptors), (None, None));
        let service = read(
            "{name: a.B, upstream: 'https://s.internal:8443', tls_ca: ca.pem, health: none, \
             health_interval: 250ms, max_concurrent: 8, descriptors: b.bin}",
        )
        .expect("fine");
        assert!(!service.upstream.is_loopback());
        assert_eq!(service.health, HealthCheck::None);
        assert_eq!(service.max_concurrent.map(NonZeroU32::get), Some(8));
    }

    #[test]
    fn a_service_that_is_none_says_what_is_wrong() {
        for (service, why) in [
            ("{name: shop.Orders}", "upstream is missing"),
            ("{upstream: 'http://127.0.0.1:1'}", "name is missing"),
            ("{name: 'shop orders', upstream: 'http://127.0.0.1:1'}", "package.Service"),
            ("{name: p2p.v1.X, upstream: 'http://127.0.0.1:1'}", "the node's own"),
            ("{name: grpc.X, upstream: 'http://127.0.0.1:1'}", "the node's own"),
            ("{name: a.B, upstream: '127.0.0.1:1'}", "http://HOST:PORT"),
            ("{name: a.B, upstream: 'http://127.0.0.1'}", "port is missing"),
            ("{name: a.B, upstream: 'http://0.0.0.0:1'}", "unspecified"),
            ("{name: a.B, upstream: 'http://h:1/x'}", "without a path"),
            ("{name: a.B, upstream: 'https://h:1'}", "needs tls_ca"),
            ("{name: a.B, upstream: 'http://h:1', tls_ca: x}", "is for https"),
            ("{name: a.B, upstream: 'http://h:1', health: http}", "auto, grpc, tcp or none"),
            ("{name: a.B, upstream: 'http://h:1', max_concurent: 1}", "did you mean max_concurrent?"),
            ("{name: a.B, upstream: 'http://h:1', max_concurrent: 0}", "services"),
            ("{name: a.B, upstream: 'http://h:1', health_interval: 1ms}", "100ms to 1h"),
        ] {
            let error = read(service).expect_err(service);
            assert!(error.contains(why), "{service}: {error}");
        }
        let twice = "{name: a.B, upstream: 'http://h:1'}\n  - {name: a.B, upstream: 'http://h:2'}";
        assert!(read(twice).expect_err("refused").contains("listed twice"));
    }
}
