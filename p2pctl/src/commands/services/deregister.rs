//! `p2pctl services deregister`

use crate::{
    error::{Exit, Outcome},
    output::{Output, confirm},
    session::Session,
};
use clap::Args;
use p2p_core::ServiceName;
use serde::Serialize;

/// Forgets a process that was registered with the node that is asked
///
/// Use it when the process is gone for good. Calls in flight finish; to lose none that is on its way either, drain the
/// service first. What the node's configuration lists is removed there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl services drain shop.Orders
  p2pctl services deregister shop.Orders")]
pub(crate) struct DeregisterArgs {
    /// Full name of the service
    #[arg(value_parser = super::name)]
    name: ServiceName,
    /// Do not ask; without a terminal nothing is asked anyway
    #[arg(long, short)]
    yes: bool,
}

/// What scripts see.
#[derive(Serialize)]
struct Deregistered<'a> {
    name: &'a str,
    in_flight: u32,
}

/// Runs the verb.
pub(crate) async fn run(args: &DeregisterArgs, session: &Session<'_>, output: &Output) -> Outcome {
    confirm(&format!("Forget {}? Calls of it go to other nodes, or nowhere.", args.name), args.yes)?;
    let connection = session.connect().await?;
    let deregistered = connection.deregister_service(args.name.as_str()).await;
    let in_flight = deregistered.map_err(|error| session.call_failure(&error))?;
    let body = Deregistered { name: args.name.as_str(), in_flight };
    output.object("Deregistration", &body, |_| {
        format!("deregistered {}; {in_flight} calls still in flight\n", args.name)
    })?;
    Ok(Exit::Success)
}
