//! What compression saves, and between whom it is used.

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use p2p_core::{
    Epoch, NodeId,
    record::{Keyring as _, OwnRecords},
    wire,
};
use p2p_node::{
    gossip::NodeKeyring,
    identity::{Expected, IdentityFiles, IdentityStore, UnixTime},
};
use p2p_proto::v1::{
    GossipFrame, GossipMessage, Idempotency, MemberState, NodeRecord, OwnerState, OwnerStates, ServiceMethod,
    ServiceRecord, ServiceState, StreamingKind, gossip_message::Kind,
};
use prost::Message as _;
use std::sync::Arc;
use support::{Binary, Certificates, TestNode, sample};

/// The default of `gossip_compression_threshold`.
const THRESHOLD: usize = 1024;

fn identity(certificates: &Certificates, name: &str) -> Arc<IdentityStore> {
    let files = IdentityFiles {
        cert: certificates.path(&format!("{name}_cert.pem")),
        key: certificates.path(&format!("{name}_key.pem")),
        ca_cert: certificates.path("ca_cert.pem"),
        ca_key: certificates.path("ca_key.pem"),
    };
    let node_id = name.parse().expect("an id");
    let expected = Expected { node_id, cluster_id: None, coordinator: false, may_stand_alone: false };
    Arc::new(IdentityStore::load(files, expected, UnixTime::now()).expect("an identity"))
}

/// One of eight services, which have six methods each, as a node publishes it that serves it with reflection.
fn service(index: usize, keyring: &NodeKeyring) -> ServiceRecord {
    const NAMES: [&str; 8] = ["Search", "Orders", "Billing", "Users", "Images", "Mail", "Audit", "Stock"];
    const METHODS: [&str; 6] = ["Get", "List", "Create", "Update", "Delete", "Watch"];
    let name = NAMES[index % NAMES.len()];
    let method = |verb: &&str| ServiceMethod {
        name: format!("{verb}{name}"),
        streaming: StreamingKind::Unary.into(),
        idempotency: Idempotency::Unknown.into(),
    };
    // The same at all who serve it.
    let digest = keyring.digest(name.as_bytes()).to_vec();
    ServiceRecord {
        name: format!("shop.{}.v1.{name}Service", name.to_lowercase()),
        methods: METHODS.iter().map(method).collect(),
        state: ServiceState::Serving.into(),
        descriptor_digest: digest.into(),
        labels: [("team".to_owned(), name.to_lowercase())].into(),
    }
}

/// What the node `name` publishes: its real certificate and signature, and one to three services.
fn state_of(certificates: &Certificates, name: &str, index: usize) -> OwnerState {
    let store = identity(certificates, name);
    let chain = store.current().chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let node = NodeRecord {
        certificate_chain: chain,
        addresses: vec![format!("10.4.{}.{}:8443", index / 20, 11 + index)],
        version: "0.1.0".to_owned(),
        zone: format!("eu-west-1{}", ["a", "b", "c"][index % 3]),
        labels: [("disk".to_owned(), "ssd".to_owned()), ("rack".to_owned(), format!("r{}", index / 10))]
            .into(),
        ..NodeRecord::default()
    };
    let keyring = NodeKeyring(store.clone());
    let services = (0..=index % 3).map(|more| service(index + more, &keyring)).collect();
    let owner: NodeId = name.parse().expect("an id");
    let cluster = store.current().cluster_id().clone();
    let epoch = Epoch(UnixTime::now().as_secs() * 1_000 + index as u64 * 37);
    OwnRecords { node, services }.seal(&cluster, &owner, epoch, 1, &keyring)
}

fn framed(states: Vec<OwnerState>, threshold: Option<usize>) -> GossipFrame {
    let message = GossipMessage { kind: Some(Kind::States(OwnerStates { states, answer: false })) };
    wire::seal(message.encode_to_vec().into(), threshold)
}

