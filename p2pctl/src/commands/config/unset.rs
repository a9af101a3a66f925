//! `p2pctl config unset`

use super::{
    file::key,
    set::{EditOptions, change},
};
use crate::{error::Outcome, output::Output, session::Session};
use clap::Args;

/// Takes a setting out of a configuration file, so that its default holds
///
/// Use it to return to a default, which `p2pctl config show-defaults KEY` explains. The setting's lines go, with a
/// comment that stands on them; the comments above it stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config unset rate_limit_rpc_requests --file config/worker.yaml \\
      --dry-run
  p2pctl config unset rate_limit_rpc_requests --file config/worker.yaml")]
pub(crate) struct UnsetArgs {
    /// Key to take out
    #[arg(value_name = "KEY")]
    name: String,
    #[command(flatten)]
    pub(super) edit: EditOptions,
}

/// Runs the verb.
pub(super) async fn run(args: &UnsetArgs, session: &Session<'_>, output: &Output) -> Outcome {
    change(&args.edit, key(&args.name)?, None, session, output).await
}
