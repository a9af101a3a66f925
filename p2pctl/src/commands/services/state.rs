//! `p2pctl services enable`, `disable` and `drain`

use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, printable, progress::waiting},
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_core::ServiceName;
use p2p_proto::v1::{ServiceInfo, ServiceState};
use std::time::{Duration, Instant};

/// Pause between two looks at a service that drains.
const LOOK: Duration = Duration::from_millis(500);
/// A service is drained once nothing was in flight for so long: nodes that have not heard of it yet may still call.
const QUIET: Duration = Duration::from_secs(1);

/// Lets a service of the node that is asked take calls again
///
/// Use it after `disable` or `drain`. It lasts across restarts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl services enable shop.Orders")]
pub(crate) struct EnableArgs {
    /// Full name of the service
    #[arg(value_parser = super::name)]
    name: ServiceName,
}

/// Lets a service of the node that is asked take no calls, at once
///
/// Use it to take a broken process out. Calls in flight go on; those that are on their way are served elsewhere or
/// refused. It lasts across restarts, until `enable`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl services disable shop.Orders
  p2pctl services enable shop.Orders")]
pub(crate) struct DisableArgs {
    /// Full name of the service
    #[arg(value_parser = super::name)]
    name: ServiceName,
}

/// Sends new calls elsewhere and waits until those in flight have finished
///
/// Use it before the process is stopped or replaced: no call fails. It lasts across restarts, until `enable`. Exit code
/// 8 says that calls were still in flight when the wait was over; the service drains on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl services drain shop.Orders
  p2pctl services drain shop.Orders --wait 2m
  p2pctl services enable shop.Orders")]
pub(crate) struct DrainArgs {
    /// Full name of the service
    #[arg(value_parser = super::name)]
    name: ServiceName,
    /// How long to wait; 0 not at all
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = p2p_node::config::parse_duration)]
    wait: Duration,
}

/// Runs `enable`.
pub(crate) async fn enable(args: &EnableArgs, session: &Session<'_>, output: &Output) -> Outcome {
    set(&args.name, ServiceState::Serving, session, output).await
}

/// Runs `disable`.
pub(crate) async fn disable(args: &DisableArgs, session: &Session<'_>, output: &Output) -> Outcome {
    set(&args.name, ServiceState::Disabled, session, output).await
}

async fn set(name: &ServiceName, to: ServiceState, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let service = connection.set_service_state(name.as_str(), to).await;
    show(&service.map_err(|error| session.call_failure(&error))?, output)?;
    Ok(Exit::Success)
}

/// Runs `drain`.
pub(crate) async fn drain(args: &DrainArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let name = args.name.as_str();
    let set = connection.set_service_state(name, ServiceState::Draining).await;
    let mut service = set.map_err(|error| session.call_failure(&error))?;
    let settles = settles(args, &connection, session, &mut service);
    let settled = waiting("waiting for the calls in flight", settles).await?;
    show(&service, output)?;
    if settled {
        return Ok(Exit::Success);
    }
    Err(Failure::timed_out(format!(
        "{} calls of {name} were still in flight after {}s; it drains on, and `p2pctl services list` shows them",
        in_flight(&service),
        args.wait.as_secs()
    )))
}

/// Waits until nothing of the service has been in flight for a while; returns whether that came in time. `service` is what
/// was seen last.
async fn settles(
    args: &DrainArgs,
    connection: &Connection,
    session: &Session<'_>,
    service: &mut ServiceInfo,
) -> Result<bool, Failure> {
    let (began, mut quiet) = (Instant::now(), Instant::now());
    while !args.wait.is_zero() && quiet.elapsed() < QUIET {
        if began.elapsed() >= args.wait {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
        *service = look(connection, args.name.as_str(), session).await?;
        if in_flight(service) > 0 {
            quiet = Instant::now();
        }
    }
    Ok(true)
}

async fn look(connection: &Connection, name: &str, session: &Session<'_>) -> Result<ServiceInfo, Failure> {
    let services = connection.list_services().await.map_err(|error| session.call_failure(&error))?;
    let found = services.into_iter().find(|service| service.name == name);
    found.ok_or_else(|| Failure::not_found(format!("{name} was deregistered meanwhile")))
}

fn in_flight(service: &ServiceInfo) -> u32 {
    service.upstream.as_ref().map_or(0, |upstream| upstream.in_flight)
}

fn show(service: &ServiceInfo, output: &Output) -> Result<(), Failure> {
    output.object("Service", service, |_| told(service))
}

fn told(service: &ServiceInfo) -> String {
    let Some(upstream) = &service.upstream else { return format!("{}\n", service.name) };
    let problem = match (upstream.state(), upstream.problem.as_str()) {
        (ServiceState::Serving, problem) if !problem.is_empty() => {
            format!("; it does not serve yet: {problem}")
        }
        _ => String::new(),
    };
    let calls = upstream.in_flight;
    let line =
        format!("{} is {} here, {calls} calls in flight{problem}\n", service.name, upstream.state().word());
    printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::UpstreamInfo;

    #[test]
    fn a_line_tells_what_was_asked_for_and_what_keeps_it_from_that() {
        let service = |state: ServiceState, problem: &str| ServiceInfo {
            name: "shop.Orders".into(),
            upstream: Some(UpstreamInfo {
                state: state.into(),
                problem: problem.into(),
                in_flight: 2,
                ..UpstreamInfo::default()
            }),
            ..ServiceInfo::default()
        };
        assert_eq!(
            told(&service(ServiceState::Draining, "it is gone")),
            "shop.Orders is draining here, 2 calls in flight\n"
        );
        assert_eq!(
            told(&service(ServiceState::Serving, "it is gone")),
            "shop.Orders is serving here, 2 calls in flight; it does not serve yet: it is gone\n"
        );
    }
}
