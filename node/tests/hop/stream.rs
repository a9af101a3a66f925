//! What only the peer stream has.

use crate::{
    Pair, Way, sent,
    support::{Client, PATIENCE, eventually, greeter::HelloRequest, sample},
};
use p2p_node::{peer::dial, revocation::Live};
use p2p_proto::v1::{
    GetInfoRequest, PeerAnswer, PeerCall, PeerCancel, PeerFrame, PeerHeader, PeerHello, PeerRefusalReason,
    peer_frame::Kind, peer_service_client::PeerServiceClient,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// The other end of a stream, by hand: a node with a certificate of the cluster.
struct Peer {
    to: mpsc::Sender<PeerFrame>,
    from: Streaming<PeerFrame>,
}

impl Peer {
    /// Opens a stream to `p1` as `name`, and says hello.
    async fn open(pair: &Pair, name: &str) -> Result<Self, Status> {
        let hello =
            PeerHello { address: String::new(), calls_max: 16, features: vec!["unheard-of".to_owned()] };
        let mut peer = Self::open_with(pair, name, Kind::Hello(hello)).await?;
        let first = peer.from.message().await?.and_then(|frame| frame.kind);
        assert!(matches!(first, Some(Kind::Hello(hello)) if hello.calls_max == 1024));
        Ok(peer)
    }

    async fn open_with(pair: &Pair, name: &str, first: Kind) -> Result<Self, Status> {
        let tls = pair.certificates.tls_client(Some(name), &[b"h2"]);
        let connection = dial(pair.p1.address, tls, &Live::default()).await.expect("connected");
        let origin = format!("https://{}", pair.p1.address).parse().expect("a URI");
        let (to, frames) = mpsc::channel(4096);
        to.send(PeerFrame { call: 0, kind: Some(first) }).await.expect("room");
        let mut client = PeerServiceClient::with_origin(connection, origin);
        let from = client.calls(ReceiverStream::new(frames)).await?.into_inner();
        Ok(Self { to, from })
    }

    async fn send(&self, call: u64, kind: Kind) {
        self.to.send(PeerFrame { call, kind: Some(kind) }).await.expect("sent");
    }

    async fn hello(&self, call: u64, name: &str) {
        self.send(call, request(name.to_owned())).await;
    }

    async fn next(&mut self) -> Result<PeerFrame, Status> {
        let frame = tokio::time::timeout(PATIENCE, self.from.message()).await.expect("in time")?;
        frame.ok_or_else(|| Status::ok("the end"))
    }

    async fn answer(&mut self) -> (u64, PeerAnswer) {
        match self.next().await.expect("a frame") {
            PeerFrame { call, kind: Some(Kind::Answer(answer)) } => (call, answer),
            other => panic!("no answer: {other:?}"),
        }
    }

    /// What the stream ends with.
    async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

fn request(name: String) -> Kind {
    let message = HelloRequest { name }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    let body = [&[0], length.as_slice(), message.as_slice()].concat().into();
    let header =
        |name: &'static str, value: &'static str| PeerHeader { name: name.into(), value: value.into() };
    let headers = vec![
        header("content-type", "application/grpc"),
        header("te", "trailers"),
        header("p2p-hop", "1"),
        header("p2p-principal", "spiffe://test/worker/p2"),
    ];
    Kind::Request(PeerCall { path: "/demo.v1.Greeter/SayHello".into(), headers, body })
}

fn grpc_status(answer: &PeerAnswer) -> Option<&[u8]> {
    let headers = answer.trailers.iter().chain(&answer.headers);
    headers.filter(|header| header.name == "grpc-status").map(|header| header.value.as_ref()).next()
}

/// What `p1` counts.
async fn counted(pair: &Pair, name: &str) -> f64 {
    let text = pair.p1.node().metrics().encode(p2p_node::telemetry::Format::Prometheus).expect("text");
    sample(&text, name).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_sends_its_calls_over_the_stream() {
    let pair = Pair::start(Way::Stream).await;
    let (ca, admin) = (pair.certificates.read("ca_cert.pem"), pair.certificates.pair("admin"));
    let at_provider = Client::connect(pair.p1.address, &ca, Some(admin)).await;
    eventually("a call to c1 over the stream", async || {
        let mut request = Request::new(GetInfoRequest {});
        request.metadata_mut().insert("p2p-target-node", "c1".parse().expect("a value"));
        let info = at_provider.system().get_info(request).await.map_err(|status| status.to_string())?;
        assert_eq!(info.into_inner().node_id, "c1");
        if sent(&at_provider, Way::Stream).await >= 1.0 { Ok(()) } else { Err("passed through".to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_streams_is_called_as_before() {
    let pair = Pair::start(Way::Passthrough).await;
    let p2 = crate::Provider::start(&pair.certificates, "p2", &pair.c1, Way::Stream).await;
    pair.client.awaits_provider("demo.v1.Greeter/SayHello", "p2").await;
    let (ca, admin) = (pair.certificates.read("ca_cert.pem"), pair.certificates.pair("admin"));
    let at_p2 = Client::connect(p2.address, &ca, Some(admin)).await;
    let unimplemented = "p2p_peer_stream_faults_total{reason=\"unimplemented\"}";
    eventually("a stream to be refused", async || {
        let mut request = Request::new(HelloRequest { name: "you".to_owned() });
        request.metadata_mut().insert("p2p-target-node", "p1".parse().expect("a value"));
        at_p2.greeter().say_hello(request).await.map_err(|status| status.to_string())?;
        match sample(&at_p2.metrics().await, unimplemented) {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(sent(&at_p2, Way::Stream).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_grants_nothing_gets_its_credit_and_holds_up_nobody() {
    let pair = Pair::start(Way::Stream).await;
    let mut peer = Peer::open(&pair, "p2").await.expect("open");
    peer.hello(1, "size:200000").await;
    let mut read = 0;
    while read < 65_536 {
        let (call, answer) = peer.answer().await;
        assert!(call == 1 && !answer.end && answer.body.len() <= 16_384, "{call}");
        read += answer.body.len();
    }
    assert_eq!(read, 65_536);
    peer.hello(2, "you").await;
    let (call, answer) = peer.answer().await;
    assert!(call == 2 && answer.head && answer.end, "one frame for a small answer: {answer:?}");
    assert_eq!(grpc_status(&answer), Some(b"0".as_slice()));
    // Frames about calls that are over cross with their end; they mean nothing.
    peer.send(2, Kind::Cancel(PeerCancel {})).await;
    peer.send(2, Kind::Credit(1)).await;
    while read < 200_000 {
        peer.send(1, Kind::Credit(16_384)).await;
        let (call, answer) = peer.answer().await;
        assert_eq!(call, 1);
        read += answer.body.len();
        if answer.end {
            assert_eq!(grpc_status(&answer), Some(b"0".as_slice()));
            break;
        }
    }
    assert!(read > 200_000);
    // A caller that turns away.
    peer.hello(3, "wait").await;
    pair.p1.told.awaits_waiting(1).await;
    peer.send(3, Kind::Cancel(PeerCancel {})).await;
    pair.p1.told.awaits_given_up(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_cap_are_refused_and_nothing_of_them_is_processed() {
    let pair = Pair::start(Way::Stream).await;
    let mut peer = Peer::open(&pair, "p2").await.expect("open");
    for call in 1..=1_100 {
        peer.hello(call, "wait").await;
    }
    for call in 1_025..=1_100 {
        let frame = peer.next().await.expect("a frame");
        let Some(Kind::Refusal(refusal)) = frame.kind else { panic!("no refusal: {frame:?}") };
        assert_eq!((frame.call, refusal.reason()), (call, PeerRefusalReason::Busy));
    }
    pair.p1.told.awaits_waiting(1_024).await;
    assert_eq!(counted(&pair, "p2p_peer_stream_refusals_total{reason=\"busy\"}").await, 76.0);
    // The stream's end ends its calls.
    drop(peer);
    pair.p1.told.awaits_given_up(1_024).await;
    pair.client.hello("you").await.expect("others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_breaks_a_rule_loses_its_stream() {
    let pair = Pair::start(Way::Stream).await;
    let hello = || Kind::Hello(PeerHello::default());
    let answer =
        |body: usize| Kind::Answer(PeerAnswer { body: vec![0; body].into(), ..PeerAnswer::default() });
    let rules: [(&str, u64, Kind); 8] = [
        ("never made", 9, Kind::Credit(1)),
        ("never made", 9, Kind::Cancel(PeerCancel {})),
        ("never made", 9, answer(1)),
        ("credit beyond", 1, Kind::Credit(1)),
        ("not higher", 1, request("you".to_owned())),
        ("a request of more", 2, request("n".repeat(66_000))),
        ("none", 2, Kind::Request(PeerCall { path: "no path".into(), ..PeerCall::default() })),
        ("a hello", 0, hello()),
    ];
    let violations = "p2p_peer_stream_faults_total{reason=\"violation\"}";
    for (number, (says, call, kind)) in rules.into_iter().enumerate() {
        let peer = Peer::open(&pair, "p2").await.expect("open");
        peer.hello(1, "wait").await;
        pair.p1.told.awaits_waiting(1).await;
        peer.send(call, kind).await;
        let status = peer.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{says}: {status}");
        assert!(status.message().contains(says), "{says}: {status}");
        pair.p1.told.awaits_given_up(number + 1).await;
        assert_eq!(counted(&pair, violations).await, (number + 1) as f64);
    }
    let mute = Peer::open_with(&pair, "p2", Kind::Credit(1)).await.expect("open");
    assert!(mute.end().await.message().contains("a hello"), "it comes first");
    pair.client.hello("you").await.expect("others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_open_streams_and_only_some() {
    let pair = Pair::start(Way::Stream).await;
    let refused = Peer::open(&pair, "admin").await.err().expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Peer::open(&pair, "p2").await.expect("open"));
    }
    let excess = Peer::open(&pair, "p2").await.expect("open").end().await;
    assert_eq!(excess.code(), Code::ResourceExhausted, "{excess}");
    drop(open);
    eventually("room for another", async || {
        let mut peer = Peer::open(&pair, "p2").await.map_err(|status| status.to_string())?;
        peer.hello(1, "you").await;
        peer.next().await.map(drop).map_err(|status| status.to_string())
    })
    .await;
}

/// A node that has another open a stream for it would speak in that one's name.
#[tokio::test(flavor = "multi_thread")]
async fn no_node_speaks_for_another_by_having_its_stream_forwarded() {
    let pair = Pair::start(Way::Stream).await;
    let tls = pair.certificates.tls_client(Some("p2"), &[b"h2"]);
    let connection = dial(pair.c1.address, tls, &Live::default()).await.expect("connected");
    let origin: http::Uri = format!("https://{}", pair.c1.address).parse().expect("a URI");
    let mut request = Request::new(tokio_stream::iter([PeerFrame {
        call: 0,
        kind: Some(Kind::Hello(PeerHello::default())),
    }]));
    request.metadata_mut().insert("p2p-target-node", "p1".parse().expect("a value"));
    let refused = PeerServiceClient::with_origin(connection.clone(), origin.clone()).calls(request).await;
    assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
    // Nor by gossip.
    let mut request = Request::new(tokio_stream::empty());
    request.metadata_mut().insert("p2p-target-node", "p1".parse().expect("a value"));
    let mut gossip =
        p2p_proto::v1::gossip_service_client::GossipServiceClient::with_origin(connection, origin);
    assert_eq!(gossip.exchange(request).await.expect_err("refused").code(), Code::PermissionDenied);
}
