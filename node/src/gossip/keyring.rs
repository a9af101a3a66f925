//! Cryptography of records, with this node's identity.

use crate::{
    identity::{IdentityStore, PeerCertificate, Trust, TrustError, bans::Bans},
    schema::sha256,
};
use bytes::Bytes;
use p2p_core::record::{Keyring, Signer};
use rustls_pki_types::UnixTime;
use std::{sync::Arc, time::Duration};

/// Signs with the node's present key and verifies against its present trust.
#[derive(Clone, Debug)]
pub struct NodeKeyring(pub Arc<IdentityStore>);

impl Keyring for NodeKeyring {
    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        sha256(bytes)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.current().sign(message)
    }

    fn verify(&self, chain: &[Bytes], message: &[u8], signature: &[u8]) -> Result<Signer, String> {
        let trust = self.0.current().trust();
        signer(trust.verify_signed(chain, message, signature, UnixTime::now()))
    }

    fn verify_at(
        &self,
        chain: &[Bytes],
        message: &[u8],
        signature: &[u8],
        unix_s: u64,
    ) -> Result<Signer, String> {
        let trust = self.0.current().trust();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(unix_s));
        let verified = match trust.verify_signed(chain, message, signature, at) {
            // What counts of an evicted coordinator's own words is decided from all words together, the same at every
            // node in whatever order they come. What its CA issued to others stays out.
            Err(TrustError::Banned(_)) if names_only_its_holder(chain, trust.bans()) => {
                let all = Trust::new(trust.cluster_id().clone(), trust.roots().to_vec());
                all.map_err(|error| error.to_string())?.verify_signed(chain, message, signature, at)
            }
            verified => verified,
        };
        signer(verified)
    }
}

fn signer(verified: Result<PeerCertificate, TrustError>) -> Result<Signer, String> {
    let certificate = verified.map_err(|error| error.to_string())?;
    Ok(Signer {
        expires_at: i64::try_from(certificate.not_after.as_secs()).unwrap_or(i64::MAX),
        id: certificate.spiffe,
        grant: certificate.grant,
    })
}

/// Whether every banned node that a chain names is the holder of its leaf.
fn names_only_its_holder(chain: &[Bytes], bans: &Bans) -> bool {
    PeerCertificate::parse_chain(chain).is_ok_and(|certificate| {
        let mut banned = certificate.vouchers.iter().filter(|voucher| bans.contains(voucher));
        banned.all(|voucher| *voucher == certificate.spiffe.name)
    })
}
