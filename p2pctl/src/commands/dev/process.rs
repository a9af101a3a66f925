//! Children that never outlive p2pctl.
//!
//! Each gets a pipe as stdin and ends when it closes, which the kernel does however p2pctl ends. Each is in
//! its own process group, so that Ctrl-C reaches only p2pctl, which then stops all of them in good order.

use super::plan::{Plan, PlannedNode};
use crate::error::{Exit, Failure};
use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use p2p_core::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    future::Future,
    net::TcpListener,
    pin::Pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::{Child, ChildStdin, Command};

/// How long nodes may take to leave after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a log is shown when a node fails.
const TAIL_LINES: usize = 15;

/// Fails with the port's number if one is taken.
pub(super) fn check_ports(plan: &Plan) -> Result<(), Failure> {
    for node in &plan.nodes {
        if let Err(error) = TcpListener::bind(node.address) {
            let message = format!("port {} for {} cannot be used: {error}", node.address.port(), node.id);
            return Err(Failure::other(message).hint("Choose others with --base-port"));
        }
    }
    Ok(())
}

type Exited = Pin<Box<dyn Future<Output = (NodeId, ExitStatus)>>>;

/// The running nodes.
pub(super) struct Children {
    /// Closing one ends its child.
    stdins: Vec<ChildStdin>,
    pids: Vec<(NodeId, u32)>,
    waiting: FuturesUnordered<Exited>,
}

impl Children {
    /// Starts all nodes of the plan. If one cannot be started, those before it end with the failure.
    pub(super) fn start(plan: &Plan) -> Result<Self, Failure> {
        let mut children = Self { stdins: vec![], pids: vec![], waiting: FuturesUnordered::new() };
        for node in &plan.nodes {
            let mut child = spawn(plan, node)?;
            children.stdins.extend(child.stdin.take());
            children.pids.extend(child.id().map(|pid| (node.id.clone(), pid)));
            children.waiting.push(wait(node.id.clone(), child));
        }
        Ok(children)
    }

    /// The next node that ends; never, if none is left.
    pub(super) async fn exited(&mut self) -> (NodeId, String) {
        match self.waiting.next().await {
            Some((node, status)) => {
                self.pids.retain(|(running, _)| *running != node);
                (node, status.to_string())
            }
            None => std::future::pending().await,
        }
    }

    /// How many have not ended.
    pub(super) fn running(&self) -> usize {
        self.waiting.len()
    }

    /// The process id of a node that has not ended.
    pub(super) fn pid(&self, node: &NodeId) -> Option<u32> {
        self.pids.iter().find(|(running, _)| running == node).map(|(_, pid)| *pid)
    }

    /// Asks all nodes to leave, and ends those that have not after [`STOP_TIMEOUT`] or once `hurry` is ready.
    pub(super) async fn stop(mut self, hurry: impl Future<Output = ()>) {
        self.signal(Signal::TERM);
        tokio::select! {
            () = self.all_exited() => return,
            () = tokio::time::sleep(STOP_TIMEOUT) => {}
            () = hurry => {}
        }
        self.signal(Signal::KILL);
        self.all_exited().await;
    }

    async fn all_exited(&mut self) {
        while self.running() > 0 {
            self.exited().await;
        }
    }

    /// Signals the children that were not reaped yet, so their ids cannot have been given to others.
    fn signal(&self, signal: Signal) {
        let pids = self.pids.iter().filter_map(|(_, pid)| Pid::from_raw(i32::try_from(*pid).ok()?));
        for pid in pids {
            // One that is already gone needs no signal.
            kill_process(pid, signal).ok();
        }
    }
}

fn spawn(plan: &Plan, node: &PlannedNode) -> Result<Child, Failure> {
    let program = std::env::current_exe().context("cannot find the p2pctl program itself")?;
    let log_path = plan.log(&node.id);
    let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let errors = log.try_clone().with_context(|| format!("cannot write {}", log_path.display()))?;
    let child = Command::new(program)
        .arg("dev-node")
        .arg("--config")
        .arg(plan.config(&node.id))
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    Ok(child.with_context(|| format!("cannot start {}", node.id))?)
}

fn wait(node: NodeId, mut child: Child) -> Exited {
    Box::pin(async move {
        // Waiting for our own child fails only if somebody else reaped it: then it has ended, too.
        let status = child.wait().await.unwrap_or_default();
        (node, status)
    })
}

/// The failure of a node that ended before the cluster stood, with the end of its log.
pub(super) fn early_exit(plan: &Plan, node: &NodeId, status: &str) -> Failure {
    let message = format!("{node} ended while starting ({status}). {}", plan.log_advice(node));
    with_tail(Failure::other(message), plan, node)
}

/// The failure of nodes that do not find each other in time.
pub(super) fn not_converged(plan: &Plan, node: &NodeId, timeout: Duration, state: &str) -> Failure {
    let message = format!("{node} {state} after {timeout:?}. {}", plan.log_advice(node));
    let mut failure = Failure::timed_out(message);
    failure.exit = Exit::TimedOut;
    with_tail(failure, plan, node)
}

fn with_tail(mut failure: Failure, plan: &Plan, node: &NodeId) -> Failure {
    let log = fs::read(plan.log(node)).unwrap_or_default();
    let tail = tail(&String::from_utf8_lossy(&log));
    if !tail.is_empty() {
        failure.message.push_str(&format!("\n{tail}"));
    }
    failure
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    shown.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_taken_port_is_named_before_anything_starts() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = taken.local_addr().expect("bound").port();
        let plan = Plan::new(Path::new("x"), 1, port - 1).expect("a plan");
        let failure = check_ports(&plan).expect_err("taken");
        assert!(failure.message.contains(&format!("port {port} for worker-1 cannot be used")), "{failure:?}");
        assert!(failure.message.contains("--base-port"), "{failure:?}");
    }

    #[test]
    fn a_log_is_shown_from_its_end() {
        let log: String = (1..=20).map(|line| format!("line {line}\n")).collect();
        let shown = tail(&log);
        assert!(shown.starts_with("  | line 6\n") && shown.ends_with("  | line 20"), "{shown}");
        assert_eq!(tail(""), "");
    }
}
