//! Join, leave, death, return, and new certificates.

use crate::support::{
    Binary, Certificates, Client, Cluster, TestNode,
    greeter::{HelloRequest, RepeatRequest},
    in_days,
};
use p2p_node::identity::Validity;
use p2p_proto::v1::MemberState;
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_node_finishes_its_calls_and_is_shown_as_left() {
    let mut cluster = Cluster::start().await;
    let through_entry = cluster.admin(&cluster.w1).await;
    let direct = cluster.admin(&cluster.g1).await;
    let request = RepeatRequest { name: "you".to_owned(), count: 40, pause_ms: 50 };
    let mut routed = through_entry.greeter().repeat(request.clone()).await.expect("open").into_inner();
    let mut straight = direct.greeter().repeat(request).await.expect("open").into_inner();
    for replies in [&mut routed, &mut straight] {
        assert!(replies.message().await.expect("no error").is_some());
    }

    let observers =
        [cluster.certificates.observer(&cluster.c1).await, cluster.certificates.observer(&cluster.w1).await];
    let signalled = Instant::now();
    cluster.g1.signal(Signal::TERM);
    for observer in &observers {
        observer.awaits_state("g1", MemberState::Left).await;
        println!("left: seen {:?} after the signal", signalled.elapsed());
    }
    for mut replies in [routed, straight] {
        let mut rest = 0;
        while replies.message().await.expect("the call finishes").is_some() {
            rest += 1;
        }
        assert_eq!(rest, 39);
    }
    assert_eq!(cluster.g1.ends().await.code(), Some(0), "{}", cluster.g1.log());

    let status = through_entry.hello("anybody").await.expect_err("no provider is left");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("no live node provides demo.v1.Greeter/SayHello"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_down_and_comes_back_elsewhere_with_a_higher_epoch() {
    let mut cluster = Cluster::start().await;
    let observer = cluster.certificates.observer(&cluster.c1).await;
    let other = cluster.certificates.observer(&cluster.w1).await;
    let first = epoch_of(&observer, "g1").await;
    let before = cluster.g1.address;

    let signalled = Instant::now();
    cluster.g1.signal(Signal::KILL);
    for observer in [&observer, &other] {
        observer.awaits_state("g1", MemberState::Down).await;
        println!("down: seen {:?} after the signal", signalled.elapsed());
    }
    let status = other.hello("anybody").await.expect_err("its only provider is gone");
    assert_eq!(status.code(), Code::Unavailable, "{status}");

    assert!(!cluster.g1.ends().await.success());
    // Somebody else has the old port by now.
    let taken = std::net::TcpListener::bind(before).expect("the port is free again");
    cluster.g1 = cluster.g1.start_again(Binary::Greeter).await;
    let listening = Instant::now();
    assert_ne!(cluster.g1.address, before);
    for observer in [&observer, &other] {
        observer.awaits_state("g1", MemberState::Alive).await;
        println!("alive again: seen {:?} after it listens", listening.elapsed());
        observer.awaits_provider("demo.v1.Greeter/SayHello", "g1").await;
    }
    let second = epoch_of(&observer, "g1").await;
    assert!(second > first, "{second} follows {first}");
    assert_eq!(other.hello("again").await.expect("routed to the new address").node, "g1");
    drop(taken);
}

async fn epoch_of(observer: &Client, member: &str) -> u64 {
    let members = observer.members().await.expect("a list");
    members.iter().find(|node| node.node_id == member).expect("a member").epoch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_node_at_once() {
    let certificates = Certificates::new(&["g1:worker"]);
    let config = certificates.config("g1").set("shutdown_grace", "600s");
    let mut node = TestNode::start(Binary::Greeter, config).await;
    let client = certificates.client(&node, "admin").await;
    let endless = RepeatRequest { name: "you".to_owned(), count: u32::MAX, pause_ms: 10 };
    let mut replies = client.greeter().repeat(endless).await.expect("open").into_inner();
    assert!(replies.message().await.expect("no error").is_some());
    node.signal(Signal::TERM);
    node.logs("a second signal ends the node at once").await;
    node.signal(Signal::TERM);
    assert_eq!(node.ends().await.code(), Some(1), "cut off is a failure");
    assert!(node.log().contains("ended at once by a second signal"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_do_not_hold_up_a_shutdown() {
    let certificates = Certificates::new(&["w1:worker"]);
    let mut config = certificates.config("w1");
    for key in ["tls_handshake_timeout", "http_preface_timeout", "shutdown_grace"] {
        config = config.set(key, "600s");
    }
    let mut node = TestNode::start(Binary::Node, config).await;
    let _no_tls = TcpStream::connect(node.address).await.expect("connected");
    let tls = tokio_rustls::TlsConnector::from(certificates.tls_client(None, &[b"h2"]));
    let tcp = TcpStream::connect(node.address).await.expect("connected");
    let _no_http = tls.connect("localhost".try_into().expect("a name"), tcp).await.expect("a handshake");
    node.signal(Signal::TERM);
    // Within the harness's patience, far below every timeout of the node.
    assert_eq!(node.ends().await.code(), Some(0));
}

/// The certificate that a new connection is shown.
async fn served_certificate(node: &TestNode, certificates: &Certificates) -> Vec<u8> {
    let tls = certificates.tls_client(None, &[b"h2"]);
    let tcp = TcpStream::connect(node.address).await.expect("connected");
    let name = "localhost".try_into().expect("a name");
    let tls = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.expect("a handshake");
    tls.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_puts_new_certificates_in_force_and_leaves_streams_open() {
    let certificates = Certificates::new(&["g1:worker"]);
    let mut node = TestNode::start(Binary::Greeter, certificates.config("g1")).await;
    let client = certificates.client(&node, "admin").await;
    let (sender, receiver) = mpsc::channel(1);
    let mut replies = client.greeter().chat(ReceiverStream::new(receiver)).await.expect("open").into_inner();
    let before = served_certificate(&node, &certificates).await;

    let spiffe = "spiffe://test/worker/g1";
    certificates.issue("g1", spiffe, Validity { not_before: in_days(-1), not_after: in_days(7) });
    node.signal(Signal::HUP);
    node.logs("new certificates in force").await;
    let after = served_certificate(&node, &certificates).await;
    assert_ne!(before, after);

    sender.send(HelloRequest { name: "still there".to_owned() }).await.expect("sent");
    let reply = replies.message().await.expect("no error").expect("a reply");
    assert_eq!(reply.message, "Hello, still there!");

    // What does not hold together is refused, and nothing changes.
    certificates.issue(
        "g1",
        "spiffe://test/worker/other",
        Validity { not_before: in_days(-1), not_after: in_days(7) },
    );
    node.signal(Signal::HUP);
    let line = node.logs("reload refused").await;
    assert!(line.contains("node_id is g1"), "{line}");
    assert_eq!(served_certificate(&node, &certificates).await, after);
    tokio::time::timeout(Duration::from_secs(5), client.hello("you"))
        .await
        .expect("in time")
        .expect("greeted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_seeds_are_all_gone_finds_the_members_that_it_has_met() {
    let mut cluster = Cluster::start().await;
    for node in [&mut cluster.w1, &mut cluster.c1] {
        node.signal(Signal::TERM);
        assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
    }
    let state: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(cluster.w1.state_directory().join("gossip_state.json")).expect("saved"),
    )
    .expect("JSON");
    let greeter = state["members"].as_array().expect("members").iter().find(|known| known["node_id"] == "g1");
    assert_eq!(greeter.expect("it knew g1")["address"], cluster.g1.address.to_string(), "{state}");

    // The only seed that its configuration names is gone, and nobody knows where it listens now.
    cluster.w1 = cluster.w1.start_again(Binary::Node).await;
    let observer = cluster.certificates.observer(&cluster.w1).await;
    observer.awaits_state("g1", MemberState::Alive).await;
    assert_eq!(observer.hello("again").await.expect("routed").node, "g1");
}
