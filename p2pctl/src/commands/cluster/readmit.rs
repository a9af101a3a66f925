//! `p2pctl cluster readmit`

use crate::{
    error::{Exit, Outcome},
    output::Output,
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use serde::Serialize;

/// Lifts the ban of an evicted node
///
/// Use it when the node was evicted by mistake, or its host has been set up anew. Certificates that it holds are good
/// again: where its key may be known to others, give the new host another name instead and leave the old one banned.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster readmit worker-3
  p2pctl cluster nodes -o wide")]
pub(crate) struct ReadmitArgs {
    /// Id of the node
    #[arg(value_name = "NODE")]
    node: p2p_core::NodeId,
}

/// What scripts see.
#[derive(Serialize)]
struct Readmitted<'a> {
    node_id: &'a str,
    nodes: u32,
    enforced: u32,
    missing: &'a [String],
}

/// Runs the verb.
pub(crate) async fn run(args: &ReadmitArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let readmit = async |connection: &Connection| connection.readmit(args.node.as_str()).await;
    let receipt = session.at_coordinator(output, readmit).await?;
    let body = Readmitted {
        node_id: args.node.as_str(),
        nodes: receipt.nodes,
        enforced: receipt.enforced,
        missing: &receipt.missing,
    };
    output.object("Readmission", &body, |_| {
        format!("readmitted {}: known to {} of {} nodes\n", args.node, receipt.enforced, receipt.nodes)
    })?;
    Ok(if receipt.missing.is_empty() { Exit::Success } else { Exit::Degraded })
}
