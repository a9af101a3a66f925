//! Where a node listens, as people type it.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The address of a node: `HOST:PORT` or `[IPv6]:PORT`, spoken to over TLS; with `http://` before it, in
/// plain text (a node with `https_enabled: false`, on loopback); or `unix:PATH`, the node's socket on this host
/// (`listen_socket`), where the system says who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    authority: String,
    plain: bool,
    socket: Option<PathBuf>,
}

/// What stands for the host in requests over a socket.
const LOCAL: &str = "localhost";

/// A string that is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: write HOST:PORT, as in 127.0.0.1:8001 or [::1]:8001, or unix:PATH")]
pub struct InvalidEndpoint {
    text: String,
}

impl Endpoint {
    /// `HOST:PORT`, without a scheme.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the connection carries no TLS.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// The socket on this host, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The URI of `path` there; `path` starts with a slash or is empty.
    pub fn uri(&self, path: &str) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            // As grpcurl and gRPC name it, too: unix:///run/x is /run/x.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('\0') {
                return Err(invalid());
            }
            return Ok(Self { authority: LOCAL.to_owned(), plain: true, socket: Some(path.into()) });
        }
        let plain = text.starts_with("http://");
        let bare = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
        let authority: http::uri::Authority = bare.trim_end_matches('/').parse().map_err(|_| invalid())?;
        let unbracketed_v6 = authority.host().contains(':') && !authority.host().starts_with('[');
        let has_user = authority.as_str().contains('@');
        if authority.host().is_empty() || unbracketed_v6 || has_user {
            return Err(invalid());
        }
        match authority.port_u16() {
            Some(port) if port > 0 => {
                Ok(Self { authority: authority.as_str().to_owned(), plain, socket: None })
            }
            Some(_) | None => Err(invalid()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => f.pad(&format!("unix:{}", path.display())),
            None => f.pad(&self.authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn an_address_reads_with_and_without_its_scheme() {
        for (text, uri) in [
            ("127.0.0.1:8001", "https://127.0.0.1:8001/health"),
            ("[::1]:8001", "https://[::1]:8001/health"),
            ("https://node.example:8001/", "https://node.example:8001/health"),
            ("http://localhost:8001", "http://localhost:8001/health"),
        ] {
            assert_eq!(text.parse::<Endpoint>().expect(text).uri("/health"), uri);
        }
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        for text in ["unix:/run/p2p/node.sock", "unix:///run/p2p/node.sock"] {
            let endpoint = text.parse::<Endpoint>().expect(text);
            assert_eq!(endpoint.socket(), Some(std::path::Path::new("/run/p2p/node.sock")));
            assert_eq!(endpoint.to_string(), "unix:/run/p2p/node.sock");
            assert_eq!(endpoint.uri("/health"), "http://localhost/health");
        }
        assert!("unix:".parse::<Endpoint>().is_err());
    }

    #[test]
    fn an_address_without_a_port_is_refused_with_the_form_to_write() {
        for bad in
            ["", "localhost", "localhost:", ":8001", "::1:8001", "a:b", "u@h:1", "h:0", "h:70000", "h:1/x"]
        {
            let error = bad.parse::<Endpoint>().expect_err(bad);
            assert!(error.to_string().contains("write HOST:PORT"), "{error}");
        }
    }
}
