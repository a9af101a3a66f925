//! Certificate signing requests (PKCS #10, RFC 2986): how a new node shows its public key and proves that it
//! has the private half. Nothing else in a request is ever believed.

use super::key;
use p2p_core::NodeId;
use rcgen::{CertificateParams, DnType, KeyPair};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

/// Longest request that is parsed, in bytes.
pub const MAX_CSR_LEN: usize = 8 * 1024;

/// `ecdsa-with-SHA256` (RFC 5758 § 3.2).
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";

/// Why a signing request proves no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCsr {
    /// Longer than [`MAX_CSR_LEN`].
    #[error("the certificate request is longer than {MAX_CSR_LEN} bytes")]
    TooLong,
    /// Not one DER-encoded request.
    #[error("the certificate request is not DER-encoded PKCS #10")]
    Encoding,
    /// Another kind of key, or a signature that the key did not make.
    #[error("the certificate request is not signed by an ECDSA P-256 key of its own")]
    Signature,
}

/// The public key (a DER SubjectPublicKeyInfo) that a request proves to have the private half of.
pub fn proven_key(csr: &[u8]) -> Result<Vec<u8>, InvalidCsr> {
    if csr.len() > MAX_CSR_LEN {
        return Err(InvalidCsr::TooLong);
    }
    let (rest, request) = X509CertificationRequest::from_der(csr).map_err(|_| InvalidCsr::Encoding)?;
    if !rest.is_empty() {
        return Err(InvalidCsr::Encoding);
    }
    let info = &request.certification_request_info;
    let public_key = info.subject_pki.raw;
    let signed_so = request.signature_algorithm.algorithm.to_id_string() == ECDSA_SHA256;
    if !signed_so || !key::verify(public_key, info.raw, &request.signature_value.data) {
        return Err(InvalidCsr::Signature);
    }
    Ok(public_key.to_vec())
}

/// A request of `node` for `key`.
pub(super) fn request(node: &NodeId, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node.as_str());
    Ok(params.serialize_request(key)?.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::PublicKeyData as _;

    fn made() -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let csr = request(&"w-1".parse().unwrap(), &key).unwrap();
        (key, csr)
    }

    #[test]
    fn a_request_proves_the_key_that_signed_it() {
        let (key, csr) = made();
        assert_eq!(proven_key(&csr), Ok(key.subject_public_key_info()));
        assert_eq!(proven_key(&[csr.as_slice(), &[0]].concat()), Err(InvalidCsr::Encoding));
        assert_eq!(proven_key(&vec![0; MAX_CSR_LEN + 1]), Err(InvalidCsr::TooLong));
        assert_eq!(proven_key(b""), Err(InvalidCsr::Encoding));
    }

    #[test]
    fn a_request_with_somebody_elses_key_is_refused() {
        let ((a, csr), (b, _)) = (made(), made());
        let at = |needle: &[u8]| csr.windows(needle.len()).position(|window| window == needle).unwrap();
        let (own, other) = (a.subject_public_key_info(), b.subject_public_key_info());
        let mut swapped = csr.clone();
        swapped.splice(at(&own)..at(&own) + own.len(), other);
        assert_eq!(proven_key(&swapped), Err(InvalidCsr::Signature));
    }

    #[test]
    fn only_p256_keys_are_accepted() {
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let csr = request(&"w-1".parse().unwrap(), &key).unwrap();
            assert_eq!(proven_key(&csr), Err(InvalidCsr::Signature), "{algorithm:?}");
        }
    }

    static CSR: std::sync::LazyLock<(Vec<u8>, Vec<u8>)> = std::sync::LazyLock::new(|| {
        let (key, csr) = made();
        (key.subject_public_key_info(), csr)
    });

    proptest! {
        // The parser forgives some bits outside of what is signed, such as the tag of the algorithm.
        #[test]
        fn a_damaged_request_never_proves_another_key(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
            let (key, mut csr) = CSR.clone();
            let at = at.index(csr.len());
            csr[at] ^= flip;
            if let Ok(proven) = proven_key(&csr) {
                prop_assert_eq!(proven, key);
            }
        }

        #[test]
        fn arbitrary_bytes_prove_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(proven_key(&bytes).is_err());
        }
    }
}
