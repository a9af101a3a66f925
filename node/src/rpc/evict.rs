//! Evicting a node and readmitting it, at a coordinator.

use super::{Parts, coordinator_only};
use crate::{
    error::{Fault, Reason},
    gossip::{Receipt, Revoke},
    identity::PeerCertificate,
};
use p2p_core::{NodeId, Principal, Role, gossip::MemberView};
use p2p_proto::v1::{
    EvictRequest, EvictResponse, MemberState, ReadmitRequest, ReadmitResponse, RevocationSegments,
};
use std::collections::BTreeSet;

/// Bans a node, and waits until the members that are alive have enforced it.
pub(super) async fn evict(
    parts: &Parts,
    request: EvictRequest,
    by: &Principal,
) -> Result<EvictResponse, Fault> {
    coordinator_only(parts)?;
    let node = node_id(&request.node_id)?;
    if node == parts.facts.node {
        return Err(Fault::new(
            Reason::InvalidArgument,
            format!("{node} is this very coordinator; evict it at another one, or stop it"),
        ));
    }
    if !request.unknown_too && !parts.gossip.view().borrow().members.contains_key(&node) {
        return Err(Fault::new(
            Reason::NotFound,
            format!(
                "no node {node} is known here; `p2pctl cluster nodes` lists them, and --unknown bans any id"
            ),
        ));
    }
    let already = parts.revocations.is_evicted(&node);
    let (banned_with, may_hold_root) = dependants(parts, &node);
    let but = banned_with.iter().chain([&node]).cloned().collect();
    let receipt = say(parts, &node, false, &but).await?;
    if !parts.revocations.is_evicted(&node) {
        return Err(Fault::new(
            Reason::Precondition,
            format!("{} cannot evict {node}: it is evicted itself", parts.facts.node),
        ));
    }
    tracing::warn!(member = %node, %by, enforced = receipt.enforced, nodes = receipt.nodes, "node evicted");
    Ok(EvictResponse {
        nodes: receipt.nodes,
        enforced: receipt.enforced,
        connections_closed: receipt.connections_closed,
        missing: names(&receipt.missing),
        already,
        banned_with: names(&banned_with),
        may_hold_root,
    })
}

/// The members that fall with a coordinator, and whether it may hold the key of a root.
fn dependants(parts: &Parts, node: &NodeId) -> (Vec<NodeId>, bool) {
    let view = parts.gossip.view().borrow().clone();
    let rests_on_it = |member: &MemberView| {
        let certificate = PeerCertificate::parse_chain(&member.records.node.certificate_chain);
        certificate.is_ok_and(|certificate| certificate.vouchers.contains(node))
    };
    let others =
        view.members.iter().filter(|(other, member)| *other != node && member.state != MemberState::Left);
    let with_it = others.filter(|(_, member)| rests_on_it(member)).map(|(other, _)| other.clone()).collect();
    // A coordinator that joined has a CA of its own, and the first certificate from the root: so has its holder.
    let evicted = view.members.get(node);
    let may_hold_root = !parts.enrolment.holds_root()
        && evicted.is_some_and(|member| {
            member.role() == Role::Coordinator && member.records.node.certificate_chain.len() == 1
        });
    (with_it, may_hold_root)
}

/// Lifts a ban.
pub(super) async fn readmit(
    parts: &Parts,
    request: ReadmitRequest,
    by: &Principal,
) -> Result<ReadmitResponse, Fault> {
    coordinator_only(parts)?;
    let node = node_id(&request.node_id)?;
    if !parts.revocations.is_evicted(&node) {
        return Err(Fault::new(Reason::NotFound, format!("node {node} is not evicted")));
    }
    let receipt = say(parts, &node, true, &[node.clone()].into()).await?;
    if parts.revocations.is_evicted(&node) {
        return Err(Fault::new(
            Reason::Precondition,
            format!("{} cannot readmit {node}: it is evicted itself", parts.facts.node),
        ));
    }
    tracing::warn!(member = %node, %by, "node readmitted");
    Ok(ReadmitResponse { nodes: receipt.nodes, enforced: receipt.enforced, missing: names(&receipt.missing) })
}

/// Says it to all members but `but`.
async fn say(parts: &Parts, node: &NodeId, readmit: bool, but: &BTreeSet<NodeId>) -> Result<Receipt, Fault> {
    let segments = parts.gossip.revoke(Revoke::Node { node: node.clone(), readmit }).await?;
    // What that closed here; nothing else is enforced.
    let closed = parts.gossip.enforce(parts.facts.node.clone(), RevocationSegments::default()).await?;
    Ok(parts.gossip.enforce_everywhere(&segments, but, closed.connections_closed).await)
}

fn node_id(text: &str) -> Result<NodeId, Fault> {
    text.parse().map_err(|error| Fault::new(Reason::InvalidArgument, format!("node_id: {error}")))
}

fn names(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}
