//! `GET /prometheus/targets`: whom Prometheus is to scrape, as its `http_sd_config` reads it.
//!
//! Who is down stays in the list, so that Prometheus shows it as such (`up == 0`) until its records are purged; who has
//! left or is evicted is not expected to answer, and is no target.

use p2p_core::ClusterId;
use p2p_proto::v1::{MemberState, NodeInfo};
use serde_json::{Value, json};

/// One group for each node: the address that it prefers, and what tells its series from those of others.
pub(super) fn groups(cluster: &ClusterId, nodes: &[NodeInfo]) -> Value {
    let group = |node: &NodeInfo| {
        let address = node.addresses.first()?;
        let labels = json!({
            "cluster_id": cluster.to_string(),
            "node_id": node.node_id,
            "role": node.role,
            "zone": node.zone,
        });
        is_target(node).then(|| json!({"targets": [address], "labels": labels}))
    };
    nodes.iter().filter_map(group).collect()
}

fn is_target(node: &NodeInfo) -> bool {
    match node.state() {
        MemberState::Alive | MemberState::Suspect | MemberState::Down => !node.evicted,
        MemberState::Left | MemberState::Unspecified => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, state: MemberState, addresses: &[&str]) -> NodeInfo {
        NodeInfo {
            node_id: id.to_owned(),
            role: "worker".to_owned(),
            state: state.into(),
            zone: "z1".to_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ..NodeInfo::default()
        }
    }

    fn targets(nodes: &[NodeInfo]) -> Value {
        groups(&"shop".parse().expect("an id"), nodes)
    }

    #[test]
    fn a_node_is_told_by_the_address_that_it_prefers_with_its_labels() {
        let labels = json!({"cluster_id": "shop", "node_id": "a", "role": "worker", "zone": "z1"});
        let expected = json!([{"targets": ["10.0.0.1:8001"], "labels": labels}]);
        assert_eq!(targets(&[node("a", MemberState::Alive, &["10.0.0.1:8001", "[::1]:8001"])]), expected);
    }

    #[test]
    fn who_should_answer_is_a_target_also_while_it_does_not() {
        let evicted = NodeInfo { evicted: true, ..node("e", MemberState::Down, &["h:5"]) };
        let groups = targets(&[
            node("a", MemberState::Alive, &["h:1"]),
            node("b", MemberState::Suspect, &["h:2"]),
            node("c", MemberState::Down, &["h:3"]),
            node("d", MemberState::Left, &["h:4"]),
            evicted,
            node("f", MemberState::Alive, &[]),
        ]);
        let groups = groups.as_array().expect("groups").iter();
        let found: Vec<_> = groups.filter_map(|group| group["targets"][0].as_str()).collect();
        assert_eq!(found, ["h:1", "h:2", "h:3"]);
        assert_eq!(targets(&[]), json!([]), "a list, not null");
    }
}
