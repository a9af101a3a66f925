//! Which methods an access token, or a rule of access, means.

use crate::{grant::Glob, method::ServiceName};
use std::{fmt, str::FromStr};

/// Most globs in one scope.
pub const MAX_GLOBS: usize = 64;
/// Longest scope as text, in bytes.
pub const MAX_SCOPE_LEN: usize = 4096;

/// Why a text is not a list of method globs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScope {
    /// A glob of an unknown shape.
    #[error(
        "{0:?} is no method glob; write a method (shop.Orders/Get), a service (shop.Orders/*), a package (shop.*) or *"
    )]
    Glob(String),
    /// A glob that would mean services of the system without naming each.
    #[error(
        "{0:?} names a reserved package as a whole; services of p2p. and grpc. are named one by one, as in \
         p2p.v1.SystemService/*"
    )]
    Reserved(String),
    /// No glob at all.
    #[error("a scope names at least one method, as in shop.Orders/Get")]
    Empty,
    /// More than [`MAX_GLOBS`].
    #[error("{0} method globs, at most {MAX_GLOBS} are allowed")]
    TooMany(usize),
    /// Longer than [`MAX_SCOPE_LEN`].
    #[error("the scope has {0} bytes, at most {MAX_SCOPE_LEN} are allowed")]
    TooLong(usize),
}

/// `*`, `package.*`, `package.Service/*` or `package.Service/Method`.
///
/// `*` and `package.*` never mean services of the system (`p2p.`, `grpc.`): who is given "everything" is
/// given the services of users, and what can change the cluster must be written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodGlob {
    service: Glob,
    /// One method of one service; all methods otherwise.
    method: Option<Box<str>>,
}

impl MethodGlob {
    /// Whether `path`, as in `shop.Orders/Get`, is meant.
    pub fn matches(&self, path: &str) -> bool {
        let Some((service, method)) = path.split_once('/') else { return false };
        let named = match &self.service {
            Glob::Exactly(_) => true,
            Glob::All | Glob::Below(_) => !is_reserved(service),
        };
        named && self.service.matches(service) && self.method.as_deref().is_none_or(|own| own == method)
    }

    /// Whether every method that `other` means is meant.
    pub fn covers(&self, other: &Self) -> bool {
        let reserved = match &other.service {
            Glob::Exactly(name) => name.is_reserved(),
            Glob::All | Glob::Below(_) => false,
        };
        let named = matches!(self.service, Glob::Exactly(_)) || !reserved;
        named && self.service.covers(&other.service) && (self.method.is_none() || self.method == other.method)
    }
}

fn is_reserved(service: &str) -> bool {
    service.starts_with("p2p.") || service.starts_with("grpc.")
}

impl FromStr for MethodGlob {
    type Err = InvalidScope;
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let invalid = || InvalidScope::Glob(text.chars().take(256).collect());
        if let Some((service, method)) = text.split_once('/') {
            let service: ServiceName = service.parse().map_err(|_| invalid())?;
            let method = match method {
                "*" => None,
                // The rule of method names is that of paths.
                name => Some(crate::MethodPath::new(&service, name).map_err(|_| invalid())?.method().into()),
            };
            return Ok(Self { service: Glob::Exactly(service), method });
        }
        let service = match text.strip_suffix(".*") {
            _ if text == "*" => Glob::All,
            Some("p2p" | "grpc") => return Err(InvalidScope::Reserved(text.to_owned())),
            Some(package) if is_reserved(package) => return Err(InvalidScope::Reserved(text.to_owned())),
            Some(package) => Glob::Below(package.parse().map_err(|_| invalid())?),
            None => return Err(invalid()),
        };
        Ok(Self { service, method: None })
    }
}

impl fmt::Display for MethodGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, &self.method) {
            (Glob::All | Glob::Below(_), _) => self.service.fmt(f),
            (Glob::Exactly(service), None) => write!(f, "{service}/*"),
            (Glob::Exactly(service), Some(method)) => write!(f, "{service}/{method}"),
        }
    }
}

/// Method globs, at least one and at most [`MAX_GLOBS`]; as text separated by single spaces (RFC 6749 § 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Vec<MethodGlob>);

