//! `p2pctl rpc`: the methods that the cluster serves.
//!
//! | module | what it holds |
//! |---|---|
//! | [`list`] [`describe`] [`call`] [`broadcast`] | the verbs |
//! | [`payload`] | requests from the command line, a file or stdin |
//! | [`proto_text`] | a schema as `.proto` text, with its comments |
//! | [`example`] | a request in JSON to start from |

pub(crate) mod broadcast;
pub(crate) mod call;
pub(crate) mod describe;
mod example;
pub(crate) mod list;
mod payload;
mod proto_text;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum RpcCommand {
    List(list::ListArgs),
    Describe(describe::DescribeArgs),
    Call(call::CallArgs),
    Broadcast(broadcast::BroadcastArgs),
}
