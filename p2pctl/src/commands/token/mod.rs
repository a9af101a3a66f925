//! `p2pctl token`: access tokens, which let their bearer call what their scope says.

pub(crate) mod inspect;
pub(crate) mod issue;

use crate::{error::Outcome, output::Output, session::Session};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Issue(issue::IssueArgs),
    Inspect(inspect::InspectArgs),
}

/// Runs the verb.
pub(crate) async fn run(command: &TokenCommand, session: &Session<'_>, output: &Output) -> Outcome {
    match command {
        TokenCommand::Issue(args) => issue::run(args, session, output).await,
        TokenCommand::Inspect(args) => inspect::run(args, session, output).await,
    }
}
