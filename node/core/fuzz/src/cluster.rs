//! An engine for an input to be fed to, and a keyring that believes everything.

use bytes::Bytes;
use p2p_core::{
    ClusterId, Epoch, Moment, NodeId, SpiffeId,
    gossip::{Effect, Engine, EngineConfig, IntervalSettings, Peer, hello, negotiate},
    membership::{Identity, Life},
    record::{Keyring, OwnRecords, Signer},
};
use p2p_proto::v1::{NodeRecord, ServiceMethod, ServiceRecord, gossip_message::Kind};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{sync::Arc, time::Duration};

/// The wall clock when the engine's clock starts.
pub(crate) const START_MS: u64 = 1_800_000_000_000;
/// Most effects and events taken after one input: an engine that goes on for ever would hang here.
const DRAINED_MAX: usize = 100_000;

/// Believes every signature, and finds every record to be the one that its manifest lists: what lies behind those
/// checks is to be reached. Who signed is what the certificate says, which is a SPIFFE id as text.
struct Gullible;

impl Keyring for Gullible {
    fn digest(&self, _bytes: &[u8]) -> [u8; 32] {
        [7; 32]
    }

    fn sign(&self, _message: &[u8]) -> Vec<u8> {
        b"signed".to_vec()
    }

    fn verify(&self, chain: &[Bytes], _message: &[u8], _signature: &[u8]) -> Result<Signer, String> {
        let leaf = chain.first().ok_or("no certificate")?;
        let text = std::str::from_utf8(leaf).map_err(|error| error.to_string())?;
        let id: SpiffeId = text.parse().map_err(|_| "no SPIFFE id".to_owned())?;
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
}

pub(crate) fn cluster() -> ClusterId {
    "test".parse().expect("an id")
}

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().expect("an id")
}

pub(crate) fn at_ms(ms: u64) -> Moment {
    Moment::at(Duration::from_millis(ms))
}

pub(crate) fn life(name: &str, port: u16) -> Identity {
    let address = ([127, 0, 0, 1], port).into();
    Life { node: node(name), epoch: Epoch(START_MS), generation: 0, instance: port.into(), address }.into()
}

/// What stands for the certificate of the node `name`.
pub(crate) fn certificate(name: &str) -> Bytes {
    format!("spiffe://test/coordinator/{name}").into()
}

/// An engine of the node `name` that has published a service.
pub(crate) fn engine(name: &str, port: u16) -> Engine {
    let interval = IntervalSettings::fixed(Duration::from_secs(1));
    let config = EngineConfig { cluster: cluster(), interval };
    let rng = StdRng::seed_from_u64(port.into());
    let mut engine = Engine::new(config, life(name, port), START_MS, Arc::new(Gullible), rng);
    let record = NodeRecord { certificate_chain: vec![certificate(name)], ..NodeRecord::default() };
    let method = ServiceMethod { name: "Get".to_owned(), ..ServiceMethod::default() };
    let service = ServiceRecord {
        name: "demo.v1.Greeter".to_owned(),
        methods: vec![method],
        ..ServiceRecord::default()
    };
    let records = OwnRecords { node: record, services: vec![service] };
    engine.publish(at_ms(0), START_MS, records).expect("good records");
    engine.tick(at_ms(0));
    engine.settle(at_ms(0), START_MS);
    engine
}

/// What `from` says about itself to `to`.
pub(crate) fn introduced(from: &Engine, to: &Engine) -> Peer {
    let sent = hello(&cluster(), from.own(), None);
    negotiate(&cluster(), &to.own().node, &from.own().node, &sent).expect("they fit")
}

/// Takes all that the engine wants done and told; returns the messages to be sent.
pub(crate) fn drain(engine: &mut Engine) -> Vec<Kind> {
    let effects: Vec<Effect> = std::iter::from_fn(|| engine.next_effect()).take(DRAINED_MAX).collect();
    let events = std::iter::from_fn(|| engine.next_event()).take(DRAINED_MAX).count();
    assert!(effects.len() < DRAINED_MAX && events < DRAINED_MAX, "the engine has no end of things to do");
    let sent = |effect| match effect {
        Effect::Send { message, .. } => Some(message),
        Effect::DialSeeds | Effect::PersistEpoch(_) | Effect::Revoked { .. } | Effect::Banned(_) => None,
    };
    effects.into_iter().filter_map(sent).collect()
}
