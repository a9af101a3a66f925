//! Join tokens: one line of text that lets a new node find its coordinator, recognise it and be recognised.
//!
//! ```text
//! p2pjoin1.<base64url without padding of p2p.v1.JoinTokenContent>
//! ```
//!
//! The text is parsed strictly: whatever a coordinator would not have written is refused, so one token has
//! one text. It carries a secret, and so nothing here prints or repeats it.

use crate::config::SeedAddress;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p2p_core::{ClusterId, NodeId, Role};
use p2p_proto::v1::JoinTokenContent;
use prost::Message as _;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// Longest text of a join token, in bytes.
pub const MAX_TOKEN_LEN: usize = 4096;
/// Most pins of one token.
pub const MAX_PINS: usize = 8;
/// Most coordinator addresses of one token.
pub const MAX_ADDRESSES: usize = 8;

/// What every token of this version starts with.
const PREFIX: &str = "p2pjoin1.";

/// Why a text is not a join token. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJoinToken {
    /// Another kind of text.
    #[error(
        "it does not start with {PREFIX}; copy the whole line that `p2pctl cluster join-token create` printed"
    )]
    Prefix,
    /// Made by a release that writes another version.
    #[error("it is of another version than {PREFIX} and was made by another release of p2p-node")]
    Version,
    /// Longer than [`MAX_TOKEN_LEN`].
    #[error("it is longer than {MAX_TOKEN_LEN} characters")]
    TooLong,
    /// Not what a coordinator writes.
    #[error(
        "it is damaged or cut short; copy the whole line that `p2pctl cluster join-token create` printed"
    )]
    Damaged,
}

/// The public name of a join token: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId([u8; 16]);

/// A text that is not a token's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a join token's id has 32 hexadecimal digits; `p2pctl cluster join-token list` shows them")]
pub struct InvalidTokenId;

impl TokenId {
    /// An id with these bits.
    pub fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;
    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        let digits =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(InvalidTokenId)?;
        Ok(Self(bits.to_be_bytes()))
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidTokenId;
    fn try_from(text: String) -> Result<Self, InvalidTokenId> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.to_string()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What proves that a token's holder was given it: 256 random bits. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// A secret with these bits.
    pub fn new(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// Its bits: for the request that redeems the token, and for hashing.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// SHA-256 of a root's SubjectPublicKeyInfo (DER; as RFC 7469 § 2.4 pins keys).
pub type RootPin = [u8; 32];

/// A join token as its holder has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Its public name.
    pub id: TokenId,
    /// Its secret.
    pub secret: TokenSecret,
    /// The roots that the coordinator's certificate must chain to, 1 to [`MAX_PINS`].
    pub pins: Vec<RootPin>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Where the coordinator answers, 1 to [`MAX_ADDRESSES`].
    pub coordinators: Vec<SeedAddress>,
    /// The role that the certificate will grant; a node's.
    pub role: Role,
    /// The only node that may redeem it.
    pub node: Option<NodeId>,
    /// Last second in which it can be redeemed.
    pub expires: UnixTime,
}

impl JoinToken {
    /// The text that a person passes on. Whoever reads it can join the cluster: never log it.
    pub fn to_text(&self) -> String {
        let content = JoinTokenContent {
            id: self.id.as_bytes().to_vec().into(),
            secret: self.secret.expose().to_vec().into(),
            root_pins: self.pins.iter().map(|pin| pin.to_vec().into()).collect(),
            cluster_id: self.cluster.to_string(),
            coordinator_addresses: self.coordinators.iter().map(ToString::to_string).collect(),
            role: self.role.to_string(),
            node_id: self.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            expires_at: self.expires.as_secs(),
        };
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content.encode_to_vec()))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;
    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        if text.len() > MAX_TOKEN_LEN {
            return Err(InvalidJoinToken::TooLong);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(match text.starts_with("p2pjoin") {
            true => InvalidJoinToken::Version,
            false => InvalidJoinToken::Prefix,
        })?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidJoinToken::Damaged)?;
        let content = JoinTokenContent::decode(bytes.as_slice()).map_err(|_| InvalidJoinToken::Damaged)?;
        let token = read(&content).ok_or(InvalidJoinToken::Damaged)?;
        // Fields out of order, twice, unknown or spelt otherwise: nobody of ours wrote that.
        if token.to_text() == text { Ok(token) } else { Err(InvalidJoinToken::Damaged) }
    }
}

