//! `SystemService/Examine`: what a node finds wrong with itself, and whom it reaches.

mod support;

use p2p_proto::v1::{ExamineRequest, ExamineResponse, MemberState};
use rustix::process::Signal;
use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};
use support::{Binary, Certificates, Client, Cluster, NodeConfig, TestNode, eventually};
use tonic::{Code, Status};

async fn examine(client: &Client) -> Result<ExamineResponse, Status> {
    client.system().examine(ExamineRequest {}).await.map(tonic::Response::into_inner)
}

/// The checks that found something.
fn checks(answer: &ExamineResponse) -> Vec<&str> {
    answer.findings.iter().map(|finding| finding.check.as_str()).collect()
}

/// Few enough connections for the limit of open files that tests run with.
fn modest(config: NodeConfig) -> NodeConfig {
    config.set("connections_max", "100")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_is_told_of_until_it_does() {
    let cluster = Cluster::start_with(modest).await;
    let admin = cluster.admin(&cluster.w1).await;
    let sound = examine(&admin).await.expect("an admin may");
    assert_eq!((sound.node_id.as_str(), sound.called, sound.legs.as_slice()), ("w1", 2, [].as_slice()));
    assert_eq!(checks(&sound), [""; 0]);

    cluster.g1.signal(Signal::STOP);
    let answer = examine(&admin).await.expect("an answer in time");
    let legs: Vec<_> = answer.legs.iter().map(|leg| (leg.node_id.as_str(), leg.address.as_str())).collect();
    assert_eq!(legs, [("g1", cluster.g1.address.to_string().as_str())]);
    assert!(!answer.legs[0].reason.is_empty());

    cluster.g1.signal(Signal::CONT);
    eventually("an answer of the member", async || {
        let answer = examine(&admin).await.map_err(|status| status.to_string())?;
        if answer.legs.is_empty() { Ok(()) } else { Err(format!("{:?}", answer.legs)) }
    })
    .await;
    admin.awaits_state("g1", MemberState::Alive).await;

    // It is for admins, shown to the very node.
    let worker = cluster.certificates.client(&cluster.w1, "g1").await;
    assert_eq!(examine(&worker).await.map(drop).map_err(|status| status.code()), Err(Code::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_files_that_others_may_read_and_a_file_that_it_does_not_go_by() {
    let certificates = Certificates::new(&["w1:worker"]);
    let mut node = TestNode::start(Binary::Node, modest(certificates.config("w1"))).await;
    let admin = certificates.client(&node, "admin").await;
    let state = node.state_directory();
    let open = |mode| std::fs::set_permissions(&state, Permissions::from_mode(mode)).expect("ours");
    open(0o755);
    node.rewrite(|config| config.set("zone", "east").set("port", "1"));
    let answer = examine(&admin).await.expect("an admin may");
    assert_eq!(checks(&answer), ["file_permissions", "config_drift"]);
    assert!(answer.findings.iter().all(|finding| finding.subject == "w1"));
    assert!(answer.findings[0].what.contains("(mode 0755)"), "{answer:?}");
    assert!(answer.findings[1].what.ends_with("is not in force: zone, port"), "{answer:?}");

    open(0o700);
    node.rewrite(|mut config| {
        config.keys.remove("zone");
        config.set("port", "0")
    });
    assert_eq!(checks(&examine(&admin).await.expect("an answer")), [""; 0]);
}
