use super::{super::model::Update, *};
use p2p_proto::{
    Timestamp,
    v1::{DurationCount, Evidence, GetMetricsResponse, NodeTraffic, ServiceProvider},
};
use std::time::{Duration, Instant};

/// Nodes of these states, each with so many calls and errors within a second, and bytes of gossip.
fn model(nodes: &[(&str, MemberState, u64)]) -> Model {
    let (mut model, start) = (Model::default(), Instant::now());
    let info = |(at, (id, state, _)): (usize, &(&str, MemberState, u64))| NodeInfo {
        node_id: (*id).to_owned(),
        state: (*state).into(),
        role: "worker".to_owned(),
        zone: format!("Zone-{id}"),
        labels: [("disk".to_owned(), id.to_uppercase())].into(),
        cert_expires_at: Some(Timestamp { seconds: 1_000 - at as i64, nanos: 0 }),
        ..NodeInfo::default()
    };
    model.update(Update::Members(nodes.iter().enumerate().map(info).collect()));
    for (id, _, calls) in nodes {
        for (second, calls) in [(0, 0), (1, *calls)] {
            let traffic = NodeTraffic {
                calls,
                calls_failed: calls,
                gossip_sent_bytes: calls,
                unary_durations: vec![DurationCount { below_microseconds: 16 + calls, calls }],
                ..NodeTraffic::default()
            };
            let metrics = GetMetricsResponse { traffic: Some(traffic), ..GetMetricsResponse::default() };
            let at = start + Duration::from_secs(second);
            model.update(Update::Node { node: (*id).to_owned(), at, answer: Ok(Box::new(metrics)) });
        }
    }
    model
}

fn ids(model: &Model, by: SortBy, reversed: bool, filter: &str) -> String {
    let nodes = nodes(model, by, reversed, filter).into_iter();
    nodes.map(|node| node.node_id.as_str()).collect::<Vec<_>>().join(" ")
}

use MemberState::{Alive, Down, Left, Suspect};

#[test]
fn those_in_trouble_come_first() {
    let model = model(&[("a", Left, 0), ("b", Alive, 0), ("c", Suspect, 0), ("d", Down, 0), ("e", Alive, 0)]);
    assert_eq!(ids(&model, SortBy::State, false, ""), "d c b e a");
    assert_eq!(ids(&model, SortBy::State, true, ""), "a b e c d");
}

#[test]
fn figures_sort_from_the_largest_and_ends_from_the_soonest() {
    let model = model(&[("a", Alive, 5), ("b", Alive, 50), ("c", Alive, 0), ("d", Alive, 5)]);
    for by in [SortBy::Calls, SortBy::Errors, SortBy::Gossip, SortBy::P99] {
        assert_eq!(ids(&model, by, false, ""), "b a d c", "{by:?}");
    }
    assert_eq!(ids(&model, SortBy::Cert, false, ""), "d c b a");
    assert_eq!(ids(&model, SortBy::Node, true, ""), "d c b a");
}

#[test]
fn a_filter_means_any_word_of_a_node_whatever_its_case() {
    let model = model(&[("a", Alive, 0), ("b", Down, 0)]);
    for (filter, found) in
        [("", "b a"), ("ZONE-A", "a"), ("disk=b", "b"), ("down", "b"), ("Work", "b a"), ("nothing", "")]
    {
        assert_eq!(ids(&model, SortBy::State, false, filter), found, "{filter}");
    }
}

#[test]
fn services_that_do_not_serve_come_first_and_are_found_by_their_providers() {
    let service = |name: &str, state: ServiceState, provider: &str| ServiceInfo {
        name: name.to_owned(),
        state: state.into(),
        providers: vec![ServiceProvider { node_id: provider.to_owned(), ..ServiceProvider::default() }],
        ..ServiceInfo::default()
    };
    let mut model = Model::default();
    model.update(Update::Services(vec![
        service("a.A", ServiceState::Disabled, "w1"),
        service("b.B", ServiceState::Serving, "w2"),
        service("c.C", ServiceState::NotServing, "w1"),
    ]));
    let names = |filter| services(&model, filter).into_iter().map(|s| s.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names(""), ["c.C", "b.B", "a.A"]);
    assert_eq!(names("W2"), ["b.B"]);
    assert_eq!(names("disabled"), ["a.A"]);
}

#[test]
fn events_are_filtered_by_node_and_reason_and_gaps_always_show() {
    let mut model = Model::default();
    let event = |node: &str, reason: &str| {
        Update::Event(Evidence { node_id: node.to_owned(), reason: reason.to_owned(), ..Evidence::default() })
    };
    model.update(event("w1", "it left"));
    model.update(Update::Missed(2));
    model.update(event("w2", "Probe failed"));
    assert_eq!(events(&model, "probe").len(), 2);
    assert_eq!(events(&model, "w1").len(), 2);
    assert_eq!(events(&model, "").len(), 3);
}