impl Scope {
    /// Reads globs as people type them.
    ///
    /// # Errors
    ///
    /// The first glob that is none, and a list out of bounds.
    pub fn parse<S: AsRef<str>>(globs: &[S]) -> Result<Self, InvalidScope> {
        if globs.is_empty() {
            return Err(InvalidScope::Empty);
        }
        if globs.len() > MAX_GLOBS {
            return Err(InvalidScope::TooMany(globs.len()));
        }
        let length = globs.iter().map(|glob| glob.as_ref().len() + 1).sum::<usize>() - 1;
        if length > MAX_SCOPE_LEN {
            return Err(InvalidScope::TooLong(length));
        }
        globs.iter().map(|glob| glob.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `path`, as in `shop.Orders/Get`, is meant.
    pub fn matches(&self, path: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(path))
    }

    /// Whether everything that this scope means, `other` means too. Each glob must lie within one of the
    /// other's; sums of globs are not looked for.
    pub fn is_within(&self, other: &Self) -> bool {
        self.first_beyond(other).is_none()
    }

    /// The first glob that means more than `other` does.
    pub fn first_beyond(&self, other: &Self) -> Option<&MethodGlob> {
        self.0.iter().find(|inner| !other.0.iter().any(|outer| outer.covers(inner)))
    }

    /// The globs.
    pub fn globs(&self) -> &[MethodGlob] {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        if text.len() > MAX_SCOPE_LEN {
            return Err(InvalidScope::TooLong(text.len()));
        }
        if text.is_empty() {
            return Err(InvalidScope::Empty);
        }
        let globs: Vec<&str> = text.split(' ').collect();
        Self::parse(&globs)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, glob) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{glob}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().expect(text)
    }

    #[test]
    fn a_glob_means_one_method_a_service_a_package_or_all_services_of_users() {
        for (glob, path, meant) in [
            ("shop.Orders/Get", "shop.Orders/Get", true),
            ("shop.Orders/Get", "shop.Orders/GetAll", false),
            ("shop.Orders/Get", "shop.Order/Get", false),
            ("shop.Orders/*", "shop.Orders/Get", true),
            ("shop.Orders/*", "shop.v1.Orders/Get", false),
            ("shop.*", "shop.Orders/Get", true),
            ("shop.*", "shop.v1.Orders/Get", true),
            ("shop.*", "shops.Orders/Get", false),
            ("*", "anything.At.All/Do", true),
            ("a.* b.B/C", "b.B/C", true),
        ] {
            assert_eq!(scope(glob).matches(path), meant, "{glob} and {path}");
        }
    }

    #[test]
    fn services_of_the_system_are_meant_only_by_their_own_names() {
        for path in ["p2p.v1.SystemService/GetInfo", "grpc.health.v1.Health/Check"] {
            assert!(!scope("*").matches(path));
        }
        assert!(scope("p2p.v1.SystemService/*").matches("p2p.v1.SystemService/GetInfo"));
        assert!(!scope("p2p.v1.SystemService/*").matches("p2p.v1.AuthService/IssueToken"));
        for bad in ["p2p.*", "p2p.v1.*", "grpc.*"] {
            assert_eq!(bad.parse::<Scope>(), Err(InvalidScope::Reserved(bad.to_owned())));
        }
    }

    #[test]
    fn what_is_within_a_scope_never_means_more() {
        for (inner, outer, within) in [
            ("shop.Orders/Get", "shop.Orders/Get", true),
            ("shop.Orders/Get", "shop.Orders/*", true),
            ("shop.Orders/*", "shop.Orders/Get", false),
            ("shop.Orders/*", "shop.*", true),
            ("shop.v1.*", "shop.*", true),
            ("shop.*", "shop.v1.*", false),
            ("*", "shop.*", false),
            ("shop.* bank.*", "*", true),
            ("shop.* bank.*", "shop.*", false),
            ("p2p.v1.SystemService/GetInfo", "*", false),
            ("p2p.v1.SystemService/GetInfo", "p2p.v1.SystemService/*", true),
            ("*", "p2p.v1.SystemService/*", false),
        ] {
            assert_eq!(scope(inner).is_within(&scope(outer)), within, "{inner} within {outer}");
        }
    }

    #[test]
    fn what_is_no_scope_does_not_parse() {
        for bad in [
            "**",
            "shop",
            "shop.Orders",
            "shop*",
            ".*",
            "shop/",
            "/Get",
            "a.B/C/D",
            "a.B/G*",
            "a  b.*",
            " a.*",
        ] {
            assert!(matches!(bad.parse::<Scope>(), Err(InvalidScope::Glob(_))), "{bad:?}");
        }
        assert_eq!("".parse::<Scope>(), Err(InvalidScope::Empty));
        assert_eq!(Scope::parse(&["*"; MAX_GLOBS + 1]), Err(InvalidScope::TooMany(MAX_GLOBS + 1)));
        assert!(matches!("a".repeat(5_000).parse::<Scope>(), Err(InvalidScope::TooLong(5_000))));
        assert_eq!(scope("* shop.* a.B/* a.B/C").to_string(), "* shop.* a.B/* a.B/C");
    }
}
