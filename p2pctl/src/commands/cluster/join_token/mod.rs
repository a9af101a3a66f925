//! `p2pctl cluster join-token`: the tokens with which hosts join the cluster.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;

use crate::{error::Outcome, output::Output, session::Session};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Revoke(revoke::RevokeArgs),
}

/// Runs the verb.
pub(crate) async fn run(command: &JoinTokenCommand, session: &Session<'_>, output: &Output) -> Outcome {
    match command {
        JoinTokenCommand::Create(args) => create::run(args, session, output).await,
        JoinTokenCommand::List(_) => list::run(session, output).await,
        JoinTokenCommand::Revoke(args) => revoke::run(args, session, output).await,
    }
}
