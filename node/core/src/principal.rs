//! Who calls.

use crate::{
    id::NodeId,
    spiffe::{Role, SpiffeId},
};
use std::fmt;

/// Who calls, as far as the evidence of the connection proves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// No evidence.
    Anonymous,
    /// The holder of a certificate of this cluster.
    Certificate(SpiffeId),
}

impl Principal {
    /// Whether this is an admin of the cluster.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Certificate(id) if id.role == Role::Admin)
    }

    /// The node that calls, if a node calls.
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Anonymous => None,
            Self::Certificate(id) => id.node(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.pad("anonymous"),
            Self::Certificate(id) => fmt::Display::fmt(id, f),
        }
    }
}
