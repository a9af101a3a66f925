//! `p2pctl context current`

use crate::{
    context::Contexts,
    error::{Exit, Failure, Outcome},
    output::Output,
};
use clap::Args;

/// Prints the name of the current context
///
/// Use it in scripts and prompts, or to see which cluster is meant; exit code 3 if there is none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl context current
  p2pctl context current -o json")]
pub(crate) struct CurrentArgs {}

/// Runs the verb.
pub(super) fn run(output: &Output) -> Outcome {
    let contexts = Contexts::load()?;
    let context = contexts.current()?.ok_or_else(|| {
        Failure::not_found("no context is current")
            .hint("`p2pctl context use NAME` chooses one; `p2pctl dev` and `certs generate` make them")
    })?;
    output.object("Context", context, |_| format!("{}\n", context.name))?;
    Ok(Exit::Success)
}
