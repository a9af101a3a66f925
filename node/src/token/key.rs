//! Public keys of token signers.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Serialize;
use std::fmt;
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519},
    prelude::FromDer as _,
    x509::SubjectPublicKeyInfo,
};

/// A public key as `/.well-known/jwks.json` shows it (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    kid: String,
    #[serde(rename = "use")]
    purpose: &'static str,
    alg: &'static str,
}

/// A key that verifies tokens, bound to the one algorithm that fits its kind.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
    jwk: Jwk,
}

impl VerifyingKey {
    /// Reads a DER SubjectPublicKeyInfo: Ed25519 (RFC 8410) or ECDSA P-256; `None` for any other kind.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let raw: &[u8] = spki.subject_public_key.as_ref();
        if !rest.is_empty() {
            return None;
        }
        let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (algorithm, key, mut jwk) = if spki.algorithm.algorithm == OID_SIG_ED25519 && raw.len() == 32 {
            let jwk = jwk("OKP", "Ed25519", text(raw), None, "EdDSA");
            (Algorithm::EdDSA, DecodingKey::from_ed_der(raw), jwk)
        } else if spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
            // An uncompressed point (SEC 1 § 2.3.3).
            let [4, point @ ..] = raw else { return None };
            let (x, y) = point.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
            (
                Algorithm::ES256,
                DecodingKey::from_ec_der(raw),
                jwk("EC", "P-256", text(x), Some(text(y)), "ES256"),
            )
        } else {
            return None;
        };
        jwk.kid = thumbprint(&jwk);
        Some(Self { algorithm, key, jwk })
    }

    /// Its RFC 7638 thumbprint: the `kid` of its tokens.
    pub fn kid(&self) -> &str {
        &self.jwk.kid
    }

    /// The key as others may read it.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// Whether tokens of this key carry `alg`.
    pub(super) fn is_for(&self, alg: &str) -> bool {
        self.jwk.alg == alg
    }

    /// Whether `signature`, in base64url, is this key's over `signed`.
    pub(super) fn verify(&self, signed: &str, signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.key, self.algorithm)
            .is_ok_and(|holds| holds)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.jwk.kid).finish()
    }
}

fn jwk(kty: &'static str, crv: &'static str, x: String, y: Option<String>, alg: &'static str) -> Jwk {
    Jwk { kty, crv, x, y, kid: String::new(), purpose: "sig", alg }
}

/// RFC 7638 § 3: SHA-256 of the required members, in order, without spaces.
fn thumbprint(jwk: &Jwk) -> String {
    let y = jwk.y.as_ref().map_or_else(String::new, |y| format!(r#","y":"{y}""#));
    let members = format!(r#"{{"crv":"{}","kty":"{}","x":"{}"{y}}}"#, jwk.crv, jwk.kty, jwk.x);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData as _;

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        // RFC 8037 appendix A.3.
        let raw = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let prefix = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        let key = VerifyingKey::from_spki(&[prefix.as_slice(), &raw].concat()).unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(key.is_for("EdDSA") && !key.is_for("ES256"));
    }

    #[test]
    fn only_the_two_kinds_of_keys_verify_tokens() {
        let spki = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
        assert!(VerifyingKey::from_spki(&spki(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap().is_for("ES256"));
        assert!(VerifyingKey::from_spki(&spki(&rcgen::PKCS_ECDSA_P384_SHA384)).is_none());
        let ed = spki(&rcgen::PKCS_ED25519);
        assert!(VerifyingKey::from_spki(&[ed.as_slice(), &[0]].concat()).is_none(), "trailing bytes");
        assert!(VerifyingKey::from_spki(b"").is_none());
    }
}
