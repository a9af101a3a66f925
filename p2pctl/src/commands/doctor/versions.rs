//! Nodes of different releases.

use super::Finding;
use p2p_proto::v1::{MemberState, NodeInfo};
use std::collections::BTreeMap;

/// A finding if the nodes that are there are not all of one release.
pub(super) fn mixed(nodes: &[NodeInfo]) -> Option<Finding> {
    let mut releases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.state() == MemberState::Alive && !node.evicted) {
        releases.entry(&node.version).or_default().push(&node.node_id);
    }
    let shown: Vec<String> =
        releases.iter().map(|(release, nodes)| format!("{release} ({})", nodes.join(", "))).collect();
    (releases.len() > 1).then(|| Finding {
        check: "version_skew".into(),
        subject: "the cluster".to_owned(),
        what: format!("its nodes are of different releases: {}", shown.join(", ")),
        why: "they work together, for as long as an upgrade takes; what only the newer one can is not there everywhere".into(),
        mend: "finish the upgrade, one node after another as docs/upgrading.md has it; `p2pctl cluster nodes -o wide` shows who is \
               left"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_with_the_nodes_that_run_them() {
        let node = |id: &str, version: &str, state: MemberState| NodeInfo {
            node_id: id.into(),
            version: version.into(),
            state: state.into(),
            ..NodeInfo::default()
        };
        let old = node("c-1", "0.1.0", MemberState::Alive);
        let gone = node("w-9", "0.0.9", MemberState::Left);
        assert_eq!(mixed(&[old.clone(), gone.clone()]), None);
        let new = [node("w-1", "0.2.0", MemberState::Alive), node("w-2", "0.2.0", MemberState::Alive)];
        let found = mixed(&[&[old, gone], new.as_slice()].concat()).expect("two releases");
        assert_eq!(found.what, "its nodes are of different releases: 0.1.0 (c-1), 0.2.0 (w-1, w-2)");
    }
}
