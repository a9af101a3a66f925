//! Which services a certificate may provide to the cluster.
//!
//! The grant is a private X.509 extension, not critical (other software must still accept the certificate):
//!
//! ```text
//! OID    1.2.840.113556.1.8000.2554.28022.36474.15594.16448.43535.1512418.8209325.1
//! value  SEQUENCE SIZE (0..64) OF UTF8String (SIZE (1..256))
//! ```
//!
//! `.3` of the same arc names the coordinator in the certificate of its CA ([`authority`](super::authority)),
//! `.4` those who issued a leaf's predecessors ([`vouchers`](super::vouchers)).
//!
//! The arc is the one that Microsoft publishes for OIDs derived from a UUID, here
//! 6d768e7a-3cea-4040-aa0f-1713e27d43ad; unlike 2.25 its numbers fit 64 bits, which DER libraries expect.
//! Without the extension a certificate may provide everything but the reserved `p2p.` and `grpc.` names,
//! and no glob ever grants those.

use p2p_core::grant::{Grant, InvalidGrant};
use x509_parser::asn1_rs::{FromDer, ToDer, Utf8String};

/// The OID under which our private X.509 objects live: `.1` the grant, `.2` the key purpose of token signers,
/// `.3` the coordinator whose CA it is, `.4` the coordinators who issued a leaf's predecessors.
const ARC: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8000, 2554, 28_022, 36_474, 15_594, 16_448, 43_535, 1_512_418, 8_209_325];

/// The extension's OID.
pub(super) fn grant_oid() -> Vec<u64> {
    ARC.into_iter().chain([1]).collect()
}

/// The extended key usage of token signers. It is theirs alone, so every TLS stack refuses their
/// certificates.
pub(super) fn token_signing_oid() -> Vec<u64> {
    ARC.into_iter().chain([2]).collect()
}

/// The extension in the certificate of a coordinator's CA: a UTF8String, the coordinator's node id.
pub(super) fn coordinator_oid() -> Vec<u64> {
    ARC.into_iter().chain([3]).collect()
}

/// The extension in a leaf: the coordinators whose CAs issued those that it replaced.
pub(super) fn vouchers_oid() -> Vec<u64> {
    ARC.into_iter().chain([4]).collect()
}

/// [`token_signing_oid`] as the content octets of its DER.
pub(super) const TOKEN_SIGNING_OID_DER: &[u8] = &[
    42, 134, 72, 134, 247, 20, 1, 190, 64, 147, 122, 129, 218, 118, 130, 156, 122, 249, 106, 129, 128, 64,
    130, 212, 15, 220, 167, 98, 131, 245, 135, 45, 2,
];

/// The extension's value.
pub(super) fn to_der(grant: &Grant) -> Result<Vec<u8>, InvalidGrant> {
    let globs = grant.globs();
    let strings: Vec<Utf8String<'_>> = globs.iter().map(|glob| Utf8String::from(glob.as_str())).collect();
    strings.to_der_vec().map_err(|_| InvalidGrant::Encoding)
}

/// Reads the extension's value.
pub(super) fn from_der(der: &[u8]) -> Result<Grant, InvalidGrant> {
    let (rest, strings) = <Vec<Utf8String<'_>> as FromDer<'_, x509_parser::asn1_rs::Error>>::from_der(der)
        .map_err(|_| InvalidGrant::Encoding)?;
    if !rest.is_empty() {
        return Err(InvalidGrant::Encoding);
    }
    let globs: Vec<String> = strings.iter().map(Utf8String::string).collect();
    Grant::parse(&globs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_core::grant::MAX_GLOBS;

    #[test]
    fn the_extension_reads_back_as_it_was_written() {
        for globs in [vec![], vec!["*".to_owned()], vec![format!("{}.*", "x".repeat(200)); MAX_GLOBS]] {
            let grant = Grant::parse(&globs).unwrap();
            let der = to_der(&grant).unwrap();
            assert_eq!(from_der(&der), Ok(grant));
            let trailing = [der.as_slice(), &[0]].concat();
            assert_eq!(from_der(&trailing), Err(InvalidGrant::Encoding));
        }
        let demo = to_der(&Grant::parse(&["d.*"]).unwrap()).unwrap();
        assert_eq!(demo, [0x30, 5, 0x0c, 3, b'd', b'.', b'*']);
        assert_eq!(from_der(&[0x0c, 1, b'*']), Err(InvalidGrant::Encoding));
    }
}
