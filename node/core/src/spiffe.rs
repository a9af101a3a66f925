//! SPIFFE ids: who a certificate speaks for, and in which role.
//!
//! `spiffe://<cluster_id>/<role>/<name>`, exactly one of them as URI SAN of a certificate
//! (SPIFFE X.509-SVID § 2). The role in the path is the one that the CA granted, so a worker's
//! certificate can never pass for a coordinator's.

use crate::id::{ClusterId, InvalidId, NodeId};
use std::{fmt, str::FromStr};

/// What the CA granted the holder of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A node that also holds CA authority.
    Coordinator,
    /// A node.
    Worker,
    /// A person or script that administers the cluster.
    Admin,
    /// A key that signs access tokens; never used for TLS.
    TokenSigner,
}

impl Role {
    /// The word in SPIFFE paths, configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::TokenSigner => "token-signer",
        }
    }

    /// Whether holders are nodes: they gossip and serve calls.
    pub fn is_node(self) -> bool {
        match self {
            Self::Coordinator | Self::Worker => true,
            Self::Admin | Self::TokenSigner => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = InvalidSpiffeId;
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        [Self::Coordinator, Self::Worker, Self::Admin, Self::TokenSigner]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| InvalidSpiffeId::Role(text.to_owned()))
    }
}

/// Why a string is not a SPIFFE id of this system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// Not of the form `spiffe://<cluster>/<role>/<name>`.
    #[error("expected spiffe://<cluster_id>/<role>/<name>")]
    Form,
    /// The trust domain is not a cluster id.
    #[error("the cluster id is invalid: {0}")]
    Cluster(InvalidId),
    /// The role is unknown.
    #[error("unknown role {0:?}")]
    Role(String),
    /// The name is not a valid id.
    #[error("the name is invalid: {0}")]
    Name(InvalidId),
}

/// `spiffe://<cluster>/<role>/<name>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The trust domain.
    pub cluster: ClusterId,
    /// The granted role.
    pub role: Role,
    /// The node id, the admin's name or the token signer's coordinator.
    pub name: NodeId,
}

impl SpiffeId {
    /// The id of `name` in `cluster`.
    pub fn new(cluster: ClusterId, role: Role, name: NodeId) -> Self {
        Self { cluster, role, name }
    }

    /// The node that this id names, if it names one.
    pub fn node(&self) -> Option<&NodeId> {
        self.role.is_node().then_some(&self.name)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let rest = text.strip_prefix("spiffe://").ok_or(InvalidSpiffeId::Form)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidSpiffeId::Form);
        };
        Ok(Self {
            cluster: cluster.parse().map_err(InvalidSpiffeId::Cluster)?,
            role: role.parse()?,
            name: name.parse().map_err(InvalidSpiffeId::Name)?,
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.cluster, self.role, self.name)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for text in [
            "spiffe://p2p-core/coordinator/coordinator-1",
            "spiffe://c/worker/w.1",
            "spiffe://c/admin/alice",
            "spiffe://c/token-signer/coordinator-1",
        ] {
            assert_eq!(text.parse::<SpiffeId>().expect("parses").to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "https://c/worker/w",
            "spiffe://c",
            "spiffe://c/worker",
            "spiffe://c/worker/",
            "spiffe://c/worker/a/b",
            "spiffe://C/worker/a",
            "spiffe:///worker/a",
            "spiffe://c/king/a",
            "spiffe://user@c/worker/a",
            "spiffe://c:1/worker/a",
            "spiffe://c/worker/a?x",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?}");
        }
    }
}
