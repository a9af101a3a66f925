//! Cryptography of records, with this node's identity.

use crate::{identity::IdentityStore, schema::sha256};
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
        self.verify_at(chain, message, signature, UnixTime::now().as_secs())
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
        let certificate =
            trust.verify_signed(chain, message, signature, at).map_err(|error| error.to_string())?;
        Ok(Signer {
            expires_at: i64::try_from(certificate.not_after.as_secs()).unwrap_or(i64::MAX),
            id: certificate.spiffe,
            grant: certificate.grant,
        })
    }
}
