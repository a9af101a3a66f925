//! `p2pctl token`: access tokens, which let their bearer call what their scope says.

pub(crate) mod inspect;
pub(crate) mod issue;
pub(crate) mod revocations;
pub(crate) mod revoke;

use crate::{error::Outcome, output::Output, session::Session};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Issue(issue::IssueArgs),
    Inspect(inspect::InspectArgs),
    Revoke(revoke::RevokeArgs),
    #[command(alias = "revocation")]
    Revocations(revocations::RevocationsArgs),
}

/// Runs the verb.
pub(crate) async fn run(command: &TokenCommand, session: &Session<'_>, output: &Output) -> Outcome {
    match command {
        TokenCommand::Issue(args) => issue::run(args, session, output).await,
        TokenCommand::Inspect(args) => inspect::run(args, session, output).await,
        TokenCommand::Revoke(args) => revoke::run(args, session, output).await,
        TokenCommand::Revocations(_) => revocations::run(session, output).await,
    }
}
