//! Which services a certificate may provide.

use crate::method::ServiceName;
use std::{fmt, str::FromStr};

/// Most globs in one grant.
pub const MAX_GLOBS: usize = 64;

/// Why a list of globs is not a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// A glob of an unknown shape.
    #[error("{0:?} is no service glob; write a full name (demo.v1.Greeter), a package (demo.*) or *")]
    Glob(String),
    /// A glob that could only ever name reserved services.
    #[error("{0:?} lies in a reserved package; p2p. and grpc. services cannot be granted")]
    Reserved(String),
    /// More than [`MAX_GLOBS`].
    #[error("{0} service globs, at most {MAX_GLOBS} are allowed")]
    TooMany(usize),
    /// Its encoding in a certificate is not the documented one.
    #[error("the service grant extension is malformed")]
    Encoding,
}

/// A full service name, `package.*` (everything below the package) or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Glob {
    All,
    Below(ServiceName),
    Exactly(ServiceName),
}

impl Glob {
    /// Whether `service`, a full service name, is meant.
    pub(crate) fn matches(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exactly(name) => name.as_str() == service,
            Self::Below(package) => is_below(service, package),
        }
    }

    /// Whether every service that `other` means is meant.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Below(_), Self::Exactly(name)) => self.matches(name.as_str()),
            (Self::Below(package), Self::Below(inner)) => {
                inner == package || is_below(inner.as_str(), package)
            }
            (Self::Exactly(name), Self::Exactly(inner)) => name == inner,
            (Self::Below(_) | Self::Exactly(_), Self::All) | (Self::Exactly(_), Self::Below(_)) => false,
        }
    }
}

fn is_below(name: &str, package: &ServiceName) -> bool {
    name.strip_prefix(package.as_str()).is_some_and(|rest| rest.starts_with('.'))
}

impl FromStr for Glob {
    type Err = InvalidGrant;
    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let invalid = || InvalidGrant::Glob(text.chars().take(256).collect());
        let reserved =
            |name: &ServiceName| name.is_reserved() || name.as_str() == "p2p" || name.as_str() == "grpc";
        let glob = match text.strip_suffix(".*") {
            _ if text == "*" => Self::All,
            Some(package) => Self::Below(package.parse().map_err(|_| invalid())?),
            None => Self::Exactly(text.parse().map_err(|_| invalid())?),
        };
        match &glob {
            Self::Below(name) if reserved(name) => Err(InvalidGrant::Reserved(text.to_owned())),
            Self::Exactly(name) if name.is_reserved() => Err(InvalidGrant::Reserved(text.to_owned())),
            Self::All | Self::Below(_) | Self::Exactly(_) => Ok(glob),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(package) => write!(f, "{package}.*"),
            Self::Exactly(name) => write!(f, "{name}"),
        }
    }
}

/// The services that a certificate may provide, if it is limited. An empty grant allows none.
///
/// A certificate without a grant may provide every service but the reserved ones (`p2p.`, `grpc.`), which
/// are never granted: each node serves those only for itself ([`may_provide`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(Vec<Glob>);

impl Grant {
    /// Reads globs as people type them.
    pub fn parse<S: AsRef<str>>(globs: &[S]) -> Result<Self, InvalidGrant> {
        if globs.len() > MAX_GLOBS {
            return Err(InvalidGrant::TooMany(globs.len()));
        }
        globs.iter().map(|glob| glob.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the holder may provide `service`. Reserved names are never granted.
    pub fn allows(&self, service: &ServiceName) -> bool {
        !service.is_reserved() && self.0.iter().any(|glob| glob.matches(service.as_str()))
    }

    /// The globs as text.
    pub fn globs(&self) -> Vec<String> {
        self.0.iter().map(Glob::to_string).collect()
    }
}

/// Whether the holder of a certificate with this grant, or with none, may provide `service` to others.
pub fn may_provide(grant: Option<&Grant>, service: &ServiceName) -> bool {
    match grant {
        Some(grant) => grant.allows(service),
        None => !service.is_reserved(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(globs: &[&str], service: &str) -> bool {
        Grant::parse(globs).unwrap().allows(&service.parse().unwrap())
    }

    #[test]
    fn a_glob_names_one_service_a_package_or_everything() {
        assert!(allows(&["demo.v1.Greeter"], "demo.v1.Greeter"));
        assert!(!allows(&["demo.v1.Greeter"], "demo.v1.Greeters"));
        assert!(allows(&["demo.*"], "demo.Greeter"));
        assert!(allows(&["demo.*"], "demo.v1.Greeter"));
        assert!(!allows(&["demo.*"], "demo"));
        assert!(!allows(&["demo.*"], "demos.Greeter"));
        assert!(allows(&["a.*", "b.B"], "b.B"));
        assert!(allows(&["*"], "anything.At.All"));
        assert!(!allows(&[], "anything"));
    }

    #[test]
    fn reserved_services_are_never_granted() {
        for name in ["p2p.v1.AuthService", "grpc.health.v1.Health"] {
            assert!(!allows(&["*"], name));
        }
        for glob in ["p2p.*", "p2p.v1.*", "grpc.*", "grpc.health.v1.Health"] {
            assert_eq!(Grant::parse(&[glob]), Err(InvalidGrant::Reserved(glob.to_owned())), "{glob}");
        }
    }

    #[test]
    fn what_is_no_glob_does_not_parse() {
        for bad in ["", "**", "demo.*.Greeter", "demo*", ".*", "demo..*", "a b"] {
            assert_eq!(Grant::parse(&[bad]), Err(InvalidGrant::Glob(bad.to_owned())), "{bad:?}");
        }
        assert_eq!(Grant::parse(&["*"; MAX_GLOBS + 1]), Err(InvalidGrant::TooMany(MAX_GLOBS + 1)));
    }
}
