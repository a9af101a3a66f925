//! `p2pctl context`: which cluster is meant where no flag says so. What contexts are stands in [`crate::context`].

mod choose;
mod current;
mod list;

use crate::{error::Outcome, output::Output};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    Use(choose::UseArgs),
    List(list::ListArgs),
    Current(current::CurrentArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &ContextCommand, output: &Output) -> Outcome {
    match command {
        ContextCommand::Use(args) => choose::run(args, output),
        ContextCommand::List(_) => list::run(output),
        ContextCommand::Current(_) => current::run(output),
    }
}
