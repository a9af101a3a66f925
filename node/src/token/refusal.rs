//! Why a token is refused.

use p2p_core::{principal::InvalidSubject, scope::InvalidScope};

/// Why a token is refused. The sentence of each is for those who may know; strangers get [`Self::public`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Larger than [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
    #[error("the token has {0} bytes, at most {limit} are allowed", limit = super::MAX_TOKEN_BYTES)]
    TooLarge(usize),
    /// Not a compact JWS whose parts are what they should be.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// A header field or claim stands there twice.
    #[error("the token says the same thing twice: {0}")]
    Duplicate(String),
    /// Signed with an algorithm that we do not use, or that is not the key's own.
    #[error("the token's algorithm is not EdDSA or ES256, or not that of its key")]
    Algorithm,
    /// Not an access token.
    #[error("the token is of another type than {}", super::TYPE)]
    Type,
    /// No coordinator of this cluster has published the key.
    #[error("no token signer of this cluster has the key that the token names; it may have ended")]
    UnknownKey,
    /// The key did not sign this.
    #[error("the signature is not by the key that the token names")]
    Signature,
    /// A claim that must be there is not.
    #[error("the token has no claim {0}")]
    Missing(&'static str),
    /// Somebody else than the key's coordinator is named as issuer.
    #[error("the token names another issuer than the coordinator whose key signed it")]
    Issuer,
    /// It is for another cluster.
    #[error("the token is for another cluster")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks of this node and of the coordinator")]
    NotYetValid,
    /// A coordinator took it back: itself, all of its subject, or what an evicted coordinator issued.
    #[error("the token is revoked")]
    Revoked,
    /// This node has lost what is revoked.
    #[error(
        "this node has lost which tokens are revoked and waits to hear it from another node; call another node, or restart \
         this one with --accept-state-loss"
    )]
    StateLost,
    /// The subject is none.
    #[error("the token's subject is unusable: {0}")]
    Subject(#[from] InvalidSubject),
    /// The scope is none.
    #[error("the token's scope is unusable: {0}")]
    Scope(#[from] InvalidScope),
}

impl TokenRefusal {
    /// Every word, for metrics.
    pub const WORDS: [&'static str; 16] = [
        "too_large",
        "malformed",
        "duplicate",
        "algorithm",
        "type",
        "unknown_key",
        "signature",
        "missing_claim",
        "issuer",
        "audience",
        "expired",
        "not_yet_valid",
        "subject",
        "scope",
        "revoked",
        "state_lost",
    ];

    /// The word in metrics and answers.
    pub fn word(&self) -> &'static str {
        let index = match self {
            Self::TooLarge(_) => 0,
            Self::Malformed(_) => 1,
            Self::Duplicate(_) => 2,
            Self::Algorithm => 3,
            Self::Type => 4,
            Self::UnknownKey => 5,
            Self::Signature => 6,
            Self::Missing(_) => 7,
            Self::Issuer => 8,
            Self::Audience => 9,
            Self::Expired => 10,
            Self::NotYetValid => 11,
            Self::Subject(_) => 12,
            Self::Scope(_) => 13,
            Self::Revoked => 14,
            Self::StateLost => 15,
        };
        Self::WORDS[index]
    }

    /// The word that anybody may be told.
    pub fn public_word(&self) -> &'static str {
        match self {
            Self::Expired
            | Self::NotYetValid
            | Self::Audience
            | Self::Revoked
            | Self::StateLost
            | Self::TooLarge(_) => self.word(),
            Self::Malformed(_)
            | Self::Duplicate(_)
            | Self::Algorithm
            | Self::Type
            | Self::UnknownKey
            | Self::Signature
            | Self::Missing(_)
            | Self::Issuer
            | Self::Subject(_)
            | Self::Scope(_) => "invalid",
        }
    }

    /// What anybody may be told: what its holder can mend, and nothing that helps to forge one.
    pub fn public(&self) -> &'static str {
        match self {
            Self::Expired => "the access token has expired",
            Self::NotYetValid => "the access token is not valid yet",
            Self::Audience => "the access token is for another cluster",
            Self::Revoked => "the access token is revoked",
            Self::StateLost => {
                "this node cannot tell now whether the access token is revoked; call another node"
            }
            Self::TooLarge(_) => "the access token is too large",
            Self::Malformed(_)
            | Self::Duplicate(_)
            | Self::Algorithm
            | Self::Type
            | Self::UnknownKey
            | Self::Signature
            | Self::Missing(_)
            | Self::Issuer
            | Self::Subject(_)
            | Self::Scope(_) => "the access token is not valid",
        }
    }
}
