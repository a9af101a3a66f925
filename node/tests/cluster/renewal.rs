//! Certificates that live for seconds: renewed, recovered and replaced under running calls.

use crate::support::{
    Binary, Certificates, Client, Cluster, TestNode, eventually,
    greeter::{HelloReply, HelloRequest, RepeatRequest},
    in_days, sample,
};
use p2p_node::identity::{UnixTime, Validity};
use p2p_proto::v1::MemberState;
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Life of the certificates of these tests.
const LIFE: Duration = Duration::from_secs(12);
/// How long an expired certificate's calls may go on, and then some.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// A greeting each 20 ms, without end.
fn endless() -> RepeatRequest {
    RepeatRequest { name: "you".to_owned(), count: u32::MAX, pause_ms: 20 }
}

async fn next(replies: &mut Streaming<HelloReply>) {
    let reply = tokio::time::timeout(LAST_CALLS, replies.message()).await.expect("in time");
    assert!(reply.expect("the stream holds").is_some(), "the stream goes on");
}

fn short_lived(certificates: &Certificates, node: &str) {
    let spiffe = format!("spiffe://test/worker/{node}");
    certificates.issue(node, &spiffe, Validity::lasting(UnixTime::now(), LIFE));
}

/// The coordinator `c1`, whose certificates live for [`LIFE`].
async fn coordinator(certificates: &Certificates) -> TestNode {
    let config = certificates.config("c1").set("enrolled_certificate_ttl", "12s");
    TestNode::start(Binary::Node, config).await
}

