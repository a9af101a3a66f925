//! The directory of a local cluster: its lock, certificates and configurations.

use super::plan::{CLUSTER_ID, Plan, PlannedNode};
use crate::error::Failure;
use anyhow::Context as _;
use p2p_core::Role;
use p2p_node::identity::{self, GenerateRequest, UnixTime};
use serde::Serialize;
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

const DAYS: u32 = 3650;

/// Takes the directory for this process, until the file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, Failure> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::other(format!("a cluster already runs in {}", dir.display()))
                .hint("Stop it with Ctrl-C, or choose another --dir and --base-port"))
        }
        Err(TryLockError::Error(error)) => {
            Err(Failure::other(format!("cannot lock {}: {error}", path.display())))
        }
    }
}

/// Makes what is missing: certificates are kept from run to run, configurations are written anew.
pub(super) fn write(plan: &Plan) -> Result<(), Failure> {
    certificates(plan)?;
    for node in &plan.nodes {
        let path = plan.config(&node.id);
        let state = plan.state(&node.id);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&state);
        made.with_context(|| format!("cannot make {}", state.display()))?;
        let yaml = serde_yaml::to_string(&Config::of(node, plan)).context("cannot write YAML")?;
        fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn certificates(plan: &Plan) -> Result<(), Failure> {
    let missing = |name: &str| !plan.certificate(name).exists() || !plan.key(name).exists();
    let nodes: Vec<_> = plan
        .nodes
        .iter()
        .filter(|node| missing(node.id.as_str()))
        .map(|node| (node.id.clone(), node.role))
        .collect();
    if nodes.is_empty() && !missing("admin") && plan.certificate("ca").exists() {
        return Ok(());
    }
    let request = GenerateRequest {
        out: plan.certificate_dir(),
        cluster_id: Some(CLUSTER_ID.parse().expect("a valid id")),
        nodes,
        sans: Vec::new(),
        days: DAYS,
        self_signed: false,
        force: false,
    };
    identity::generate(&request, UnixTime::now()).map(drop).map_err(|error| {
        Failure::other(format!("cannot make certificates in {}: {error}", request.out.display()))
            .hint("Remove that directory to start afresh")
    })
}

/// The configuration of one node; the keys are p2p-node's.
#[derive(Serialize)]
struct Config {
    node_id: String,
    cluster_id: &'static str,
    bind_address: IpAddr,
    port: u16,
    coordinator_mode: bool,
    coordinator_addresses: Vec<String>,
    advertise_addresses: Vec<String>,
    ssl_cert_file: PathBuf,
    ssl_key_file: PathBuf,
    ssl_ca_cert_file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_ca_key_file: Option<PathBuf>,
    state_directory: PathBuf,
}

impl Config {
    fn of(node: &PlannedNode, plan: &Plan) -> Self {
        let coordinator = plan.coordinator();
        let is_coordinator = node.role == Role::Coordinator;
        let seeds = if is_coordinator { vec![] } else { vec![coordinator.address.to_string()] };
        Self {
            node_id: node.id.to_string(),
            cluster_id: CLUSTER_ID,
            bind_address: node.address.ip(),
            port: node.address.port(),
            coordinator_mode: is_coordinator,
            coordinator_addresses: seeds,
            advertise_addresses: vec![node.address.to_string()],
            ssl_cert_file: plan.certificate(node.id.as_str()),
            ssl_key_file: plan.key(node.id.as_str()),
            ssl_ca_cert_file: plan.certificate("ca"),
            ssl_ca_key_file: is_coordinator.then(|| plan.key("ca")),
            state_directory: plan.state(&node.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_serves_one_cluster_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = lock(dir.path()).expect("free");
        let failure = lock(dir.path()).expect_err("taken");
        assert!(failure.message.starts_with("a cluster already runs in "), "{failure:?}");
        drop(first);
        lock(dir.path()).expect("free again");
    }

    #[test]
    fn a_second_run_keeps_the_certificates_and_adds_those_of_new_workers() {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = Plan::new(dir.path(), 1, 9001).expect("a plan");
        write(&plan).expect("written");
        let before = fs::read(plan.certificate("worker-1")).expect("made");
        let larger = Plan::new(dir.path(), 2, 9001).expect("a plan");
        write(&larger).expect("written");
        assert_eq!(fs::read(plan.certificate("worker-1")).expect("kept"), before);
        assert!(larger.key("worker-2").exists());
        for node in &larger.nodes {
            let config = p2p_node::config::Config::load(&larger.config(&node.id), std::iter::empty(), &[]);
            let config = config.expect("p2p-node reads what dev writes");
            assert_eq!((config.node_id.as_str(), config.port), (node.id.as_str(), node.address.port()));
        }
        let config = fs::read_to_string(larger.config(&larger.last_worker().id)).expect("written");
        assert!(config.contains("port: 9003") && config.contains("coordinator_mode: false"), "{config}");
        assert!(config.contains("127.0.0.1:9001") && !config.contains("ca_key"), "{config}");
    }
}
