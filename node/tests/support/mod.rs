//! A cluster of real processes, and clients of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `certificates` | the certificates of a test's cluster, and bad ones |
//! | `process` | a node as a child process: its log, its signals, its end |
//! | `client` | gRPC channels, HTTP clients and metrics of a node |
//!
//! Nothing here sleeps in the hope that something has happened: [`eventually`] asks until a condition holds, and
//! fails after a time that only a defect can take.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses a part of it")]

mod certificates;
mod client;
mod process;

#[allow(clippy::all, missing_docs, unreachable_pub)]
#[path = "../../examples/greeter/proto.rs"]
pub mod greeter;

pub use certificates::{CLUSTER, Certificates, in_days, write_with_mode};
pub use client::{Client, error_details, sample};
pub use process::{Binary, NodeConfig, TestNode};

use p2p_proto::v1::{MemberState, NodeInfo};
use std::time::{Duration, Instant};

/// What only a defect takes longer than.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(25);

/// Asks until the answer is `Ok`; the last `Err` says what is still missing. Returns how long it took.
pub async fn eventually(what: &str, ask: impl AsyncFnMut() -> Result<(), String>) -> Duration {
    within(PATIENCE, what, ask).await
}

/// The same for what may take another time than [`PATIENCE`].
pub async fn within(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<(), String>,
) -> Duration {
    let started = Instant::now();
    loop {
        let missing = match ask().await {
            Ok(()) => return started.elapsed(),
            Err(missing) => missing,
        };
        assert!(started.elapsed() < patience, "waited {patience:?} in vain for {what}: {missing}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Three nodes of one cluster, each a process: the coordinator `c1`, the worker `w1`, and the worker `g1`,
/// which provides `demo.v1.Greeter`.
pub struct Cluster {
    pub certificates: Certificates,
    pub c1: TestNode,
    pub w1: TestNode,
    pub g1: TestNode,
    /// From the start of the first process until all saw each other.
    pub joined: Duration,
}

impl Cluster {
    /// Starts the cluster and waits until every node sees all alive and routes to the greeter.
    pub async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    /// The same, with settings of every node changed by `adjust`.
    pub async fn start_with(adjust: impl Fn(NodeConfig) -> NodeConfig) -> Self {
        let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "g1:worker"]);
        let started = Instant::now();
        let c1 = TestNode::start(Binary::Node, adjust(certificates.config("c1"))).await;
        let seed = c1.address.to_string();
        let (w1, g1) = tokio::join!(
            TestNode::start(Binary::Node, adjust(certificates.config("w1").seeds(&[&seed]))),
            TestNode::start(Binary::Greeter, adjust(certificates.config("g1").seeds(&[&seed]))),
        );
        let cluster = Self { certificates, c1, w1, g1, joined: Duration::ZERO };
        for node in cluster.nodes() {
            let client = cluster.certificates.observer(node).await;
            for member in ["c1", "w1", "g1"] {
                client.awaits_state(member, MemberState::Alive).await;
            }
            client.awaits_provider("demo.v1.Greeter/SayHello", "g1").await;
        }
        Self { joined: started.elapsed(), ..cluster }
    }

    pub fn nodes(&self) -> [&TestNode; 3] {
        [&self.c1, &self.w1, &self.g1]
    }

    /// A client of `node` with the admin's certificate.
    pub async fn admin(&self, node: &TestNode) -> Client {
        self.certificates.client(node, "admin").await
    }
}

/// How a member stands in a list of nodes.
pub fn state_of(nodes: &[NodeInfo], member: &str) -> Option<MemberState> {
    nodes.iter().find(|node| node.node_id == member).map(NodeInfo::state)
}
