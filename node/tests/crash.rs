//! kill -9 at any moment, under load: what was acknowledged is there at the next start, and every file reads.
//!
//! A short version of scripts/crash_loop.py.

mod support;

use p2p_proto::v1::{
    ListRevocationsRequest, auth_service_client::AuthServiceClient, revoke_token_request::What,
};
use rand::RngExt as _;
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{Binary, Certificates, Client, TestNode, sample};
use tokio::task::JoinSet;

const ROUNDS: usize = 8;
const CALLERS: usize = 16;

/// Revokes one token after the other until the node is gone, and notes each that was acknowledged.
async fn revoke(client: Client, caller: String, acknowledged: Arc<Mutex<BTreeSet<String>>>) {
    for number in 0.. {
        let jti = format!("{caller}-{number}");
        if client.revoke(What::Jti(jti.clone())).await.is_err() {
            return;
        }
        acknowledged.lock().expect("not poisoned").insert(jti);
    }
}

async fn revoked(client: &Client) -> BTreeSet<String> {
    let mut service = AuthServiceClient::new(client.channel.clone());
    let listed = service.list_revocations(ListRevocationsRequest {}).await.expect("listed").into_inner();
    assert!(!listed.truncated, "more than an answer holds");
    listed.revocations.into_iter().map(|row| row.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_revocation_is_lost_and_no_file_is_damaged_by_kill_9() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    // Saves come often, so that some are cut, too.
    let config = certificates.config("c1").set("state_autosave_interval", "50ms");
    let mut node = TestNode::start(Binary::Node, config).await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut epoch = 0;
    for round in 0..ROUNDS {
        let admin = certificates.client(&node, "admin").await;
        let kept = revoked(&admin).await;
        let lost: Vec<String> =
            acknowledged.lock().expect("not poisoned").difference(&kept).cloned().collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?} of {}", kept.len());
        let metrics = admin.metrics().await;
        assert_eq!(sample(&metrics, "p2p_revocations_incomplete"), Some(0.0));
        let own = &admin.members().await.expect("listed")[0];
        assert!(own.epoch > epoch, "{} is not above {epoch}", own.epoch);
        epoch = own.epoch;

        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(revoke(admin.clone(), format!("{round}-{caller}"), acknowledged.clone()));
        }
        // The moment is what is tried out: in the midst of an append, a save, or neither.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..200))).await;
        node.signal(Signal::KILL);
        node.ends().await;
        callers.join_all().await;
        node = node.start_again(Binary::Node).await;
    }
    let count = acknowledged.lock().expect("not poisoned").len();
    assert!(count > ROUNDS, "{count} revocations are no load");
    for entry in std::fs::read_dir(node.state_directory()).expect("listed") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        assert!(!name.contains(".corrupt-"), "{name}");
    }
}