fn read(content: &JoinTokenContent) -> Option<JoinToken> {
    let within = |count: usize, most: usize| (1..=most).contains(&count);
    let (pins, addresses) = (&content.root_pins, &content.coordinator_addresses);
    if !within(pins.len(), MAX_PINS) || !within(addresses.len(), MAX_ADDRESSES) || content.expires_at == 0 {
        return None;
    }
    Some(JoinToken {
        id: TokenId(content.id.as_ref().try_into().ok()?),
        secret: TokenSecret(content.secret.as_ref().try_into().ok()?),
        pins: pins.iter().map(|pin| pin.as_ref().try_into().ok()).collect::<Option<_>>()?,
        cluster: content.cluster_id.parse().ok()?,
        coordinators: addresses.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?,
        role: content.role.parse().ok().filter(|role: &Role| role.is_node())?,
        node: match content.node_id.as_str() {
            "" => None,
            id => Some(id.parse().ok()?),
        },
        expires: UnixTime::since_unix_epoch(Duration::from_secs(content.expires_at)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId::new([7; 16]),
            secret: TokenSecret::new([9; 32]),
            pins: vec![[1; 32], [2; 32]],
            cluster: "shop".parse().unwrap(),
            coordinators: vec!["10.0.0.1:8001".parse().unwrap(), "c.example:8001".parse().unwrap()],
            role: Role::Worker,
            node: Some("worker-1".parse().unwrap()),
            expires: UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000)),
        }
    }

    fn encoded(change: impl FnOnce(&mut JoinTokenContent)) -> String {
        let text = token().to_text();
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
        let mut content = JoinTokenContent::decode(bytes.as_slice()).unwrap();
        change(&mut content);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content.encode_to_vec()))
    }

    #[test]
    fn a_token_is_one_line_and_reads_back() {
        let text = token().to_text();
        assert!(text.starts_with("p2pjoin1.") && !text.contains(char::is_whitespace));
        assert_eq!(text.parse::<JoinToken>(), Ok(token()));
        let free = JoinToken { node: None, ..token() };
        assert_eq!(free.to_text().parse::<JoinToken>(), Ok(free));
    }

    #[test]
    fn a_token_cut_short_or_changed_does_not_parse() {
        let text = token().to_text();
        for len in 0..text.len() {
            assert!(text[..len].parse::<JoinToken>().is_err(), "{len} characters");
        }
        for extra in ["A", "=", " ", "\n", "AAAA"] {
            assert!(format!("{text}{extra}").parse::<JoinToken>().is_err(), "{extra:?}");
        }
        assert_eq!("p2pjoin2.AAAA".parse::<JoinToken>(), Err(InvalidJoinToken::Version));
        assert_eq!("ey.J.hbGc".parse::<JoinToken>(), Err(InvalidJoinToken::Prefix));
        let long = format!("{PREFIX}{}", "A".repeat(MAX_TOKEN_LEN));
        assert_eq!(long.parse::<JoinToken>(), Err(InvalidJoinToken::TooLong));
    }

    #[test]
    fn every_part_must_be_there_and_within_its_bounds() {
        assert!(encoded(|_| {}).parse::<JoinToken>().is_ok());
        let wrong: [fn(&mut JoinTokenContent); 12] = [
            |c| c.id = vec![0; 15].into(),
            |c| c.secret = vec![0; 33].into(),
            |c| c.root_pins.clear(),
            |c| c.root_pins = vec![vec![0; 32].into(); MAX_PINS + 1],
            |c| c.root_pins[0] = vec![0; 31].into(),
            |c| c.cluster_id = "A B".into(),
            |c| c.coordinator_addresses.clear(),
            |c| c.coordinator_addresses = vec!["a:1".into(); MAX_ADDRESSES + 1],
            |c| c.coordinator_addresses[0] = "0.0.0.0:1".into(),
            |c| c.role = "admin".into(),
            |c| c.node_id = "../x".into(),
            |c| c.expires_at = 0,
        ];
        for (index, change) in wrong.into_iter().enumerate() {
            assert_eq!(encoded(change).parse::<JoinToken>(), Err(InvalidJoinToken::Damaged), "{index}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("TokenSecret(..)") && !shown.contains("9, 9"), "{shown}");
    }

    #[test]
    fn an_id_reads_as_lower_case_hexadecimal_only() {
        let id = TokenId::new([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(16), &"+b".repeat(16), &"ab".repeat(17)] {
            assert_eq!(bad.parse::<TokenId>(), Err(InvalidTokenId), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }

        #[test]
        fn arbitrary_content_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_text(), text);
            }
        }

        #[test]
        fn any_token_reads_back(
            id: [u8; 16], secret: [u8; 32], pins in proptest::collection::vec(any::<[u8; 32]>(), 1..=MAX_PINS),
            port in 1..=u16::MAX, expires in 1..u64::MAX, bound: bool,
        ) {
            let token = JoinToken {
                id: TokenId::new(id),
                secret: TokenSecret::new(secret),
                pins,
                coordinators: vec![format!("[2001:db8::1]:{port}").parse().unwrap()],
                node: bound.then(|| "n".parse().unwrap()),
                expires: UnixTime::since_unix_epoch(Duration::from_secs(expires)),
                ..token()
            };
            prop_assert_eq!(token.to_text().parse::<JoinToken>(), Ok(token));
        }
    }
}