async fn expiry(observer: &Client, node: &str) -> i64 {
    let members = observer.members().await.expect("a list");
    let found = members.iter().find(|member| member.node_id == node).expect("a member");
    found.cert_expires_at.as_ref().expect("a time").seconds
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_renew_by_themselves_and_no_call_notices() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let c1 = coordinator(&certificates).await;
    for node in ["w1", "g1"] {
        short_lived(&certificates, node);
    }
    let seeds = c1.address.to_string();
    let w1 = TestNode::start(Binary::Node, certificates.config("w1").seeds(&[&seeds])).await;
    let g1 = TestNode::start(Binary::Greeter, certificates.config("g1").seeds(&[&seeds])).await;
    let client = certificates.client(&w1, "admin").await;
    client.awaits_provider("demo.v1.Greeter/SayHello", "g1").await;
    let observer = certificates.observer(&c1).await;
    for node in ["w1", "g1"] {
        observer.awaits_state(node, MemberState::Alive).await;
    }

    let (since, first_end) = (Instant::now(), expiry(&observer, "w1").await);
    let mut replies = client.greeter().repeat(endless()).await.expect("open").into_inner();
    // Beyond the end of the certificates that the stream was opened with, and the grace after it.
    let long_enough = LIFE + LAST_CALLS + Duration::from_secs(4);
    while since.elapsed() < long_enough {
        for _ in 0..10 {
            next(&mut replies).await;
        }
        client.hello("you").await.expect("new calls find their way, too");
    }
    for (node, name) in [(&w1, "w1"), (&g1, "g1")] {
        let renewed_until = expiry(&observer, name).await;
        assert!(renewed_until >= first_end + 12, "{name} has renewed at least twice:\n{}", node.log());
        let metrics = certificates.client(node, "admin").await.metrics().await;
        let renewals = sample(&metrics, "p2p_certificate_renewals_total{result=\"ok\"}");
        assert!(renewals >= Some(2.0), "{name}: {renewals:?}");
        for result in ["recovered", "unreachable", "refused", "invalid", "files", "ca"] {
            let name = format!("p2p_certificate_renewals_total{{result=\"{result}\"}}");
            assert_eq!(sample(&metrics, &name), Some(0.0), "{}", node.log());
        }
        let ca = sample(&metrics, "p2p_ca_certificate_expiry_timestamp_seconds").expect("a sample");
        assert!(ca > UnixTime::now().as_secs() as f64);
        observer.awaits_state(name, MemberState::Alive).await;
    }
    let suspected = sample(&observer.metrics().await, "p2p_member_transitions_total{state=\"down\"}");
    assert_eq!(suspected, Some(0.0), "nobody was declared down:\n{}", c1.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_found_no_coordinator_in_time_recovers_while_it_runs() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let mut c1 = coordinator(&certificates).await;
    c1.config = c1.config.set("port", &c1.address.port().to_string());
    short_lived(&certificates, "w1");
    let seeds = c1.address.to_string();
    let w1 = TestNode::start(Binary::Node, certificates.config("w1").seeds(&[&seeds])).await;
    let observer = certificates.observer(&c1).await;
    observer.awaits_state("w1", MemberState::Alive).await;
    let client = certificates.client(&w1, "admin").await;
    c1.signal(Signal::KILL);
    c1.ends().await;
    let expired = UnixTime::now().as_secs() + LIFE.as_secs();
    eventually("the certificate to expire", async || {
        if UnixTime::now().as_secs() > expired { Ok(()) } else { Err("it is in time".to_owned()) }
    })
    .await;
    let c1 = c1.start_again(Binary::Node).await;
    client.awaits_sample("p2p_certificate_renewals_total{result=\"recovered\"}", 1.0).await;
    let metrics = client.metrics().await;
    assert!(sample(&metrics, "p2p_certificate_renewals_total{result=\"unreachable\"}") >= Some(1.0));
    let issued = certificates.observer(&c1).await.metrics().await;
    assert_eq!(sample(&issued, "p2p_enrolments_total{result=\"recovered\"}"), Some(1.0), "{}", w1.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_with_an_expired_certificate_issues_itself_another_at_start() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let validity = Validity { not_before: in_days(-2), not_after: in_days(-1) };
    certificates.issue("c1", "spiffe://test/coordinator/c1", validity);
    let mut c1 = coordinator(&certificates).await;
    c1.logs("recovered; a new certificate and key are written").await;
    certificates.stranger(&c1).await;
    // And again when its time comes, without anybody else.
    c1.logs("certificate renewed; open connections stay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_does_not_keep_a_connection_for_ever() {
    let certificates = Certificates::new(&["g1:worker"]);
    let g1 = TestNode::start(Binary::Greeter, certificates.config("g1")).await;
    let life = Duration::from_secs(2);
    certificates.issue("guest", "spiffe://test/admin/guest", Validity::lasting(UnixTime::now(), life));
    let guest = certificates.client(&g1, "guest").await;
    let since = Instant::now();
    let mut replies = guest.greeter().repeat(endless()).await.expect("open").into_inner();
    while let Ok(Some(_)) = replies.message().await {
        assert!(since.elapsed() < life + 2 * LAST_CALLS, "it goes on");
    }
    assert!(since.elapsed() > LAST_CALLS, "calls in flight get some time: {:?}", since.elapsed());
    guest.hello("again").await.expect_err("the certificate has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_taken_up_without_a_signal_and_streams_stay() {
    let certificates = Certificates::new(&["g1:worker"]);
    let mut g1 = TestNode::start(Binary::Greeter, certificates.config("g1")).await;
    let client = certificates.client(&g1, "admin").await;
    let (sender, receiver) = mpsc::channel(1);
    let mut replies = client.greeter().chat(ReceiverStream::new(receiver)).await.expect("open").into_inner();

    let key = certificates.read("g1_key.pem");
    let week = Validity { not_before: in_days(-1), not_after: in_days(7) };
    certificates.issue("g1", "spiffe://test/worker/g1", week);
    let new_key = certificates.read("g1_key.pem");
    std::fs::write(certificates.path("g1_key.pem"), key).expect("written");
    g1.logs("do not hold together").await;
    std::fs::write(certificates.path("g1_key.pem"), new_key).expect("written");
    g1.logs("new certificates in force: their files have changed").await;
    assert_eq!(g1.log().matches("do not hold together").count(), 1, "{}", g1.log());

    sender.send(HelloRequest { name: "still there".to_owned() }).await.expect("sent");
    let reply = replies.message().await.expect("no error").expect("a reply");
    assert_eq!(reply.message, "Hello, still there!");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_worker_itself_renews_its_certificate() {
    use p2p_proto::v1::{RenewRequest, enrollment_service_client::EnrollmentServiceClient};
    let cluster = Cluster::start().await;
    let request = || RenewRequest { csr: vec![1].into(), sans: vec![] };
    for (client, says) in [
        (cluster.certificates.stranger(&cluster.c1).await, "needs a client certificate"),
        (cluster.admin(&cluster.c1).await, "it takes a node's certificate"),
        (cluster.certificates.client(&cluster.c1, "c1").await, "is not DER-encoded PKCS #10"),
    ] {
        let status =
            EnrollmentServiceClient::new(client.channel).renew(request()).await.expect_err("refused");
        assert!(status.message().contains(says), "{status}");
    }
}
