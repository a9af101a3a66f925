//! On whose word a certificate rests, besides the root's: coordinators with CAs of their own.
//!
//! Whoever's CA issued a certificate stands in the chain behind it. But a worker may renew at another coordinator,
//! and the new certificate no longer shows who took the worker in. So renewal writes the names of all coordinators
//! whose CAs issued the certificates before into a private extension (`.4`, not critical):
//!
//! ```text
//! SEQUENCE SIZE (1..32) OF UTF8String, node ids
//! ```
//!
//! The eviction of any of them bans the certificate ([`Bans`](super::Bans)): what a stolen coordinator signed is not
//! made honest by being renewed elsewhere.

use super::certificate::{InvalidCertificate, PeerCertificate, coordinator_of};
use p2p_core::NodeId;
use x509_parser::asn1_rs::{FromDer, ToDer, Utf8String};

/// Most coordinators that the extension names.
pub(super) const MAX_VOUCHERS: usize = 32;

/// The extension's value; `None` where there is nothing to say, or too much.
pub(super) fn to_der(vouchers: &[NodeId]) -> Option<Vec<u8>> {
    if vouchers.is_empty() || vouchers.len() > MAX_VOUCHERS {
        return None;
    }
    let names: Vec<Utf8String<'_>> = vouchers.iter().map(|node| Utf8String::from(node.as_str())).collect();
    names.to_der_vec().ok()
}

/// Reads the extension's value.
pub(super) fn from_der(der: &[u8]) -> Result<Vec<NodeId>, InvalidCertificate> {
    let invalid = InvalidCertificate::Vouchers;
    let (rest, names) = <Vec<Utf8String<'_>> as FromDer<'_, x509_parser::asn1_rs::Error>>::from_der(der)
        .map_err(|_| invalid.clone())?;
    if !rest.is_empty() || names.is_empty() || names.len() > MAX_VOUCHERS {
        return Err(invalid);
    }
    names.iter().map(|name| name.string().parse().map_err(|_| invalid.clone())).collect()
}

impl PeerCertificate {
    /// Reads a chain (leaf first, DER) that was verified before: the leaf, with the coordinators whose CAs are behind it.
    pub fn parse_chain<C: AsRef<[u8]>>(chain: &[C]) -> Result<Self, InvalidCertificate> {
        let (leaf, issuers) = chain.split_first().ok_or(InvalidCertificate::Encoding)?;
        let leaf = Self::parse(leaf.as_ref())?;
        Ok(leaf.issued_by(issuers.iter().filter_map(|der| coordinator_of(der.as_ref()))))
    }

    pub(super) fn issued_by(mut self, coordinators: impl IntoIterator<Item = NodeId>) -> Self {
        for node in coordinators {
            if !self.vouchers.contains(&node) {
                self.vouchers.push(node);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_reads_back_as_it_was_written() {
        let names: Vec<NodeId> = (0..MAX_VOUCHERS).map(|n| format!("c-{n}").parse().unwrap()).collect();
        for names in [&names[..1], &names[..]] {
            let der = to_der(names).unwrap();
            assert_eq!(from_der(&der).as_deref(), Ok(names));
            assert_eq!(from_der(&[der.as_slice(), &[0]].concat()), Err(InvalidCertificate::Vouchers));
        }
        assert_eq!(to_der(&[]), None);
        assert_eq!(from_der(&[0x30, 0]), Err(InvalidCertificate::Vouchers));
        assert_eq!(from_der(&[0x30, 3, 0x0c, 1, b'/']), Err(InvalidCertificate::Vouchers));
    }
}
