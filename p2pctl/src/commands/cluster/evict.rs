//! `p2pctl cluster evict`

use crate::{
    error::{Exit, Outcome},
    output::{Output, confirm},
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_proto::v1::EvictResponse;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Bans a node from the cluster, whatever certificate it holds, and waits until the others enforce it
///
/// Use it when a host was stolen, or is gone for good and must not come back. Its connections are closed, what it
/// publishes is refused, and it can neither join nor renew its certificate until `cluster readmit`. A coordinator that
/// is evicted takes what it signed with it. Ask any node; the act is done at a coordinator.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster evict worker-3
  p2pctl cluster evict worker-9 --unknown
  p2pctl cluster evict worker-3 -o json | jq .missing

Exit code 6 means that not all members that are alive have confirmed it; they learn of it by gossip.")]
pub(crate) struct EvictArgs {
    /// Id of the node, as `cluster nodes` shows it
    #[arg(value_name = "NODE")]
    node: p2p_core::NodeId,
    /// Ban the id even if no node of that name is known
    #[arg(long)]
    unknown: bool,
    /// Do not ask; without a terminal nothing is asked anyway
    #[arg(long, short)]
    yes: bool,
}

/// What scripts see.
#[derive(Serialize)]
struct Evicted<'a> {
    node_id: &'a str,
    already: bool,
    nodes: u32,
    enforced: u32,
    connections_closed: u32,
    missing: &'a [String],
    banned_with: &'a [String],
    may_hold_root: bool,
    seconds: f64,
}

/// Runs the verb.
pub(crate) async fn run(args: &EvictArgs, session: &Session<'_>, output: &Output) -> Outcome {
    confirm(&format!("Evict {}, with all that it has signed, until it is readmitted?", args.node), args.yes)?;
    let started = Instant::now();
    let evict = async |connection: &Connection| connection.evict(args.node.as_str(), args.unknown).await;
    let receipt = session.at_coordinator(output, evict).await?;
    let took = started.elapsed();
    let body = Evicted {
        node_id: args.node.as_str(),
        already: receipt.already,
        nodes: receipt.nodes,
        enforced: receipt.enforced,
        connections_closed: receipt.connections_closed,
        missing: &receipt.missing,
        banned_with: &receipt.banned_with,
        may_hold_root: receipt.may_hold_root,
        seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
    };
    output.object("Eviction", &body, |_| sentence(args.node.as_str(), &receipt, took))?;
    Ok(if receipt.missing.is_empty() { Exit::Success } else { Exit::Degraded })
}

fn sentence(node: &str, receipt: &EvictResponse, took: Duration) -> String {
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    let mut text = format!(
        "evicted {node}{}: enforced on {} of {} node{} in {:.1} s, {} connection{} closed\n",
        if receipt.already { " (it was already)" } else { "" },
        receipt.enforced,
        receipt.nodes,
        plural(receipt.nodes),
        took.as_secs_f64(),
        receipt.connections_closed,
        plural(receipt.connections_closed),
    );
    if !receipt.missing.is_empty() {
        text.push_str(&format!(
            "no answer from {}; they learn of it by gossip\n",
            receipt.missing.join(", ")
        ));
    }
    if !receipt.banned_with.is_empty() {
        text.push_str(&format!(
            "banned with it, because it vouched for them: {}; move their certificates away and join them again (`join-token create --replace`)\n",
            receipt.banned_with.join(", ")
        ));
    }
    if receipt.may_hold_root {
        text.push_str(&format!(
            "if {node} has the key of the root, what it signs for others is believed until `p2pctl ca rotate`\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipt_is_a_sentence() {
        let all =
            EvictResponse { nodes: 15, enforced: 15, connections_closed: 3, ..EvictResponse::default() };
        assert_eq!(
            sentence("worker-3", &all, Duration::from_millis(210)),
            "evicted worker-3: enforced on 15 of 15 nodes in 0.2 s, 3 connections closed\n"
        );
        let some = EvictResponse {
            nodes: 2,
            enforced: 1,
            connections_closed: 1,
            missing: vec!["w1".into()],
            already: true,
            banned_with: vec!["w4".into(), "w5".into()],
            may_hold_root: true,
        };
        assert_eq!(
            sentence("w3", &some, Duration::from_secs(5)),
            "evicted w3 (it was already): enforced on 1 of 2 nodes in 5.0 s, 1 connection closed\n\
             no answer from w1; they learn of it by gossip\n\
             banned with it, because it vouched for them: w4, w5; move their certificates away and join them again (`join-token create --replace`)\n\
             if w3 has the key of the root, what it signs for others is believed until `p2pctl ca rotate`\n"
        );
    }
}
