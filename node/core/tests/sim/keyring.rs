//! Names, records, and signatures without cryptography: as good as real ones where nobody searches collisions.

use bytes::Bytes;
use p2p_core::{
    ClusterId, NodeId, Role, SpiffeId,
    record::{self, Keyring, OwnRecords, Signer},
};
use p2p_proto::v1::{NodeRecord, OwnerState, ServiceMethod, ServiceRecord};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

pub fn cluster() -> ClusterId {
    "sim".parse().expect("a cluster id")
}

/// Records as a worker with `services` of four methods publishes them; `version` tells two of them apart.
pub fn records(owner: &NodeId, services: usize, version: u64) -> OwnRecords {
    let id = SpiffeId::new(cluster(), Role::Worker, owner.clone()).to_string();
    let method = |name: &str| ServiceMethod { name: name.to_owned(), ..ServiceMethod::default() };
    let service = |number| ServiceRecord {
        name: format!("demo.v1.Service{number}"),
        methods: ["Get", "List", "Put", "Watch"].map(method).into(),
        ..ServiceRecord::default()
    };
    OwnRecords {
        node: NodeRecord {
            certificate_chain: vec![Bytes::from(id)],
            version: version.to_string(),
            ..NodeRecord::default()
        },
        services: (0..services).map(service).collect(),
    }
}

/// States that some node of the cluster has opened: the others need not, and all hold one copy.
pub type Opened = Mutex<HashMap<u64, record::Opened>>;

/// Hashes and "signs" in the name of one node.
pub struct SimKeyring {
    pub own: NodeId,
    pub opened: Arc<Opened>,
}

fn key(state: &OwnerState) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash(&[&state.manifest]);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Eight bytes at a time: multiply and fold, as wyhash does.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut lanes = [PRIME, PRIME.rotate_left(17), PRIME.rotate_left(31), PRIME.rotate_left(47)];
    for part in parts {
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56;
            lanes[0] = fold(lanes[0] ^ word, PRIME);
            lanes[1] = fold(lanes[1].wrapping_add(word), lanes[0] | 1);
        }
        lanes[2] = fold(lanes[2] ^ lanes[0], lanes[1] | 1);
    }
    lanes[3] = fold(lanes[2] ^ lanes[1], PRIME);
    let mut out = [0; 32];
    for (slot, lane) in out.chunks_mut(8).zip(lanes) {
        slot.copy_from_slice(&lane.to_le_bytes());
    }
    out
}

impl Keyring for SimKeyring {
    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        hash(&[bytes])
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        hash(&[b"key", self.own.as_str().as_bytes(), message]).to_vec()
    }

    fn verify(&self, chain: &[Bytes], message: &[u8], signature: &[u8]) -> Result<Signer, String> {
        let leaf = chain.first().ok_or("no certificate")?;
        let text = std::str::from_utf8(leaf).map_err(|error| error.to_string())?;
        let id: SpiffeId = text.parse().map_err(|_| "no SPIFFE id".to_owned())?;
        if hash(&[b"key", id.name.as_str().as_bytes(), message]) != *signature {
            return Err("the signature does not match".to_owned());
        }
        Ok(Signer { id, grant: None, expires_at: i64::MAX })
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

    fn opened(&self, state: &OwnerState) -> Option<record::Opened> {
        let opened = self.opened.lock().expect("nobody panicked");
        opened.get(&key(state)).filter(|known| *known.state == *state).cloned()
    }

    fn keep_opened(&self, opened: &record::Opened) {
        self.opened.lock().expect("nobody panicked").insert(key(&opened.state), opened.clone());
    }
}
