//! `p2pctl cluster`: who is in the cluster and how it fares.

pub(crate) mod nodes;
pub(crate) mod status;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    #[command(alias = "node")]
    Nodes(nodes::NodesArgs),
    Status(status::StatusArgs),
}
