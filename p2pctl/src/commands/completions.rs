//! `p2pctl completions`

use crate::{
    cli::Cli,
    error::{Exit, Outcome},
    output::Output,
};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

/// Prints a script that makes a shell complete verbs and flags
///
/// Use it once for each shell, and again after an update.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl completions bash > ~/.local/share/bash-completion/completions/p2pctl
  p2pctl completions zsh > ~/.zfunc/_p2pctl
  p2pctl completions fish > ~/.config/fish/completions/p2pctl.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell that shall complete
    shell: Shell,
}

/// Runs the verb.
pub(crate) fn run(args: &CompletionsArgs, output: &Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "p2pctl", &mut script);
    output.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
