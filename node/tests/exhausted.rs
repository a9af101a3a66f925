//! What runs out, and who never answers: neither stops a node.

mod support;

use p2p_proto::v1::{MemberState, revoke_token_request::What};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use support::{Binary, Certificates, TestNode};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_file_descriptors_serves_who_is_there_and_recovers() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let config = certificates.config("c1").set("tls_handshake_timeout", "60s");
    let mut node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;
    let id = node.process_id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let before = getrlimit(Resource::Nofile);
    prlimit(id, Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).expect("limited");

    let mut crowd = Vec::new();
    for _ in 0..128 {
        crowd.push(TcpStream::connect(node.address).await.expect("the system accepts"));
    }
    node.logs("connection not accepted; is the limit of open files too low?").await;
    admin.members().await.expect("who is there is served");
    admin.revoke(What::Jti("one".to_owned())).await.expect("the journal is open");

    drop(crowd);
    let stranger = certificates.stranger(&node).await;
    let answer = stranger.http(true).get(stranger.url("/livez")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    node.signal(Signal::TERM);
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_accepts_and_never_answers_holds_up_neither_the_join_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = silent.local_addr().expect("an address").to_string();
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let seeds = [address.as_str(), &c1.address.to_string()];
    let mut w1 = TestNode::start(Binary::Node, certificates.config("w1").seeds(&seeds)).await;
    let observer = certificates.observer(&w1).await;
    observer.awaits_state("c1", MemberState::Alive).await;
    w1.signal(Signal::TERM);
    assert_eq!(w1.ends().await.code(), Some(0), "{}", w1.log());
    accepting.abort();
}
