//! A join token as its coordinator keeps it: no secret, and for each use who got which certificate.

use super::refusal::Refusal;
use crate::identity::{PeerCertificate, TokenId, TokenSecret, UnixTime};
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use p2p_core::{NodeId, Role};
use p2p_proto::{
    Timestamp,
    v1::{JoinTokenInfo, JoinTokenState},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes, base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Base64(pub(super) Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;
    fn try_from(text: String) -> Result<Self, base64::DecodeError> {
        STANDARD.decode(text).map(Self)
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> String {
        STANDARD.encode(bytes.0)
    }
}

/// SHA-256.
pub(super) fn hash(bytes: &[u8]) -> Base64 {
    Base64(digest(&SHA256, bytes).as_ref().to_vec())
}

/// One redemption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    /// Who joined.
    pub(super) node_id: NodeId,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub(super) key_sha256: Base64,
    /// What it got, DER.
    pub(super) certificate: Base64,
    /// What goes behind it, and behind `ca_certificate`, up to the root without that, DER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) chain: Vec<Base64>,
    /// The certificate of its own CA, DER, if it joined as a coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca_certificate: Option<Base64>,
    /// Last second of `certificate`, Unix.
    pub(super) not_after: u64,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Use {
    pub(super) fn new(node_id: NodeId, public_key: &[u8], certificate: &[u8], not_after: UnixTime) -> Self {
        Self {
            node_id,
            key_sha256: hash(public_key),
            certificate: Base64(certificate.to_vec()),
            chain: Vec::new(),
            ca_certificate: None,
            not_after: not_after.as_secs(),
            unknown: Map::new(),
        }
    }
}

/// The newest certificate that was issued to a node, whether it joined or renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Newest {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub(super) key_sha256: Base64,
    /// First second, Unix.
    pub(super) not_before: u64,
    /// Last second, Unix.
    pub(super) not_after: u64,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Newest {
    /// What a certificate says.
    pub(super) fn of(certificate: &PeerCertificate) -> Self {
        Self {
            key_sha256: hash(&certificate.public_key),
            not_before: certificate.not_before.as_secs(),
            not_after: certificate.not_after.as_secs(),
            unknown: Map::new(),
        }
    }
}

impl Use {
    /// The same with what goes behind the certificates, and a coordinator's own CA.
    pub(super) fn with_authority<C: AsRef<[u8]>>(self, chain: &[C], ca_certificate: Option<Vec<u8>>) -> Self {
        let chain = chain.iter().map(|der| Base64(der.as_ref().to_vec())).collect();
        Self { chain, ca_certificate: ca_certificate.map(Base64), ..self }
    }
}

/// A join token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// Its public name.
    pub id: TokenId,
    pub(super) secret_sha256: Base64,
    /// What its certificates grant.
    #[serde(with = "role_word")]
    pub role: Role,
    /// The only node that may redeem it.
    pub node_id: Option<NodeId>,
    /// Globs of the services that its certificates may provide; `None` for all but the reserved ones.
    pub grant: Option<Vec<String>>,
    /// Whether it may take over the id of a node whose certificate is still valid.
    pub replace: bool,
    /// How many nodes may redeem it.
    pub uses: u32,
    /// Unix seconds.
    pub created_at: u64,
    /// Last second in which it can be redeemed, Unix.
    pub expires_at: u64,
    /// SPIFFE id of the admin.
    pub created_by: String,
    /// Whether an admin took it back.
    pub revoked: bool,
    pub(super) used: Vec<Use>,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

mod role_word {
    use p2p_core::Role;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(role: &Role, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(role.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Role, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What the holder of a token's secret may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redeemable {
    /// A new certificate.
    Anew,
    /// What this key was given before.
    Again(Box<Use>),
}

/// Compared with the secret of a token that does not exist, so that it costs a stranger the same.
const NOBODYS_HASH: [u8; 32] = [0; 32];

/// Whether `secret` is the token's. Takes the same time whatever it is, also for a token that is unknown.
pub(super) fn check_secret(token: Option<&StoredToken>, secret: &TokenSecret) -> Result<(), Refusal> {
    let expected = token.map_or(NOBODYS_HASH.as_slice(), |token| &token.secret_sha256.0);
    let equal = verify_slices_are_equal(expected, &hash(secret.expose()).0).is_ok();
    match (token, equal) {
        (None, _) => Err(Refusal::Unknown),
        (Some(_), false) => Err(Refusal::WrongSecret),
        (Some(_), true) => Ok(()),
    }
}

impl StoredToken {
    /// How many nodes may still redeem it, whatever its state.
    pub fn uses_left(&self) -> u32 {
        self.uses.saturating_sub(u32::try_from(self.used.len()).unwrap_or(u32::MAX))
    }

    /// Its state at `now`.
    pub fn state(&self, now: UnixTime) -> JoinTokenState {
        if self.revoked {
            JoinTokenState::Revoked
        } else if now.as_secs() > self.expires_at {
            JoinTokenState::Expired
        } else if self.uses_left() == 0 {
            JoinTokenState::Used
        } else {
            JoinTokenState::Valid
        }
    }

    /// What the holder of its secret who proved to have the key `public_key` may have at `now`.
    pub(super) fn redeem(&self, public_key: &[u8], now: UnixTime) -> Result<Redeemable, Refusal> {
        let state = self.state(now);
        if state == JoinTokenState::Revoked {
            return Err(Refusal::Revoked);
        }
        if state == JoinTokenState::Expired {
            return Err(Refusal::Expired);
        }
        let key = hash(public_key);
        if let Some(again) = self.used.iter().find(|used| used.key_sha256 == key) {
            return Ok(Redeemable::Again(Box::new(again.clone())));
        }
        if state == JoinTokenState::Used { Err(Refusal::Used) } else { Ok(Redeemable::Anew) }
    }

    /// As admins see it at `now`.
    pub fn info(&self, now: UnixTime) -> JoinTokenInfo {
        let time =
            |seconds: u64| Some(Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 });
        JoinTokenInfo {
            id: self.id.to_string(),
            role: self.role.to_string(),
            node_id: self.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            state: self.state(now).into(),
            uses_left: self.uses_left(),
            uses: self.uses,
            expires_at: time(self.expires_at),
            created_at: time(self.created_at),
            created_by: self.created_by.clone(),
            allow_services: self.grant.clone().unwrap_or_default(),
            replace: self.replace,
            joined: self.used.iter().map(|used| used.node_id.to_string()).collect(),
        }
    }
}
