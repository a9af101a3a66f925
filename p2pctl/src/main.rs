//! `p2pctl`: the admin CLI of P2P Core.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the flags and the tree of verbs, as clap reads them |
//! | [`commands`] | one file per verb: its arguments, its help, what it does |
//! | [`session`] | from the global flags to a connection, and from its errors to advice |
//! | [`output`] | everything that is printed: tables, JSON, YAML, errors |
//! | [`context`] | named sets of what to connect with, and what holds where a command line names nothing |
//! | [`error`] | failures and the exit codes that scripts rely on |
//! | [`files`] | writing files whole or not at all |
//!
//! Data flows one way: `cli` → a verb → `session` → an answer → `output`. Data goes to stdout, everything
//! else to stderr.

mod cli;
mod commands;
mod context;
mod error;
mod files;
mod output;
mod session;

use output::{Format, Output};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && Format::asked_by(std::env::args_os()).is_structured() => {
            let output = Output::new(Format::asked_by(std::env::args_os()));
            return output.failure(&error::Failure::from(error));
        }
        // Plain text: clap's own colours and exit code 2; help goes to stdout with 0.
        Err(error) => error.exit(),
    };
    let output = Output::new(cli.global.output);
    commands::run(cli, &output)
}
