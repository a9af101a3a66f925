//! What arrives, and how much of it is held on the way.

use crate::{
    Pair, Way, both_ways,
    support::{PATIENCE, error_details, greeter::HelloRequest},
};
use bytes::{BufMut as _, BytesMut};
use http_body_util::{BodyExt as _, Full};
use p2p_node::{
    peer::{PeerConnection, dial},
    revocation::Live,
};
use prost::Message as _;
use tonic::{Code, Request, body::Body, metadata::MetadataValue};

both_ways!(
    metadata_and_errors_arrive_as_sent,
    large_messages_arrive_whole,
    callers_that_do_not_read_take_little_and_hold_up_nobody,
);

async fn metadata_and_errors_arrive_as_sent(way: Way) {
    let pair = Pair::start(way).await;
    let mut request = Request::new(HelloRequest { name: "you".to_owned() });
    let binary: [&[u8]; 2] = [&[0, 1, 2, 255], &[]];
    for value in binary {
        request.metadata_mut().append_bin("x-echo-bin", MetadataValue::from_bytes(value));
    }
    for value in ["one", "two"] {
        request.metadata_mut().append("x-echo", value.parse().expect("a value"));
    }
    let answer = pair.client.greeter().say_hello(request).await.expect("greeted");
    let echoed = answer.metadata().get_all_bin("x-echo-bin").iter();
    let echoed: Vec<_> = echoed.map(|value| value.to_bytes().expect("base64")).collect();
    assert_eq!(echoed, binary);
    let echoed: Vec<_> = answer.metadata().get_all("x-echo").iter().collect();
    assert_eq!(echoed, ["one", "two"]);
    assert_eq!(answer.metadata().get("p2p-served-by").expect("who served"), "p1");
    assert_eq!(answer.into_inner().caller, "spiffe://test/admin/admin");

    let status = pair.client.hello("fail").await.expect_err("as told");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "as told: naïve"));
    let violations = error_details(&status).bad_request().expect("the details").field_violations.clone();
    assert_eq!(violations[0].field, "name");
    let trailer = status.metadata().get_bin("x-trailer-bin").expect("the trailer");
    assert_eq!(trailer.to_bytes().expect("base64").as_ref(), [0, 255, 10]);

    // A refusal of the provider's own stack: no such node's token, so no such caller.
    let mut request = Request::new(HelloRequest { name: "you".to_owned() });
    request.metadata_mut().insert("authorization", "Bearer nonsense".parse().expect("a value"));
    let status = pair.client.greeter().say_hello(request).await.expect_err("no token");
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    pair.went_its_way().await;
}

async fn large_messages_arrive_whole(way: Way) {
    let pair = Pair::start(way).await;
    let calls = (0..8_usize).map(|number| {
        let (client, size) =
            (pair.client.clone(), [0, 1, 16_300, 65_500, 65_536, 100_000, 1 << 20, 3 << 20][number]);
        tokio::spawn(async move {
            let reply = client.hello(&format!("size:{size}")).await.expect("answered");
            assert_eq!(reply.message.len(), size);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("whole");
    }
    // Requests around the largest that a stream carries, and far above.
    for size in [60_000, 65_536, 70_000, 2 << 20] {
        let reply = pair.client.hello(&"n".repeat(size)).await.expect("answered");
        assert_eq!(reply.message.len(), size + "Hello, !".len());
    }
    if way == Way::Stream {
        pair.client.awaits_sample("p2p_peer_stream_excess_total{reason=\"body\"}", 3.0).await;
    }
    pair.went_its_way().await;
}

/// A call whose answer is read by hand.
pub(crate) fn raw(name: &str) -> http::Request<Body> {
    let message = HelloRequest { name: name.to_owned() }.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("small"));
    framed.put_slice(&message);
    http::Request::post("/demo.v1.Greeter/SayHello")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(framed.freeze())))
        .expect("a request")
}

/// A connection to `c1` that reads what is asked for only.
pub(crate) async fn connection(pair: &Pair) -> PeerConnection {
    let tls = pair.certificates.tls_client(Some("admin"), &[b"h2"]);
    dial(pair.c1.address, tls, &Live::default()).await.expect("connected")
}

/// Memory of `c1` in KiB.
fn resident(pair: &Pair) -> u64 {
    let id = pair.c1.process_id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn callers_that_do_not_read_take_little_and_hold_up_nobody(way: Way) {
    const UNREAD: usize = 60;
    const SIZE: usize = 3 << 20;
    let pair = Pair::start(way).await;
    let mut connection = connection(&pair).await;
    let before = resident(&pair);
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        let answer = tokio::time::timeout(PATIENCE, connection.send(raw(&format!("size:{SIZE}")))).await;
        unread.push(answer.expect("in time").expect("an answer"));
    }
    for _ in 0..200 {
        let reply = tokio::time::timeout(PATIENCE, pair.client.hello("you")).await;
        reply.expect("not held up").expect("greeted");
    }
    let grown = resident(&pair).saturating_sub(before);
    assert!(grown < 60 * 1024, "{grown} KiB for {UNREAD} answers of 3 MiB");
    // And they are whole once they are read.
    for answer in unread {
        let read = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await;
        let read = read.expect("in time").expect("whole");
        assert_eq!(read.trailers().expect("trailers")["grpc-status"], "0");
        assert!(read.to_bytes().len() > SIZE);
    }
    pair.went_its_way().await;
}
