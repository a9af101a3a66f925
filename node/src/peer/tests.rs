//! Dials that nobody answers.

use super::*;
use crate::identity::{Expected, GenerateRequest, IdentityFiles, UnixTime, generate};
use p2p_core::Role;

/// A pool of a node `c` of cluster `shop`.
fn pool(directory: &std::path::Path) -> Arc<PeerPool> {
    let request = GenerateRequest {
        out: directory.to_path_buf(),
        cluster_id: Some("shop".parse().unwrap()),
        nodes: vec![("c".parse().unwrap(), Role::Coordinator)],
        sans: vec![],
        days: 100,
        self_signed: false,
        force: false,
    };
    generate(&request, UnixTime::now()).unwrap();
    let at = |name: &str| directory.join(name);
    let files = IdentityFiles {
        cert: at("c_cert.pem"),
        key: at("c_key.pem"),
        ca_cert: at("ca_cert.pem"),
        ca_key: at("ca_key.pem"),
    };
    let expected = Expected {
        node_id: "c".parse().unwrap(),
        cluster_id: None,
        coordinator: true,
        may_stand_alone: false,
    };
    let identity = Arc::new(IdentityStore::load(files, expected, UnixTime::now()).unwrap());
    let metrics = Metrics::default();
    Arc::new(PeerPool::new(identity, Revocations::new(&metrics), 8, &metrics))
}

#[tokio::test(start_paused = true)]
async fn a_dial_goes_on_without_its_caller_and_its_timeout_is_shared_for_a_moment() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path());
    // The system accepts for it; nobody speaks TLS.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (node, address) = ("w".parse().unwrap(), silent.local_addr().unwrap());
    let timeouts = || pool.dials.get_or_create(&DialLabels { result: "timeout" }).get();

    let impatient = tokio::time::timeout(Duration::from_secs(2), pool.get(&node, address)).await;
    assert!(impatient.is_err() && timeouts() == 0);
    tokio::time::sleep(DIAL_TIMEOUT - Duration::from_secs(1)).await;
    assert_eq!(timeouts(), 1, "the dial went on");
    let error = pool.get(&node, address).await.unwrap_err();
    assert!(matches!(*error, DialError::Timeout { .. }), "{error}");
    assert_eq!(timeouts(), 1, "nobody dialled again");
    tokio::time::sleep(TIMEOUT_SHARED).await;
    assert!(pool.slots().is_empty(), "the slot of a failed dial is not kept");
}
