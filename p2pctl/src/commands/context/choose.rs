//! `p2pctl context use`

use crate::{
    context::Contexts,
    error::{Exit, Outcome},
    output::Output,
};
use clap::Args;

/// Makes a context the current one
///
/// Use it to change between clusters. Flags and the environment still come first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl context use dev
  p2pctl --context dev cluster nodes")]
pub(crate) struct UseArgs {
    /// Name of the context, as `p2pctl context list` shows it
    name: String,
}

/// Runs the verb.
pub(super) fn run(args: &UseArgs, output: &Output) -> Outcome {
    let mut contexts = Contexts::load()?;
    let context = contexts.find(&args.name)?.clone();
    if contexts.current.as_ref() != Some(&args.name) {
        contexts.current = Some(args.name.clone());
        contexts.save()?;
    }
    output.object("Context", &context, |_| format!("{} is the current context\n", context.name))?;
    Ok(Exit::Success)
}
