//! Calls of a process behind one node, through another.

use crate::{
    process::{GREETER, Kind, Process, Reflection},
    proto::DESCRIPTORS,
    support::{
        Binary, Certificates, Client, NodeConfig, TestNode, error_details,
        greeter::{HelloRequest, RepeatRequest},
    },
};
use p2p_proto::v1::{IssueTokenRequest, MemberState, auth_service_client::AuthServiceClient};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

pub(crate) const HELLO: &str = "demo.v1.Greeter/SayHello";
const ADMIN: &str = "spiffe://test/admin/admin";

/// `services:` with one greeter.
pub(crate) fn service(process: &Process, more: &str) -> String {
    format!("[{{name: {GREETER}, upstream: \"{}\", health_interval: 100ms{more}}}]", process.url())
}

/// The coordinator `c1`, and the worker `w1` with `services`; both see each other.
pub(crate) async fn two_nodes(certificates: &Certificates, services: &str) -> (TestNode, TestNode) {
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let w1 = TestNode::start(Binary::Node, worker(certificates, &c1, services)).await;
    for (node, other) in [(&c1, "w1"), (&w1, "c1")] {
        certificates.observer(node).await.awaits_state(other, MemberState::Alive).await;
    }
    (c1, w1)
}

pub(crate) fn worker(certificates: &Certificates, seed: &TestNode, services: &str) -> NodeConfig {
    certificates.config("w1").seeds(&[&seed.address.to_string()]).set("services", services)
}

