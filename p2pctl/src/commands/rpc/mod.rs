//! `p2pctl rpc`: the methods that the cluster serves.
//!
//! | module | what it holds |
//! |---|---|
//! | [`list`] [`describe`] [`call`] | the verbs |
//! | [`proto_text`] | a schema as `.proto` text, with its comments |
//! | [`example`] | a request in JSON to start from |

pub(crate) mod call;
pub(crate) mod describe;
mod example;
pub(crate) mod list;
mod proto_text;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum RpcCommand {
    List(list::ListArgs),
    Describe(describe::DescribeArgs),
    Call(call::CallArgs),
}