/// The share of `states` that compression saves, in percent of the frame without it, and that as a sentence.
fn saving(what: &str, states: &[OwnerState]) -> (f64, String) {
    let (plain, compressed) = (framed(states.to_vec(), None), framed(states.to_vec(), Some(THRESHOLD)));
    let (before, after) = (plain.encoded_len(), compressed.encoded_len());
    let saved = 100.0 * (1.0 - after as f64 / before as f64);
    assert_eq!(wire::open(compressed), wire::open(plain));
    (saved, format!("{what}: {before} bytes, compressed {after}: {saved:.1} % less"))
}

#[test]
fn a_snapshot_of_fifty_nodes_shrinks_by_forty_percent() {
    let names: Vec<String> = (0..50).map(|index| format!("worker-{index:02}")).collect();
    let nodes: Vec<String> = names.iter().map(|name| format!("{name}:worker")).collect();
    let certificates = Certificates::new(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    let states: Vec<OwnerState> =
        names.iter().enumerate().map(|(index, name)| state_of(&certificates, name, index)).collect();
    let (saved, whole) = saving("50 nodes", &states);
    let (_, one) = saving("1 node", &states[2..3]);
    // What does not shrink: keys, signatures, hashes.
    let bare = |state: &OwnerState| {
        let mut state = state.clone();
        let node = &mut state.records[0];
        let mut body = NodeRecord::decode(&*node.body).expect("a node record");
        body.certificate_chain.clear();
        node.body = body.encode_to_vec().into();
        state
    };
    let bare: Vec<OwnerState> = states.iter().map(bare).collect();
    let (_, bare) = saving("50 nodes, certificates left out", &bare);
    println!("{whole}\n{one}\n{bare}");
    assert!(saved >= 40.0, "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_a_choice_of_the_sender() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    // Low enough that the records of one node are compressed.
    let c1 = certificates.config("c1").set("gossip_compression_threshold", "200");
    let c1 = TestNode::start(Binary::Node, c1).await;
    let w1 = certificates.config("w1").seeds(&[&c1.address.to_string()]);
    let w1 = TestNode::start(Binary::Greeter, w1.set("gossip_compression_enabled", "false")).await;
    let (at_c1, at_w1) = (certificates.observer(&c1).await, certificates.observer(&w1).await);
    for observer in [&at_c1, &at_w1] {
        observer.awaits_state("w1", MemberState::Alive).await;
        observer.awaits_state("c1", MemberState::Alive).await;
        observer.awaits_provider("demo.v1.Greeter/SayHello", "w1").await;
    }
    let frames = |direction: &str, encoding: &str| {
        format!(
            "p2p_gossip_frames_total{{direction=\"{direction}\",kind=\"states\",encoding=\"{encoding}\"}}"
        )
    };
    at_c1.awaits_sample(&frames("sent", "lz4"), 1.0).await;
    at_w1.awaits_sample(&frames("received", "lz4"), 1.0).await;
    at_c1.awaits_sample(&frames("received", "plain"), 1.0).await;
    let (c1, w1) = (at_c1.metrics().await, at_w1.metrics().await);
    let bytes = |metrics: &str, what: &str, direction: &str| {
        sample(metrics, &format!("p2p_gossip_{what}_total{{direction=\"{direction}\"}}")).expect("counted")
    };
    assert_eq!(sample(&w1, &frames("sent", "lz4")), Some(0.0));
    assert!(bytes(&c1, "bytes", "sent") < bytes(&c1, "uncompressed_bytes", "sent"), "{c1}");
    assert!(bytes(&w1, "bytes", "received") < bytes(&w1, "uncompressed_bytes", "received"), "{w1}");
    assert_eq!(bytes(&w1, "bytes", "sent"), bytes(&w1, "uncompressed_bytes", "sent"));
    assert_eq!(sample(&c1, "p2p_gossip_interval_seconds"), Some(10.0), "until the first minute is over");
}
