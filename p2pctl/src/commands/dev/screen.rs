//! What the user of `p2pctl dev` reads: what runs, where, that it works, and what to type next.

use super::{
    converge::RoutedCall,
    plan::{CLUSTER_ID, Plan},
    process::Children,
};
use crate::output::{Output, table::Table};
use serde::Serialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Serialize)]
struct RunningNode {
    node_id: String,
    role: &'static str,
    address: SocketAddr,
    pid: Option<u32>,
    log: PathBuf,
}

#[derive(Serialize)]
struct Call {
    method: &'static str,
    entry_node: String,
    served_by: String,
    answer: serde_json::Value,
    #[serde(skip)]
    answer_text: String,
}

/// The cluster that stands.
#[derive(Serialize)]
pub(super) struct Screen {
    cluster_id: &'static str,
    directory: PathBuf,
    ready_after_ms: u64,
    nodes: Vec<RunningNode>,
    call: Call,
    next: Vec<String>,
    #[serde(skip)]
    from: PathBuf,
}

impl Screen {
    /// `current`: whether the context that leads to the cluster is the current one; `None` without one.
    pub(super) fn new(
        plan: &Plan,
        children: &Children,
        call: RoutedCall,
        elapsed: Duration,
        current: Option<bool>,
    ) -> Self {
        let from = std::env::current_dir().unwrap_or_default();
        let nodes = plan.nodes.iter().map(|node| RunningNode {
            node_id: node.id.to_string(),
            role: node.role.as_str(),
            address: node.address,
            pid: children.pid(&node.id),
            log: plan.log(&node.id),
        });
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("p2pctl"));
        Self {
            cluster_id: CLUSTER_ID,
            directory: plan.dir.clone(),
            ready_after_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            nodes: nodes.collect(),
            call: Call {
                method: call.method,
                entry_node: call.entry,
                served_by: call.served_by,
                answer: serde_json::from_str(&call.answer).unwrap_or_default(),
                answer_text: call.answer,
            },
            next: next(plan, &program, &from, current),
            from,
        }
    }

    /// The screen for people; after `--once` there is nothing left to type commands at.
    pub(super) fn text(&self, output: &Output, once: bool) -> String {
        let mut table = Table::new(&["NODE", "ROLE", "ADDRESS", "PID"]);
        for node in &self.nodes {
            table.row(vec![
                node.node_id.as_str().into(),
                node.role.into(),
                node.address.to_string().into(),
                node.pid.map(|pid| pid.to_string()).unwrap_or_default().into(),
            ]);
        }
        let call = &self.call;
        let seconds = Duration::from_millis(self.ready_after_ms).as_secs_f64();
        let mut text = format!(
            "Cluster {} of {} nodes is ready after {seconds:.1} s\n\n{}\nLogs     {}\nCall     {} at {}\nServed   by {}\nAnswer   {}\n",
            self.cluster_id,
            self.nodes.len(),
            output.render(&table),
            shortened(&self.directory.join("NODE/node.log"), &self.from),
            call.method,
            call.entry_node,
            call.served_by,
            call.answer_text,
        );
        if !once {
            text.push_str(&format!("\nTry, in another terminal in {}:\n\n", self.from.display()));
            for command in &self.next {
                text.push_str(&format!("  {command}\n"));
            }
            text.push_str("\nCtrl-C stops all nodes.\n");
        }
        text
    }
}

/// Commands to paste, in this order.
fn next(plan: &Plan, program: &Path, from: &Path, current: Option<bool>) -> Vec<String> {
    let file = |path: PathBuf| quoted(&shortened(&path, from));
    let endpoint = plan.coordinator().address;
    let (ca, cert, key) = (plan.certificate("ca"), plan.certificate("admin"), plan.key("admin"));
    let mut program = shortened(program, from);
    // A bare name would be looked up on PATH.
    if !program.contains('/') {
        program = format!("./{program}");
    }
    let mut program = quoted(&program);
    let mut commands = Vec::new();
    match current {
        Some(true) => {}
        Some(false) => program.push_str(" --context dev"),
        None => {
            commands.push(format!("export P2PCTL_ENDPOINT={endpoint} P2PCTL_CA={}", file(ca.clone())));
            commands.push(format!("export P2PCTL_CERT={} P2PCTL_KEY={}", file(cert), file(key)));
        }
    }
    commands.extend([
        format!("{program} cluster nodes"),
        format!("{program} rpc call p2p.v1.SystemService/GetInfo --node worker-1"),
        format!("curl --cacert {} https://{endpoint}/health", file(ca)),
    ]);
    commands
}

/// The path as seen from `from`, if it lies below.
fn shortened(path: &Path, from: &Path) -> String {
    path.strip_prefix(from).unwrap_or(path).display().to_string()
}

/// The word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_short_and_can_be_pasted() {
        let plan = Plan::new(Path::new("/home/me/my cluster"), 2, 8001).expect("a plan");
        let next = |program: &str, current| next(&plan, Path::new(program), Path::new("/home/me"), current);
        assert_eq!(
            next("/home/me/bin/p2pctl", None),
            [
                "export P2PCTL_ENDPOINT=127.0.0.1:8001 P2PCTL_CA='my cluster/certs/ca_cert.pem'",
                "export P2PCTL_CERT='my cluster/certs/admin_cert.pem' P2PCTL_KEY='my cluster/certs/admin_key.pem'",
                "bin/p2pctl cluster nodes",
                "bin/p2pctl rpc call p2p.v1.SystemService/GetInfo --node worker-1",
                "curl --cacert 'my cluster/certs/ca_cert.pem' https://127.0.0.1:8001/health",
            ]
        );
        assert_eq!(next("/home/me/p2pctl", Some(true))[0], "./p2pctl cluster nodes");
        assert_eq!(next("/home/me/p2pctl", Some(false))[0], "./p2pctl --context dev cluster nodes");
    }

    #[test]
    fn a_quote_in_a_path_survives_the_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(".p2p-dev/certs"), ".p2p-dev/certs");
    }
}
