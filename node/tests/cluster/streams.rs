//! Streams, deadlines and cancellation through a hop.

use crate::support::{
    Client, Cluster, PATIENCE, TestNode, eventually,
    greeter::{HelloReply, HelloRequest, RepeatRequest, greeter_client::GreeterClient},
    sample,
};
use p2p_node::{
    peer::{PeerConnection, dial},
    revocation::Live,
};
use p2p_proto::v1::MemberState;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

const MESSAGES: usize = 1_000;

fn named(name: impl Into<String>) -> HelloRequest {
    HelloRequest { name: name.into() }
}

/// An endless answer: a greeting each 5 ms.
fn endless() -> RepeatRequest {
    RepeatRequest { name: "you".to_owned(), count: u32::MAX, pause_ms: 5 }
}

async fn next(replies: &mut Streaming<HelloReply>) -> Option<HelloReply> {
    replies.message().await.expect("no error")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_kinds_of_streaming_pass_through_another_node() {
    let cluster = Cluster::start().await;
    let client = cluster.admin(&cluster.w1).await;
    let mut greeter = client.greeter();

    assert_eq!(client.hello("one").await.expect("greeted").message, "Hello, one!");

    let many = RepeatRequest { name: "many".to_owned(), count: 500, pause_ms: 0 };
    let mut replies = greeter.repeat(many).await.expect("greeted").into_inner();
    let mut count = 0;
    while let Some(reply) = next(&mut replies).await {
        assert_eq!(reply.message, "Hello, many!");
        count += 1;
    }
    assert_eq!(count, 500);

    // 3 MB upwards, more than any window holds.
    let names = (0..MESSAGES).map(|number| named(format!("{number:03000}")));
    let reply = greeter.gather(tokio_stream::iter(names)).await.expect("greeted").into_inner();
    assert_eq!(reply.message.len(), "Hello, !".len() + MESSAGES * 3000 + (MESSAGES - 1) * " and ".len());
    assert_eq!(reply.node, "g1");

    let (sender, receiver) = mpsc::channel(1);
    let mut replies = greeter.chat(ReceiverStream::new(receiver)).await.expect("open").into_inner();
    for number in 0..MESSAGES {
        sender.send(named(number.to_string())).await.expect("sent");
        let reply = next(&mut replies).await.expect("a reply to each before the next is sent");
        assert_eq!(reply.message, format!("Hello, {number}!"));
    }
    // Half-close: the service sees the end, and ends.
    drop(sender);
    assert_eq!(next(&mut replies).await, None);
}

/// A client that keeps no deadline itself, as tonic's own channel does.
async fn unhurried_greeter(cluster: &Cluster, node: &TestNode) -> GreeterClient<PeerConnection> {
    let tls = cluster.certificates.tls_client(Some("admin"), &[b"h2"]);
    let connection = dial(node.address, tls, &Live::default()).await.expect("connected");
    let origin = format!("https://{}", node.address).parse().expect("a URI");
    GreeterClient::with_origin(connection, origin)
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", "2S".parse().expect("a value"));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_by_the_node_when_the_client_does_not() {
    let cluster = Cluster::start().await;
    let mut greeter = unhurried_greeter(&cluster, &cluster.w1).await;

    // Gathering a stream that never ends gives no head of an answer.
    let (sender, receiver) = mpsc::channel(1);
    sender.send(named("first")).await.expect("sent");
    let started = Instant::now();
    let status = greeter.gather(with_deadline(ReceiverStream::new(receiver))).await.expect_err("late");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
    drop(sender);

    // A running answer is ended, whether it pauses or pours.
    for pause_ms in [5, 0] {
        let started = Instant::now();
        let request = RepeatRequest { pause_ms, name: "x".repeat(10_000), ..endless() };
        let mut replies = greeter.repeat(with_deadline(request)).await.expect("open").into_inner();
        let mut count = 0_u64;
        let status = loop {
            match replies.message().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => panic!("the answer ended without an error after {count} messages"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(count > 0, "some came in time");
        assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_do_not_read_do_not_stall_those_that_do() {
    let cluster = Cluster::start().await;
    let reader = cluster.admin(&cluster.w1).await;
    let mut unread = Vec::new();
    for _ in 0..24 {
        // A connection of its own: what stalls a client's own connection is the client's doing.
        let idle = cluster.admin(&cluster.w1).await;
        let request = RepeatRequest { name: "x".repeat(10_000), pause_ms: 0, ..endless() };
        let mut replies = idle.greeter().repeat(request).await.expect("open").into_inner();
        let first = tokio::time::timeout(PATIENCE, next(&mut replies)).await;
        assert!(first.expect("the calls before it do not stall this one").is_some());
        unread.push(replies);
    }
    for _ in 0..500 {
        let answer = tokio::time::timeout(PATIENCE, reader.hello("still there")).await;
        assert_eq!(answer.expect("not stalled").expect("greeted").node, "g1");
    }
    assert!(reader.members().await.expect("a list").iter().all(|node| node.state() == MemberState::Alive));
}

async fn in_flight(client: &Client) -> Result<f64, String> {
    sample(&client.metrics().await, "p2p_requests_in_flight").ok_or_else(|| "no sample".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_turns_away_ends_the_call_at_the_provider() {
    let cluster = Cluster::start().await;
    let client = cluster.admin(&cluster.w1).await;
    let provider = cluster.certificates.observer(&cluster.g1).await;
    // Gossip streams are in flight all the time.
    let cancelled = "p2p_requests_total{method=\"demo.v1.Greeter/Repeat\",code=\"CANCELLED\"}";
    let mut replies = client.greeter().repeat(endless()).await.expect("open").into_inner();
    assert!(next(&mut replies).await.is_some());
    assert!(in_flight(&provider).await.expect("a sample") >= 1.0);
    drop(replies);
    provider.awaits_sample(cancelled, 1.0).await;
    let entry = cluster.certificates.observer(&cluster.w1).await;
    entry.awaits_sample(cancelled, 1.0).await;

    // The other way: what the provider ends, ends for the caller.
    let (sender, receiver) = mpsc::channel(1);
    let mut replies = client.greeter().chat(ReceiverStream::new(receiver)).await.expect("open").into_inner();
    sender.send(named("there")).await.expect("sent");
    assert!(next(&mut replies).await.is_some());
    cluster.g1.signal(rustix::process::Signal::KILL);
    let status = replies.message().await.expect_err("the provider is dead");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal), "{status}");
    eventually("the caller's stream to close", async || {
        if sender.is_closed() { Ok(()) } else { Err("it is open".to_owned()) }
    })
    .await;
}
