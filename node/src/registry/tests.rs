use super::*;
use p2p_core::{
    Epoch, Role, SpiffeId,
    gossip::MemberView,
    membership::Rtt,
    record::{RecordView, Signer},
};
use p2p_proto::v1::{MemberState, NodeRecord, ServiceMethod, ServiceRecord, ServiceState, StreamingKind};

/// An alive member that provides `shop.Orders/Get` with descriptors of which the hash is all `digest`.
fn member(node: &str, digest: u8) -> (NodeId, MemberView) {
    let id: NodeId = node.parse().expect("a node id");
    let method = ServiceMethod {
        name: "Get".to_owned(),
        streaming: StreamingKind::Unary.into(),
        ..ServiceMethod::default()
    };
    let service = ServiceRecord {
        name: "shop.Orders".to_owned(),
        methods: vec![method],
        state: ServiceState::Serving.into(),
        descriptor_digest: vec![digest; 32].into(),
        ..ServiceRecord::default()
    };
    let records = RecordView {
        node: NodeRecord::default(),
        services: [("shop.Orders".parse().expect("a name"), Arc::new(service))].into(),
        not_granted: Vec::new(),
        signer: Signer {
            id: SpiffeId::new("shop".parse().expect("a cluster"), Role::Worker, id.clone()),
            grant: None,
            expires_at: 0,
        },
    };
    let view = MemberView {
        state: MemberState::Alive,
        since_unix_ms: 0,
        epoch: Epoch(1),
        current: true,
        address: Some("127.0.0.1:9".parse().expect("an address")),
        rtt: Rtt::default(),
        records: Arc::new(records),
        evicted: false,
    };
    (id, view)
}

#[test]
fn of_providers_with_different_descriptors_the_first_counts_and_it_is_seen() {
    let metrics = Metrics::default();
    let registry = Registry::new("c1".parse().expect("a node id"), &metrics);
    let disputed = || {
        let text = metrics.encode(crate::telemetry::Format::Prometheus).expect("encodes");
        text.lines().any(|line| line == "p2p_services_disputed 1")
    };
    let digest = || registry.resolve("/shop.Orders/Get").expect("known").descriptor_digest;
    registry.update(Arc::new(View { members: [member("w2", 2), member("w1", 1)].into() }));
    assert_eq!((digest(), disputed()), (Some([1; 32]), true));
    registry.update(Arc::new(View { members: [member("w2", 2)].into() }));
    assert_eq!((digest(), disputed()), (Some([2; 32]), false));
}
