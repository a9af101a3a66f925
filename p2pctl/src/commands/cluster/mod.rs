//! `p2pctl cluster`: who is in the cluster and how it fares.

pub(crate) mod events;
pub(crate) mod evict;
pub(crate) mod join_token;
pub(crate) mod nodes;
pub(crate) mod readmit;
pub(crate) mod status;
pub(crate) mod why;

pub(crate) mod evidence;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    #[command(alias = "node")]
    Nodes(nodes::NodesArgs),
    Status(status::StatusArgs),
    Why(why::WhyArgs),
    #[command(alias = "event")]
    Events(events::EventsArgs),
    Evict(evict::EvictArgs),
    Readmit(readmit::ReadmitArgs),
    /// Makes, shows and takes back the tokens with which hosts join the cluster
    #[command(alias = "join-tokens", subcommand)]
    #[command(after_help = "Examples:\n  p2pctl cluster join-token create --node worker-3")]
    JoinToken(join_token::JoinTokenCommand),
}
