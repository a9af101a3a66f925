//! `p2pctl services`: what the cluster provides, and the processes behind one node that provide it.

pub(crate) mod deregister;
pub(crate) mod list;
pub(crate) mod register;
pub(crate) mod state;

use crate::{error::Outcome, output::Output, session::Session};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ServicesCommand {
    List(list::ListArgs),
    Register(register::RegisterArgs),
    Deregister(deregister::DeregisterArgs),
    Enable(state::EnableArgs),
    Disable(state::DisableArgs),
    Drain(state::DrainArgs),
}

/// Runs the verb.
pub(crate) async fn run(command: &ServicesCommand, session: &Session<'_>, output: &Output) -> Outcome {
    match command {
        ServicesCommand::List(_) => list::run(session, output).await,
        ServicesCommand::Register(args) => register::run(args, session, output).await,
        ServicesCommand::Deregister(args) => deregister::run(args, session, output).await,
        ServicesCommand::Enable(args) => state::enable(args, session, output).await,
        ServicesCommand::Disable(args) => state::disable(args, session, output).await,
        ServicesCommand::Drain(args) => state::drain(args, session, output).await,
    }
}

/// A service name, with what it looks like.
fn name(text: &str) -> Result<p2p_core::ServiceName, String> {
    text.parse().map_err(|_| "write package.Service, as in shop.Orders".to_owned())
}
