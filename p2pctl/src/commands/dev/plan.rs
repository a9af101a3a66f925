//! Names, ports and files of the nodes: decided before anything starts.

use crate::error::Failure;
use p2p_core::{NodeId, Role};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// The cluster's id in certificates.
pub(super) const CLUSTER_ID: &str = "p2p-dev";

/// One node to run.
#[derive(Clone, Debug)]
pub(super) struct PlannedNode {
    pub(super) id: NodeId,
    pub(super) role: Role,
    pub(super) address: SocketAddr,
}

/// All nodes to run, the coordinator first.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) nodes: Vec<PlannedNode>,
}

impl Plan {
    pub(super) fn new(dir: &Path, workers: u16, base_port: u16) -> Result<Self, Failure> {
        if base_port.checked_add(workers).is_none() {
            let message = format!("{workers} workers after port {base_port} go beyond 65535");
            return Err(Failure::usage(message).hint("Pass a lower --base-port"));
        }
        let dir = std::path::absolute(dir)
            .map_err(|error| Failure::other(format!("cannot resolve {}: {error}", dir.display())))?;
        if dir.to_str().is_none() {
            return Err(Failure::usage("--dir must be valid UTF-8: configuration files name it"));
        }
        let node = |name: String, role, offset| PlannedNode {
            id: name.parse().expect("coordinator-N and worker-N are valid ids"),
            role,
            address: (Ipv4Addr::LOCALHOST, base_port + offset).into(),
        };
        let coordinator = node("coordinator-1".to_owned(), Role::Coordinator, 0);
        let workers = (1..=workers).map(|index| node(format!("worker-{index}"), Role::Worker, index));
        Ok(Self { dir, nodes: std::iter::once(coordinator).chain(workers).collect() })
    }

    pub(super) fn coordinator(&self) -> &PlannedNode {
        &self.nodes[0]
    }

    /// The node farthest from the coordinator, for the routed call.
    pub(super) fn last_worker(&self) -> &PlannedNode {
        &self.nodes[self.nodes.len() - 1]
    }

    pub(super) fn certificate_dir(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// Of a node, `ca` or `admin`.
    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.certificate_dir().join(format!("{name}_cert.pem"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.certificate_dir().join(format!("{name}_key.pem"))
    }

    pub(super) fn config(&self, node: &NodeId) -> PathBuf {
        self.dir.join(node.as_str()).join("config.yaml")
    }

    pub(super) fn log(&self, node: &NodeId) -> PathBuf {
        self.dir.join(node.as_str()).join("node.log")
    }

    pub(super) fn state(&self, node: &NodeId) -> PathBuf {
        self.dir.join(node.as_str()).join("data")
    }

    pub(super) fn log_advice(&self, node: &NodeId) -> String {
        format!("Its log: {}", self.log(node).display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_each_other_and_end_at_the_last_one() {
        let plan = Plan::new(Path::new("x"), 2, 65_533).expect("fits");
        let nodes: Vec<String> =
            plan.nodes.iter().map(|node| format!("{} {}", node.id, node.address)).collect();
        let expected =
            ["coordinator-1 127.0.0.1:65533", "worker-1 127.0.0.1:65534", "worker-2 127.0.0.1:65535"];
        assert_eq!(nodes, expected);
        assert!(plan.dir.is_absolute());
        assert!(Plan::new(Path::new("x"), 3, 65_533).is_err());
    }
}
