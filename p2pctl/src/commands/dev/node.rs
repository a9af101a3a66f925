//! The hidden verb that a child of `p2pctl dev` runs: the daemon, until its stdin closes.

use crate::{error::Failure, output::Output};
use clap::Args;
use rustix::process::{Signal, getpid, kill_process};
use std::{
    io::{Read as _, stdin},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

/// Runs one node of a local cluster.
#[derive(Debug, Args)]
pub(crate) struct DevNodeArgs {
    #[arg(long)]
    config: PathBuf,
}

/// Runs the verb.
pub(crate) fn run(args: &DevNodeArgs, output: &Output) -> ExitCode {
    if let Err(error) = thread::Builder::new().name("stdin".to_owned()).spawn(stop_with_parent) {
        return output.failure(&Failure::other(format!("cannot watch stdin: {error}")));
    }
    serve(&args.config)
}

/// Waits for the end of stdin, which comes however the parent ends, and asks this process to shut down.
fn stop_with_parent() {
    let mut byte = [0];
    while matches!(stdin().lock().read(&mut byte), Ok(1)) {}
    // Signalling oneself cannot fail.
    kill_process(getpid(), Signal::TERM).ok();
}

/// The daemon; it handles SIGTERM and SIGINT itself.
fn serve(config: &Path) -> ExitCode {
    p2p_node::app::main_with(config)
}
