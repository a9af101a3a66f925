//! Who calls.

use crate::{
    id::NodeId,
    spiffe::{Role, SpiffeId},
};
use std::{fmt, str::FromStr, sync::Arc};

/// Longest subject of an access token, in bytes.
pub const MAX_SUBJECT_LEN: usize = 255;

/// Why a text is not the subject of an access token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// Empty, too long, or with characters that a header cannot carry as they are.
    #[error("a subject is 1 to {MAX_SUBJECT_LEN} visible ASCII characters without spaces or commas")]
    Form,
    /// It reads like the holder of a certificate.
    #[error("a subject may not begin with spiffe:, which names holders of certificates")]
    Spiffe,
}

/// For whom an access token was issued: 1 to [`MAX_SUBJECT_LEN`] visible ASCII characters. It never reads
/// like a SPIFFE id, so that services can tell the two apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        if text.is_empty() || text.len() > MAX_SUBJECT_LEN || !text.bytes().all(visible) {
            return Err(InvalidSubject::Form);
        }
        if text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) {
            return Err(InvalidSubject::Spiffe);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The holder of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenHolder {
    /// For whom the token was issued.
    pub subject: Subject,
    /// The token's id.
    pub jti: Arc<str>,
}

/// Who calls, as far as the evidence proves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// No evidence.
    Anonymous,
    /// The holder of a certificate of this cluster.
    Certificate(SpiffeId),
    /// The holder of an access token of this cluster.
    Token(TokenHolder),
}

impl Principal {
    /// Whether this is an admin of the cluster.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Certificate(id) if id.role == Role::Admin)
    }

    /// The node that calls, if a node calls.
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Anonymous | Self::Token(_) => None,
            Self::Certificate(id) => id.node(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.pad("anonymous"),
            Self::Certificate(id) => fmt::Display::fmt(id, f),
            Self::Token(holder) => fmt::Display::fmt(&holder.subject, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_fits_a_header_and_never_reads_like_a_certificate() {
        for fine in ["alice", "ci@shop.example", "a/b:c", &"x".repeat(MAX_SUBJECT_LEN)] {
            assert!(fine.parse::<Subject>().is_ok(), "{fine}");
        }
        for bad in ["", "a b", "a\nb", "a,b", "ä", &"x".repeat(MAX_SUBJECT_LEN + 1)] {
            assert_eq!(bad.parse::<Subject>(), Err(InvalidSubject::Form), "{bad:?}");
        }
        for bad in ["spiffe://c/admin/alice", "SPIFFE:x"] {
            assert_eq!(bad.parse::<Subject>(), Err(InvalidSubject::Spiffe));
        }
    }
}
