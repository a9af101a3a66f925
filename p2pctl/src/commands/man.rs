//! `p2pctl man`

use crate::{
    cli::Cli,
    error::{Exit, Failure, Outcome},
    output::Output,
};
use clap::{Args, CommandFactory as _};
use clap_mangen::Man;
use std::{fs, path::PathBuf};

/// Prints the manual page of p2pctl, or writes one for every verb
///
/// Use it where packages are made, with --out. A page says what --help says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl man | man -l -
  p2pctl man --out man1")]
pub(crate) struct ManArgs {
    /// Directory for one page for each verb
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &ManArgs, output: &Output) -> Outcome {
    let mut command = Cli::command();
    let Some(directory) = &args.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(|error| Failure::other(error.to_string()))?;
        output.data(&String::from_utf8_lossy(&page))?;
        return Ok(Exit::Success);
    };
    // Without it the names of further verbs would lack those before them.
    command.build();
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .map_err(|error| Failure::other(format!("cannot write to {}: {error}", directory.display())))?;
    output.data(&format!("{}\n", directory.display()))?;
    Ok(Exit::Success)
}
