//! Names and numbers of nodes and clusters.

use crate::tag::{Shared, tag_of};
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

/// Longest node or cluster id, in bytes: a DNS label.
pub const MAX_ID_LEN: usize = 63;

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The string is empty.
    #[error("it is empty")]
    Empty,
    /// The string is longer than [`MAX_ID_LEN`].
    #[error("it has {0} characters, at most {MAX_ID_LEN} are allowed")]
    TooLong(usize),
    /// A character other than `a-z`, `0-9`, `-`, `_` and `.`.
    #[error("it contains {0:?}; use lower-case letters, digits, '-', '_' and '.'")]
    Character(char),
    /// The first or last character is not a letter or digit.
    #[error("it must start and end with a letter or a digit")]
    Edge,
}

/// Checks the rule that node ids, cluster ids and names in SPIFFE paths share: 1 to [`MAX_ID_LEN`] of
/// `a-z 0-9 - _ .`, starting and ending with a letter or digit. It is a subset of what the SPIFFE-ID
/// specification § 2 allows in both trust domains and path segments, and of what DNS labels show.
pub(crate) fn check_id(text: &str) -> Result<(), InvalidId> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if let Some(c) = text.chars().find(|&c| !allowed(c)) {
        return Err(InvalidId::Character(c));
    }
    if text.len() > MAX_ID_LEN {
        return Err(InvalidId::TooLong(text.len()));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !text.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(InvalidId::Edge);
    }
    Ok(())
}

thread_local! {
    static TEXTS: RefCell<Shared<str>> = RefCell::new(Shared::new());
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            text: Arc<str>,
            tag: u64,
        }

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// A number that stands for the id, in this process only. Comparing it touches no other memory.
            pub fn tag(&self) -> u64 {
                self.tag
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.tag == other.tag && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.text.cmp(&other.text)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.tag.hash(state);
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check_id(text)?;
                let tag = tag_of(text);
                let text = TEXTS.with_borrow_mut(|texts| texts.get(tag, |known| known == text, || text.into()));
                Ok(Self { text, tag })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.text.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.text, f)
            }
        }
    };
}

id_type! {
    /// The name of a node, unique in its cluster, as its certificate carries it.
    NodeId
}

id_type! {
    /// The name of a cluster: the trust domain of its SPIFFE ids.
    ClusterId
}

/// A durable number of one start of a node: higher at each start, never reused.
///
/// It is `max(stored + 1, Unix time in ms)`, so that a node whose disk was wiped still starts above its
/// past. Wire unit: a plain `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// How far ahead of our clock a foreign epoch may lie, in milliseconds (24 h). Beyond it the sender's
    /// clock, or the sender, is wrong.
    pub const MAX_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

    /// The epoch of a start at `unix_ms`, above the last one stored.
    pub fn next(stored: Option<Epoch>, unix_ms: u64) -> Epoch {
        Epoch(stored.map_or(unix_ms, |last| last.0.saturating_add(1).max(unix_ms)))
    }

    /// Whether a foreign epoch lies more than [`Self::MAX_AHEAD_MS`] ahead of `unix_ms`.
    pub fn is_too_far_ahead(self, unix_ms: u64) -> bool {
        self.0 > unix_ms.saturating_add(Self::MAX_AHEAD_MS)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_a_certificate_path_could_not_carry() {
        for good in ["coordinator-1", "a", "0", "eu.west_1-b"] {
            assert_eq!(good.parse::<NodeId>().map(String::from), Ok(good.to_owned()));
        }
        let long = "x".repeat(MAX_ID_LEN + 1);
        for (bad, why) in [
            ("", InvalidId::Empty),
            ("A", InvalidId::Character('A')),
            ("a/b", InvalidId::Character('/')),
            ("ä", InvalidId::Character('ä')),
            ("-a", InvalidId::Edge),
            ("a.", InvalidId::Edge),
            (long.as_str(), InvalidId::TooLong(64)),
        ] {
            assert_eq!(bad.parse::<NodeId>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn an_epoch_never_falls_back_even_when_the_clock_does() {
        assert_eq!(Epoch::next(None, 1_000), Epoch(1_000));
        assert_eq!(Epoch::next(Some(Epoch(500)), 1_000), Epoch(1_000));
        assert_eq!(Epoch::next(Some(Epoch(5_000)), 1_000), Epoch(5_001));
        assert!(!Epoch(Epoch::MAX_AHEAD_MS + 1_000).is_too_far_ahead(1_000));
        assert!(Epoch(Epoch::MAX_AHEAD_MS + 1_001).is_too_far_ahead(1_000));
    }
}
