//! `p2pctl cluster join-token revoke`

use crate::{
    error::{Exit, Outcome},
    output::Output,
    session::Session,
};
use clap::Args;
use p2p_client::Connection;

/// Takes a join token back, so that nobody joins with it any more
///
/// Use it when a token went to the wrong place or is not needed. Nodes that have joined with it stay members;
/// the answer names them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster join-token revoke 0f6c1d3a9b2e4c5d8e7f00112233445a
  p2pctl cluster join-token list")]
pub(crate) struct RevokeArgs {
    /// Id of the token, as `join-token list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs the verb.
pub(crate) async fn run(args: &RevokeArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let revoke = async |connection: &Connection| connection.revoke_join_token(&args.id).await;
    let info = session.at_coordinator(output, revoke).await?;
    if !info.joined.is_empty() {
        output.note(&format!("Joined with it before, and still members: {}", info.joined.join(", ")));
    }
    output.object("JoinToken", &info, |_| format!("revoked {}\n", info.id))?;
    Ok(Exit::Success)
}