async fn greets_in_every_kind(client: &Client, process: &str) {
    let mut request = Request::new(HelloRequest { name: "world".to_owned() });
    request.metadata_mut().insert("x-demo", "kept".parse().expect("a value"));
    let answer = client.greeter().say_hello(request).await.expect("greeted");
    assert_eq!(answer.metadata().get("x-demo").expect("the service's own header"), "kept");
    let reply = answer.into_inner();
    assert_eq!(
        (reply.message.as_str(), reply.node.as_str(), reply.caller.as_str()),
        ("Hello, world!", process, ADMIN)
    );

    let many = RepeatRequest { name: "x".to_owned(), count: 1000, pause_ms: 0 };
    let replies = client.greeter().repeat(many).await.expect("begun").into_inner();
    assert_eq!(replies.map(|reply| reply.expect("a greeting")).collect::<Vec<_>>().await.len(), 1000);

    let names = ["a", "b", "c"].map(|name| HelloRequest { name: name.to_owned() });
    let reply = client.greeter().gather(tokio_stream::iter(names.clone())).await.expect("greeted");
    assert_eq!(reply.into_inner().message, "Hello, a and b and c!");

    // Each answer before the next request, then half-close.
    let (asking, questions) = tokio::sync::mpsc::channel(1);
    let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
    let mut chat = client.greeter().chat(questions).await.expect("begun").into_inner();
    for name in names {
        asking.send(name.clone()).await.expect("open");
        let reply = chat.message().await.expect("answered").expect("a greeting");
        assert_eq!(reply.message, format!("Hello, {}!", name.name));
    }
    drop(asking);
    assert!(chat.message().await.expect("ended well").is_none());

    let status = client.hello("").await.expect_err("refused by the service");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "name is empty; whom shall I greet?")
    );
    let violations = error_details(&status).bad_request().expect("the details").field_violations.clone();
    assert_eq!(violations[0].field, "name");
    assert_eq!(status.metadata().get("x-demo-trailer").expect("the service's own trailer"), "sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_behind_a_node_is_called_from_any_node_in_every_kind() {
    for reflection in [Reflection::V1, Reflection::V1Alpha] {
        let process = Process::start("process", Kind { reflection, ..Kind::default() }).await;
        let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
        let (c1, w1) = two_nodes(&certificates, &service(&process, "")).await;
        for node in [&c1, &w1] {
            let client = certificates.client(node, "admin").await;
            client.awaits_provider(HELLO, "w1").await;
            greets_in_every_kind(&client, "process").await;
            assert_eq!(process.last().get("p2p-entry-node").expect("told"), node.config.name.as_str());
            // By name, with JSON: its descriptors are known everywhere.
            let answer = client.call(HELLO, "", r#"{"name": "JSON"}"#).await.expect("called");
            assert!(format!("{answer:?}").contains("Hello, JSON!"), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_hears_who_calls_and_never_sees_a_token() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let (c1, _w1) = two_nodes(&certificates, &service(&process, "")).await;
    let admin = certificates.client(&c1, "admin").await;
    admin.awaits_provider(HELLO, "w1").await;
    let token =
        IssueTokenRequest { subject: "ci".to_owned(), scope: vec!["demo.*".to_owned()], ttl_seconds: 60 };
    let issued = AuthServiceClient::new(admin.channel.clone()).issue_token(token).await.expect("issued");
    let token = issued.into_inner().token;

    let stranger = certificates.stranger(&c1).await;
    let mut request = Request::new(HelloRequest { name: "x".to_owned() });
    for (name, value) in [
        ("authorization", format!("Bearer {token}")),
        ("p2p-principal", ADMIN.to_owned()),
        ("p2p-entry-node", "elsewhere".to_owned()),
        ("p2p-hop", "1".to_owned()),
    ] {
        request.metadata_mut().insert(name, value.parse().expect("a value"));
    }
    let reply = stranger.greeter().say_hello(request).await.expect("greeted").into_inner();
    assert_eq!(reply.caller, "ci");
    let seen = process.last();
    assert_eq!(seen.get("p2p-entry-node").expect("told"), "c1");
    assert!(seen.get("authorization").is_none() && seen.get("p2p-hop").is_none(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_cancellation_reach_the_process() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let (c1, w1) = two_nodes(&certificates, &service(&process, "")).await;
    let (client, behind) = (certificates.client(&c1, "admin").await, certificates.observer(&w1).await);
    client.awaits_provider(HELLO, "w1").await;
    let slow = || RepeatRequest { name: "x".to_owned(), count: 10_000, pause_ms: 20 };
    let in_flight = format!("p2p_upstream_calls_in_flight{{service=\"{GREETER}\"}}");

    let mut request = Request::new(slow());
    request.set_timeout(Duration::from_millis(400));
    let began = Instant::now();
    let mut replies = client.greeter().repeat(request).await.expect("begun").into_inner();
    let status = loop {
        match replies.message().await {
            Ok(reply) => assert!(reply.is_some(), "it ends by its deadline"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(10));
    let told = process.last().get("grpc-timeout").expect("told").to_str().expect("text").to_owned();
    let micros: u64 = told.strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!(micros <= 400_000, "the process is told what is left: {told}");

    let mut replies = client.greeter().repeat(slow()).await.expect("begun").into_inner();
    replies.message().await.expect("a greeting");
    behind.awaits_sample(&in_flight, 1.0).await;
    drop(replies);
    crate::support::eventually("the call to end", async || {
        let found = crate::support::sample(&behind.metrics().await, &in_flight);
        if found == Some(0.0) { Ok(()) } else { Err(format!("in flight: {found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_takes_no_more_calls_than_it_should_and_another_provider_takes_the_rest() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "g1:worker"]);
    let (c1, w1) = two_nodes(&certificates, &service(&process, ", max_concurrent: 1")).await;
    let client = certificates.client(&w1, "admin").await;
    client.awaits_provider(HELLO, "w1").await;
    let (_open, questions) = tokio::sync::mpsc::channel(1);
    let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
    let _chat = client.greeter().chat(questions).await.expect("begun");

    let status = client.hello("one too many").await.expect_err("refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(error_details(&status).error_info().expect("a reason").reason, "PROVIDER_BUSY");
    let busy = format!("p2p_upstream_call_failures_total{{service=\"{GREETER}\",reason=\"busy\"}}");
    client.awaits_sample(&busy, 1.0).await;
    assert_eq!(process.calls(), 1);

    let seed = c1.address.to_string();
    let _g1 = TestNode::start(Binary::Greeter, certificates.config("g1").seeds(&[&seed])).await;
    for node in [&w1, &c1] {
        let client = certificates.client(node, "admin").await;
        client.awaits_provider(HELLO, "g1").await;
        for _ in 0..20 {
            assert_eq!(client.hello("x").await.expect("greeted").node, "g1");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_no_process_took_is_served_by_another_provider() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "g1:worker"]);
    // Published without being asked, and nobody listens there.
    let gone = Process::start("gone", Kind::default()).await.kill().await;
    let descriptors = certificates.path("greeter.bin");
    std::fs::write(&descriptors, DESCRIPTORS).expect("written");
    let services = format!(
        "[{{name: {GREETER}, upstream: \"http://{gone}\", health: none, descriptors: \"{}\"}}]",
        descriptors.display()
    );
    let (c1, w1) = two_nodes(&certificates, &services).await;
    let client = certificates.client(&w1, "admin").await;
    client.awaits_provider(HELLO, "w1").await;
    let status = client.hello("x").await.expect_err("nobody listens");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(error_details(&status).error_info().expect("a reason").reason, "PROVIDER_UNREACHABLE");
    // The other node has not called it yet, and so knows of neither provider how it answers.
    let client = certificates.client(&c1, "admin").await;
    client.awaits_provider(HELLO, "w1").await;

    let seed = c1.address.to_string();
    let _g1 = TestNode::start(Binary::Greeter, certificates.config("g1").seeds(&[&seed])).await;
    for node in [&c1, &w1] {
        let client = certificates.client(node, "admin").await;
        client.awaits_provider(HELLO, "g1").await;
        for _ in 0..20 {
            assert_eq!(client.hello("x").await.expect("greeted").node, "g1");
        }
    }
    client.awaits_sample("p2p_retries_total{reason=\"refused\"}", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_speaks_tls_is_checked_against_its_own_ca() {
    // Any certificate does, as long as it names the host.
    let theirs = Certificates::new(&["w9:worker"]);
    let tls = Some(theirs.pair("w9"));
    let process = Process::start("process", Kind { tls, ..Kind::default() }).await;
    let certificates = Certificates::new(&["c1:coordinator"]);
    let url = format!("https://localhost:{}", process.address.port());
    let services = |ca: &std::path::Path| {
        let ca = ca.display();
        format!("[{{name: {GREETER}, upstream: \"{url}\", tls_ca: \"{ca}\", health_interval: 100ms}}]")
    };
    let config = certificates.config("c1").set("services", &services(&theirs.path("ca_cert.pem")));
    let node = TestNode::start(Binary::Node, config).await;
    let client = certificates.client(&node, "admin").await;
    client.awaits_provider(HELLO, "c1").await;
    assert_eq!(client.hello("TLS").await.expect("greeted").node, "process");

    let other = certificates.config("c1").set("services", &services(&certificates.path("ca_cert.pem")));
    let node = TestNode::start(Binary::Node, other).await;
    let client = certificates.client(&node, "admin").await;
    let refused = format!("p2p_upstream_check_failures_total{{service=\"{GREETER}\",reason=\"tls\"}}");
    client.awaits_sample(&refused, 1.0).await;
    assert_eq!(process.calls(), 1, "it was given nothing that its certificate does not prove it may have");
}
