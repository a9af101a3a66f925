use super::*;
use p2p_core::{
    Epoch, Role, SpiffeId,
    gossip::MemberView,
    membership::Rtt,
    record::{RecordView, Signer},
};
use p2p_proto::v1::{
    Idempotency, MemberState, NodeRecord, ServiceMethod, ServiceRecord, ServiceState, StreamingKind,
};

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

#[test]
fn calls_may_be_repeated_only_if_every_provider_says_so() {
    let registry = Registry::new("c1".parse().expect("a node id"), &Metrics::default());
    let declared = |node: &str, idempotency: Idempotency| {
        let (id, mut member) = member(node, 1);
        for service in Arc::make_mut(&mut member.records).services.values_mut() {
            Arc::make_mut(service).methods[0].idempotency = idempotency.into();
        }
        (id, member)
    };
    let repeatable = |members: [(NodeId, MemberView); 2]| {
        registry.update(Arc::new(View { members: members.into() }));
        let method = registry.resolve("/shop.Orders/Get").expect("known");
        assert_eq!(method.providers.len(), 2);
        method.is_repeatable()
    };
    let (yes, no) = (Idempotency::Idempotent, Idempotency::Unknown);
    assert!(repeatable([declared("w1", yes), declared("w2", yes)]));
    assert!(!repeatable([declared("w1", yes), declared("w2", no)]));
    assert!(!repeatable([declared("w1", no), declared("w2", yes)]));
}

fn in_zone(node: &str, zone: &str) -> (NodeId, MemberView) {
    let (id, mut member) = member(node, 1);
    Arc::make_mut(&mut member.records).node.zone = zone.to_owned();
    (id, member)
}

#[test]
fn providers_in_the_zone_of_this_node_come_first_and_who_is_suspect_or_leaves_is_none() {
    let registry = Registry::new("c1".parse().expect("a node id"), &Metrics::default());
    let (mut suspect, mut leaving) = (in_zone("w4", "east"), in_zone("w5", "east"));
    suspect.1.state = MemberState::Suspect;
    leaving.1.current = false;
    let mut members: std::collections::BTreeMap<_, _> = [
        in_zone("c1", "east"),
        in_zone("w1", "west"),
        in_zone("w2", "east"),
        in_zone("w3", "west"),
        suspect,
        leaving,
    ]
    .into();
    let providers = |members: &std::collections::BTreeMap<NodeId, MemberView>| {
        registry.update(Arc::new(View { members: members.clone() }));
        let method = registry.resolve("/shop.Orders/Get").expect("known");
        let nodes: Vec<String> = method.providers.iter().map(|provider| provider.node.to_string()).collect();
        (nodes.join(" "), method.near)
    };
    assert_eq!(providers(&members), ("w2 w1 w3".to_owned(), 1));
    // Without a zone nobody is nearer than others.
    members.extend([in_zone("c1", ""), in_zone("w3", "")]);
    assert_eq!(providers(&members), ("w1 w2 w3".to_owned(), 0));
}

#[test]
fn what_is_known_of_a_provider_stays_while_it_is_at_one_address() {
    let registry = Registry::new("c1".parse().expect("a node id"), &Metrics::default());
    let update = |port: u16| {
        let (id, mut member) = member("w1", 1);
        member.address = Some(([127, 0, 0, 1], port).into());
        registry.update(Arc::new(View { members: [(id, member)].into() }));
        registry.resolve("/shop.Orders/Get").expect("known").providers[0].clone()
    };
    let provider = update(9);
    assert!(!provider.begin(std::time::Instant::now()));
    assert_eq!(update(9).snapshot().in_flight, 1);
    assert_eq!(update(10).snapshot().in_flight, 0);
    // The services that each node has are counted apart.
    let table = registry.table();
    assert!(!Arc::ptr_eq(&table.nodes[&provider.node], &table.services["shop.Orders"][&provider.node]));
}
