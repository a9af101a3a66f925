//! Evicting a node and readmitting it, at a coordinator.

use super::{Parts, coordinator_only};
use crate::{
    error::{Fault, Reason},
    gossip::{Receipt, Revoke},
};
use p2p_core::{NodeId, Principal};
use p2p_proto::v1::{EvictRequest, EvictResponse, ReadmitRequest, ReadmitResponse, RevocationSegments};

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
    let receipt = say(parts, &node, false).await?;
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
    })
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
    let receipt = say(parts, &node, true).await?;
    if parts.revocations.is_evicted(&node) {
        return Err(Fault::new(
            Reason::Precondition,
            format!("{} cannot readmit {node}: it is evicted itself", parts.facts.node),
        ));
    }
    tracing::warn!(member = %node, %by, "node readmitted");
    Ok(ReadmitResponse { nodes: receipt.nodes, enforced: receipt.enforced, missing: names(&receipt.missing) })
}

async fn say(parts: &Parts, node: &NodeId, readmit: bool) -> Result<Receipt, Fault> {
    let segments = parts.gossip.revoke(Revoke::Node { node: node.clone(), readmit }).await?;
    // What that closed here; nothing else is enforced.
    let closed = parts.gossip.enforce(parts.facts.node.clone(), RevocationSegments::default()).await?;
    Ok(parts.gossip.enforce_everywhere(&segments, node, closed.connections_closed).await)
}

fn node_id(text: &str) -> Result<NodeId, Fault> {
    text.parse().map_err(|error| Fault::new(Reason::InvalidArgument, format!("node_id: {error}")))
}

fn names(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}
