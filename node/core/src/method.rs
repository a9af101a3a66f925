//! Methods as the wire names them, and what a node knows of one.

use std::{fmt, str::FromStr, sync::Arc};

pub use p2p_proto::v1::{Idempotency, StreamingKind};

/// Longest service name or method path, in bytes.
pub const MAX_PATH_LEN: usize = 256;

/// Why a string does not name a service or method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not `package.Service/Method`.
    #[error("expected package.Service/Method, as in p2p.v1.SystemService/GetInfo")]
    Form,
    /// Longer than [`MAX_PATH_LEN`].
    #[error("the name has {0} bytes, at most {MAX_PATH_LEN} are allowed")]
    TooLong(usize),
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A fully qualified gRPC service name, such as `p2p.v1.SystemService`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name belongs to the system itself: `p2p.` and `grpc.` packages. Every node serves
    /// these for itself; no certificate grants them to be provided to others.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with("p2p.") || self.0.starts_with("grpc.")
    }
}

/// So that maps are looked up by text.
impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > MAX_PATH_LEN {
            return Err(InvalidName::TooLong(text.len()));
        }
        if !text.split('.').all(is_identifier) {
            return Err(InvalidName::Form);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The full path of a method, kept as the HTTP/2 `:path` has it: `/package.Service/Method`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodPath {
    path: Arc<str>,
    /// Index of the second slash.
    slash: usize,
}

impl MethodPath {
    /// The path of `method` in `service`.
    pub fn new(service: &ServiceName, method: &str) -> Result<Self, InvalidName> {
        format!("/{service}/{method}").parse()
    }

    /// With the leading slash, as on the wire.
    pub fn as_wire(&self) -> &str {
        &self.path
    }

    /// Without the leading slash, as people type it.
    pub fn as_str(&self) -> &str {
        &self.path[1..]
    }

    /// The service's part.
    pub fn service(&self) -> &str {
        &self.path[1..self.slash]
    }

    /// The method's part.
    pub fn method(&self) -> &str {
        &self.path[self.slash + 1..]
    }
}

impl FromStr for MethodPath {
    type Err = InvalidName;
    /// Takes both forms, with and without the leading slash.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        if bare.len() >= MAX_PATH_LEN {
            return Err(InvalidName::TooLong(bare.len()));
        }
        let (service, method) = bare.split_once('/').ok_or(InvalidName::Form)?;
        if !service.split('.').all(is_identifier) || !is_identifier(method) {
            return Err(InvalidName::Form);
        }
        Ok(Self { path: format!("/{bare}").into(), slash: service.len() + 1 })
    }
}

impl fmt::Display for MethodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for MethodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One method of a service as its provider declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// Full path.
    pub path: MethodPath,
    /// Who streams.
    pub streaming: StreamingKind,
    /// Whether a call may be repeated.
    pub idempotency: Idempotency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_with_and_without_its_slash() {
        for text in ["/demo.v1.Greeter/SayHello", "demo.v1.Greeter/SayHello"] {
            let path: MethodPath = text.parse().expect("parses");
            assert_eq!(path.as_wire(), "/demo.v1.Greeter/SayHello");
            assert_eq!(path.as_str(), "demo.v1.Greeter/SayHello");
            assert_eq!((path.service(), path.method()), ("demo.v1.Greeter", "SayHello"));
        }
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for bad in ["", "/", "a", "a/", "/a", "a/b/c", "a b/c", "a.b./c", "a/b-c", "//a/b", "1a/b", "a/b?x=1"]
        {
            assert_eq!(bad.parse::<MethodPath>(), Err(InvalidName::Form), "{bad:?}");
        }
        assert!(matches!("a".repeat(300).parse::<MethodPath>(), Err(InvalidName::TooLong(300))));
    }
}
