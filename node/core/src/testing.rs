//! What the tests of this crate share: names, records, and a keyring without cryptography.

use crate::{
    ClusterId, Epoch, Grant, Moment, NodeId, Role, SpiffeId,
    membership::{Identity, Life},
    record::{Keyring, OwnRecords, Signer},
};
use bytes::Bytes;
use p2p_proto::v1::{NodeRecord, ServiceRecord};
use std::time::Duration;

/// The time on every test's wall clock when its virtual time starts.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

pub(crate) fn cluster() -> ClusterId {
    "test".parse().expect("a cluster id")
}

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().expect("a node id")
}

pub(crate) fn at_ms(ms: u64) -> Moment {
    Moment::at(Duration::from_millis(ms))
}

/// A life of `name` that started `epoch` ms after the tests' start and listens on `port`.
pub(crate) fn life(name: &str, epoch: u64, port: u16) -> Identity {
    let (epoch, address) = (Epoch(START_MS + epoch), ([127, 0, 0, 1], port).into());
    Life { node: node(name), epoch, generation: 0, instance: port.into(), address }.into()
}

/// Stands for a certificate: the SPIFFE id, then one granted glob per line; without any, all are granted.
pub(crate) fn certificate(id: &str, globs: &[&str]) -> Bytes {
    [&[id], globs].concat().join("\n").into()
}

/// Records of `owner` as a worker that provides `services`.
pub(crate) fn records(owner: &NodeId, services: &[&str]) -> OwnRecords {
    let id = SpiffeId::new(cluster(), Role::Worker, owner.clone()).to_string();
    OwnRecords {
        node: NodeRecord { certificate_chain: vec![certificate(&id, &[])], ..NodeRecord::default() },
        services: services
            .iter()
            .map(|name| ServiceRecord { name: (*name).to_owned(), ..ServiceRecord::default() })
            .collect(),
    }
}

/// Hashes and "signs" with FNV-1a: as good as cryptography for tests, where nobody searches collisions.
pub(crate) struct TestKeyring {
    /// In whose name it signs.
    pub(crate) owner: NodeId,
}

impl TestKeyring {
    pub(crate) fn of(owner: &NodeId) -> Self {
        Self { owner: owner.clone() }
    }
}

fn fnv(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0; 32];
    let mut lane: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| *part) {
        lane = (lane ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for slot in hash.chunks_mut(8) {
        slot.copy_from_slice(&lane.to_le_bytes());
        lane = lane.wrapping_mul(0x0100_0000_01b3) ^ 0xa5;
    }
    hash
}

impl Keyring for TestKeyring {
    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        fnv(&[bytes])
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        fnv(&[b"the key of ", self.owner.as_str().as_bytes(), message]).to_vec()
    }

    fn verify(&self, chain: &[Bytes], message: &[u8], signature: &[u8]) -> Result<Signer, String> {
        let leaf = chain.first().ok_or("no certificate")?;
        let text = std::str::from_utf8(leaf).map_err(|error| error.to_string())?;
        let mut lines = text.lines();
        let id: SpiffeId = lines.next().unwrap_or_default().parse().map_err(|_| "no SPIFFE id".to_owned())?;
        let globs: Vec<String> = lines.map(str::to_owned).collect();
        let grant = match globs.is_empty() {
            true => None,
            false => Some(Grant::parse(&globs).map_err(|error| error.to_string())?),
        };
        if Self::of(&id.name).sign(message) != signature {
            return Err("the signature does not match".into());
        }
        Ok(Signer { id, grant, expires_at: i64::MAX })
    }

    fn verify_at(
        &self,
        chain: &[Bytes],
        message: &[u8],
        signature: &[u8],
        _unix_s: u64,
    ) -> Result<Signer, String> {
        self.verify(chain, message, signature)
    }
}
