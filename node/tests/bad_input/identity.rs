//! A node id that two processes hold, and one whose state was set back.

use crate::support::{Binary, Certificates, Client, TestNode, eventually, sample};
use p2p_node::identity::UnixTime;
use p2p_proto::v1::{ExamineRequest, GetInfoRequest, MemberState};
use rustix::process::Signal;
use std::{fs, path::Path};

async fn epoch_of(observer: &Client, member: &str) -> Option<u64> {
    let members = observer.members().await.expect("a list");
    members.iter().find(|node| node.node_id == member).map(|node| node.epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_live_holders_of_one_id_raise_the_alarm_and_go_on_serving() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "g1:worker"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let seed = c1.address.to_string();
    let g1 = TestNode::start(Binary::Greeter, certificates.config("g1").seeds(&[&seed])).await;
    let observer = certificates.observer(&c1).await;
    observer.awaits_state("g1", MemberState::Alive).await;
    let config = certificates.config("w1").seeds(&[&seed]);
    let mut twins =
        [TestNode::start(Binary::Node, config.clone()).await, TestNode::start(Binary::Node, config).await];
    for twin in &mut twins {
        twin.logs("another live node holds this node's id and certificate").await;
    }
    for twin in &twins {
        let client = certificates.client(twin, "admin").await;
        let info = client.system().get_info(GetInfoRequest {}).await.expect("it serves").into_inner();
        assert_eq!(info.node_id, "w1");
        let examined = client.system().examine(ExamineRequest {}).await.expect("it serves").into_inner();
        assert!(examined.findings.iter().any(|finding| finding.check == "duplicate_id"), "{examined:?}");
        let reply = client.hello("world").await.expect("it routes");
        assert_eq!(reply.node, "g1");
        let conflicts = sample(&client.metrics().await, "p2p_gossip_identity_conflicts_total");
        assert!(conflicts.is_some_and(|count| count >= 3.0), "{conflicts:?}");
    }
    // They do not drag anybody along.
    for (node, other) in [(&c1, "g1"), (&g1, "c1")] {
        let client = certificates.observer(node).await;
        client.awaits_state(other, MemberState::Alive).await;
        let gone = format!("member={other} from=\"suspect\" to=\"down\"");
        assert!(!node.log().contains(&gone), "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_restored_from_an_old_backup_comes_back_above_what_the_cluster_knows() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let observer = certificates.observer(&c1).await;
    let stop = async |node: &mut TestNode| {
        node.signal(Signal::TERM);
        node.ends().await;
    };
    let config = certificates.config("w1").seeds(&[&c1.address.to_string()]);
    let mut node = TestNode::start(Binary::Node, config).await;
    observer.awaits_state("w1", MemberState::Alive).await;
    stop(&mut node).await;
    let file = node.state_directory().join("gossip_state.json");
    let backup = fs::read_to_string(&file).expect("kept");

    // An hour ahead: as after years of starts, or with a clock that was wrong.
    let ahead = (UnixTime::now().as_secs() + 3600) * 1_000;
    with_epoch(&file, &backup, ahead);
    let mut node = node.start_again(Binary::Node).await;
    eventually("the late start", async || match epoch_of(&observer, "w1").await {
        Some(epoch) if epoch > ahead => Ok(()),
        epoch => Err(format!("{epoch:?}")),
    })
    .await;
    observer.awaits_state("w1", MemberState::Alive).await;
    let known = epoch_of(&observer, "w1").await.expect("a member");
    stop(&mut node).await;

    fs::write(&file, &backup).expect("restored");
    let mut node = node.start_again(Binary::Node).await;
    node.logs("the cluster knows a later start of this node; took a higher epoch").await;
    eventually("the node to be back", async || match epoch_of(&observer, "w1").await {
        Some(epoch) if epoch > known => Ok(()),
        epoch => Err(format!("{epoch:?}, not above {known}")),
    })
    .await;
    observer.awaits_state("w1", MemberState::Alive).await;
    let client = certificates.observer(&node).await;
    client.awaits_sample("p2p_gossip_identity_conflicts_total", 1.0).await;
    let kept = fs::read_to_string(&file).expect("kept");
    assert!(epoch_in(&kept) > known, "the next start is above it by itself: {kept}");
    assert!(!node.log().contains("another live node holds"), "one restore is no duplicate");
}

fn epoch_in(state: &str) -> u64 {
    find_epoch(&serde_json::from_str(state).expect("JSON")).expect("an epoch")
}

/// The epoch, wherever in the file it stands.
fn find_epoch(value: &serde_json::Value) -> Option<u64> {
    let object = value.as_object()?;
    let here = object.get("epoch").and_then(serde_json::Value::as_u64);
    here.or_else(|| object.values().find_map(find_epoch))
}

fn with_epoch(file: &Path, state: &str, epoch: u64) {
    let before = epoch_in(state).to_string();
    fs::write(file, state.replace(&before, &epoch.to_string())).expect("written");
}
