//! A node's private key: ECDSA P-256 (FIPS 186-5), the only kind that nodes use.

use super::tls;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use std::fmt;

/// Why a PEM file does not hold a usable private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No unencrypted private key in the PEM text.
    #[error("it holds no unencrypted PEM private key")]
    Missing,
    /// A key of another kind.
    #[error("its key is not ECDSA P-256")]
    Kind,
}

/// A private key that signs. Its `Debug` shows nothing of it.
pub struct NodeKey {
    der: PrivateKeyDer<'static>,
    pair: EcdsaKeyPair,
}

impl NodeKey {
    /// Reads the first private key of a PEM text (PKCS#8 or SEC1).
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidKey> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| InvalidKey::Missing)?;
        let bytes = der.secret_der();
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes)
            .map_err(|_| InvalidKey::Kind)?;
        Ok(Self { der, pair })
    }

    /// The key as rustls takes it.
    pub(super) fn to_der(&self) -> PrivateKeyDer<'static> {
        self.der.clone_key()
    }

    /// An ECDSA P-256 signature with SHA-256 over `message`, ASN.1 DER (RFC 3279 § 2.2.3).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature
            .expect("signing needs memory and randomness, and aws-lc aborts without them")
            .as_ref()
            .to_vec()
    }

    /// Whether it is the key of a certificate with this SubjectPublicKeyInfo.
    pub fn belongs_to(&self, public_key: &[u8]) -> bool {
        key_matches(&self.der, public_key)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

/// Whether `key`, of any kind, has the public half `public_key` (a DER SubjectPublicKeyInfo).
pub(super) fn key_matches(key: &PrivateKeyDer<'static>, public_key: &[u8]) -> bool {
    let Ok(signing) = tls::provider().key_provider.load_private_key(key.clone_key()) else { return false };
    signing.public_key().is_some_and(|own| own.as_ref() == public_key)
}

/// Whether `signature` is [`NodeKey::sign`]'s over `message` by the key with this SubjectPublicKeyInfo.
pub(super) fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;

    #[test]
    fn a_signature_verifies_with_its_own_key_and_message_only() {
        let (a, b) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let key = NodeKey::from_pem(a.serialize_pem().as_bytes()).unwrap();
        let (own, other) = (a.subject_public_key_info(), b.subject_public_key_info());
        let signature = key.sign(b"manifest");
        assert!(key.belongs_to(&own) && !key.belongs_to(&other));
        assert!(verify(&own, b"manifest", &signature));
        assert!(!verify(&own, b"another", &signature));
        assert!(!verify(&other, b"manifest", &signature));
        assert!(!verify(b"", b"manifest", &signature));
        assert_eq!(format!("{key:?}"), "NodeKey(..)");
    }

    #[test]
    fn only_p256_keys_are_node_keys() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let error = NodeKey::from_pem(p384.serialize_pem().as_bytes()).unwrap_err();
        assert_eq!(error, InvalidKey::Kind);
        assert_eq!(NodeKey::from_pem(b"no key").unwrap_err(), InvalidKey::Missing);
    }
}
