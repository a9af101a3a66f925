//! Names for TLS clients that go by host names; nodes look at the SPIFFE id.

use rustls_pki_types::DnsName;
use std::{fmt, net::IpAddr, str::FromStr};

/// A name under which a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

/// Neither a DNS name nor an IP address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host name nor an IP address")]
pub struct InvalidSan(String);

impl FromStr for San {
    type Err = InvalidSan;
    fn from_str(text: &str) -> Result<Self, InvalidSan> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = DnsName::try_from(text).map_err(|_| InvalidSan(text.to_owned()))?;
        Ok(Self::Dns(name.to_lowercase_owned().as_ref().to_owned()))
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.pad(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}
