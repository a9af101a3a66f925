//! `p2pctl dev`: a local cluster, each node a process of its own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | names, ports and files of the nodes: decided before anything starts |
//! | [`files`] | the directory with its lock, certificates and configurations |
//! | [`process`] | children that never outlive p2pctl |
//! | [`converge`] | waiting until all see all, and the first routed call |
//! | [`screen`] | what the user reads |
//! | [`node`] | the hidden verb that a child runs |

mod converge;
mod files;
pub(crate) mod node;
mod plan;
mod process;
mod screen;

use crate::{
    context::Context,
    error::{Exit, Failure, Outcome},
    output::Output,
};
use clap::Args;
use plan::Plan;
use process::Children;
use std::{path::PathBuf, time::Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The name of the context that leads to the local cluster.
const CONTEXT: &str = "dev";

/// Starts a cluster on this machine: one coordinator and some workers, with certificates
///
/// Shows what runs where and makes one call through it. Use it to try P2P Core, and to develop a service
/// against a real cluster. Everything it needs lies in one directory; Ctrl-C stops all nodes. It
/// writes the context dev, so that p2pctl needs no flags to reach it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl dev
  p2pctl dev --workers 5 --base-port 9001 --dir scratch
  p2pctl dev --once")]
pub(crate) struct DevArgs {
    /// Workers beside the coordinator
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=50))]
    workers: u16,
    /// Port of the coordinator; the workers take those that follow
    #[arg(long, value_name = "PORT", default_value_t = 8001, value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// Directory for certificates, configurations, state and logs
    #[arg(long, default_value = ".p2p-dev")]
    dir: PathBuf,
    /// Start, converge, call, print and stop
    #[arg(long)]
    once: bool,
}

/// Runs the verb.
pub(crate) async fn run(args: &DevArgs, output: &Output) -> Outcome {
    let started = Instant::now();
    let mut stop = Stop::listen()?;
    let plan = Plan::new(&args.dir, args.workers, args.base_port)?;
    let _lock = files::lock(&plan.dir)?;
    process::check_ports(&plan)?;
    files::write(&plan)?;

    let mut children = Children::start(&plan)?;
    let outcome = tokio::select! {
        outcome = serve(args, &plan, &mut children, started, output) => outcome,
        () = stop.asked() => Ok(Exit::Success),
    };
    if !args.once && outcome.is_ok() {
        output.note("Stopping all nodes; once more stops them at once.");
    }
    children.stop(stop.asked()).await;
    outcome
}

/// From the start of the nodes to the end: at once with `--once`, else when no node is left.
async fn serve(
    args: &DevArgs,
    plan: &Plan,
    children: &mut Children,
    started: Instant,
    output: &Output,
) -> Outcome {
    output.note(&format!("Starting {} nodes in {} ...", plan.nodes.len(), plan.dir.display()));
    let call = tokio::select! {
        call = converge::all_see_all(plan) => call?,
        (node, status) = children.exited() => return Err(process::early_exit(plan, &node, &status)),
    };
    let endpoint = plan.coordinator().address.to_string();
    let context = Context::of_admin(CONTEXT, Some(endpoint), &plan.certificate_dir()).filter(|_| !args.once);
    let current = context.and_then(|context| context.remember(output));
    let screen = screen::Screen::new(plan, children, call, started.elapsed(), current);
    output.object("DevCluster", &screen, |output| screen.text(output, args.once))?;
    if args.once {
        return Ok(Exit::Success);
    }
    loop {
        let (node, status) = children.exited().await;
        let left = children.running();
        output.note(&format!(
            "{node} has ended ({status}); {left} nodes still run. {}",
            plan.log_advice(&node)
        ));
        if left == 0 {
            return Err(Failure::other("all nodes have ended"));
        }
    }
}

/// What asks us to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::other(format!("cannot await signals: {error}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
