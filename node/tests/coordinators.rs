//! Several coordinators, with real processes over real TLS.

mod support;

use p2p_node::identity::{JoinToken, UnixTime, verify};
use p2p_proto::v1::{
    CreateJoinTokenRequest, EvictRequest, MemberState, cluster_service_client::ClusterServiceClient,
};
use std::fs;
use support::{Binary, Certificates, Client, NodeConfig, TestNode};
use tonic::Code;

fn for_a_coordinator() -> CreateJoinTokenRequest {
    CreateJoinTokenRequest { role: "coordinator".to_owned(), ..Default::default() }
}

/// A node that joins with a token of `admin`'s coordinator.
async fn join(certificates: &Certificates, admin: &Client, name: &str, role: &str) -> TestNode {
    let request = CreateJoinTokenRequest { role: role.to_owned(), ..Default::default() };
    let file = certificates.path(&format!("{name}.token"));
    fs::write(&file, admin.join_token(request).await.expect("a token")).expect("written");
    TestNode::start(Binary::Node, NodeConfig::joining(name, &file)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_coordinator_joins_and_both_enrol_workers() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let first = certificates.client(&c1, "admin").await;
    let c2 = join(&certificates, &first, "c2", "coordinator").await;
    let second = certificates.client(&c2, "admin").await;
    second.awaits_state("c1", MemberState::Alive).await;

    let refused = second.join_token(for_a_coordinator()).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("c2 cannot take in coordinators: this is the own CA of"), "{refused}");

    let w1 = join(&certificates, &first, "w1", "worker").await;
    let w2 = join(&certificates, &second, "w2", "worker").await;
    for node in [&c1, &c2, &w1, &w2] {
        let client = certificates.client(node, "admin").await;
        for member in ["c1", "c2", "w1", "w2"] {
            client.awaits_state(member, MemberState::Alive).await;
        }
    }

    // What c2 issued comes with the certificate of its CA, and is believed by the root alone.
    let chain = fs::read_to_string(w2.file("node_cert.pem")).expect("a chain");
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    let root = certificates.read("ca_cert.pem");
    let leaf = verify(root.as_bytes(), chain.as_bytes(), None, UnixTime::now()).expect("trusted");
    assert_eq!(leaf.spiffe.to_string(), "spiffe://test/worker/w2");
    let trusted = fs::read_to_string(w2.file("ca_cert.pem")).expect("roots");
    assert_eq!(trusted, fs::read_to_string(w1.file("ca_cert.pem")).expect("roots"), "both trust the root");
    let pins = async |admin: &Client| {
        let text = admin.join_token(CreateJoinTokenRequest::default()).await.expect("a token");
        text.parse::<JoinToken>().expect("a token").pins
    };
    assert_eq!(pins(&first).await, pins(&second).await);
    assert!(c2.file("ca_issuer_cert.pem").exists() && c2.file("ca_key.pem").exists());

    // A start without seeds and token: it remembers where it joined, and its CA.
    c2.signal(rustix::process::Signal::TERM);
    first.awaits_state("c2", MemberState::Left).await;
    let c2 = c2.start_again(Binary::Node).await;
    first.awaits_state("c2", MemberState::Alive).await;
    let second = certificates.client(&c2, "admin").await;
    let w3 = join(&certificates, &second, "w3", "worker").await;
    certificates.client(&w3, "admin").await.awaits_state("w1", MemberState::Alive).await;

    // Whoever it took in falls with it.
    for member in ["w2", "w3"] {
        first.awaits_state(member, MemberState::Alive).await;
    }
    let request = EvictRequest { node_id: "c2".to_owned(), unknown_too: false };
    let receipt = ClusterServiceClient::new(first.channel.clone()).evict(request).await.expect("evicted");
    let receipt = receipt.into_inner();
    assert_eq!(receipt.banned_with, ["w2", "w3"]);
    assert!(!receipt.may_hold_root);
    assert_eq!((receipt.enforced, receipt.nodes), (2, 2), "c1 and w1: {:?}", receipt.missing);
    let stranger = certificates.client(&w1, "admin").await;
    stranger.awaits_state("w2", MemberState::Down).await;
    let token =
        first.join_token(CreateJoinTokenRequest { replace: true, ..CreateJoinTokenRequest::default() });
    assert!(token.await.is_ok(), "w2 can be taken in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_wrong_role_ends_the_start_with_one_sentence() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let admin = certificates.client(&c1, "admin").await;
    let file = certificates.path("token");
    for (name, request, says) in [
        (
            "c2",
            CreateJoinTokenRequest::default(),
            "for a worker, and this node is a coordinator (coordinator_mode: true); make one with --role coordinator",
        ),
        (
            "w1",
            for_a_coordinator(),
            "for a coordinator, and this node is a worker (coordinator_mode: false); make one with --role worker",
        ),
    ] {
        fs::write(&file, admin.join_token(request).await.expect("a token")).expect("written");
        let outcome = TestNode::run(&NodeConfig::joining(name, &file)).await;
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.log.contains(says), "{}", outcome.log);
    }
}
