//! State that is damaged on disk: what is lost is said, and made good before it counts.

mod support;

use p2p_proto::v1::{MemberState, revoke_token_request::What};
use rustix::process::Signal;
use support::{Binary, Certificates, Cluster, TestNode};

async fn stop(node: &mut TestNode) {
    node.signal(Signal::TERM);
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
}

fn damage(node: &TestNode) {
    std::fs::write(node.state_directory().join("jwt_blacklist.json"), "{\"version\": 1, \"segm")
        .expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_revocations_accepts_no_token_until_another_has_told_them_again() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let issue = async || admin.issue("ci", &["demo.v1.Greeter/*"]).await.expect("issued");
    let (good, leaked) = (issue().await, issue().await);
    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    stranger.awaits_verdict(&good, "").await;
    admin.revoke(What::Token(leaked.clone())).await.expect("revoked");
    stranger.awaits_verdict(&leaked, "revoked").await;

    for node in [&mut cluster.w1, &mut cluster.g1, &mut cluster.c1] {
        stop(node).await;
    }
    damage(&cluster.w1);
    // All are elsewhere now, so that nobody finds anybody. The damaged file is moved aside; the next start knows, too.
    cluster.c1 = cluster.c1.start_again(Binary::Node).await;
    for _ in 0..2 {
        cluster.w1 = cluster.w1.start_again(Binary::Node).await;
        let stranger = cluster.certificates.stranger(&cluster.w1).await;
        for token in [&good, &leaked] {
            assert_eq!(stranger.verdict(token).await.expect("answered"), "state_lost");
        }
        stop(&mut cluster.w1).await;
    }
    cluster.w1 = cluster.w1.start_again(Binary::Node).await;
    let observer = cluster.certificates.observer(&cluster.w1).await;
    observer.awaits_sample("p2p_revocations_incomplete", 1.0).await;

    let seeds = [cluster.c1.address.to_string(), cluster.w1.address.to_string()];
    cluster.g1.config = cluster.g1.config.clone().seeds(&[&seeds[0], &seeds[1]]);
    cluster.g1 = cluster.g1.start_again(Binary::Greeter).await;
    observer.awaits_state("c1", MemberState::Alive).await;
    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    stranger.awaits_verdict(&leaked, "revoked").await;
    stranger.awaits_verdict(&good, "").await;
    cluster.w1.logs("another node has told all that is revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_else_can_tell_the_operator_accepts_the_loss() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let mut node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let token = certificates.client(&node, "admin").await.issue("ci", &["*"]).await.expect("issued");
    stop(&mut node).await;
    damage(&node);
    node = node.start_again(Binary::Node).await;
    node.logs("if there is none, restart with --accept-state-loss").await;
    assert_eq!(certificates.stranger(&node).await.verdict(&token).await.expect("answered"), "state_lost");
    stop(&mut node).await;
    node.config.arguments.push("--accept-state-loss".to_owned());
    node = node.start_again(Binary::Node).await;
    node.logs("tokens are accepted all the same").await;
    certificates.stranger(&node).await.awaits_verdict(&token, "").await;
    stop(&mut node).await;
    // Accepted once and for all.
    node.config.arguments.clear();
    node = node.start_again(Binary::Node).await;
    certificates.stranger(&node).await.awaits_verdict(&token, "").await;
}
