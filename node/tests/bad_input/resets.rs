//! Clients that begin calls and take them back without end ("rapid reset", CVE-2023-44487), by hand-made frames: libraries
//! do not send what is taken back at once.

use crate::support::{Binary, Certificates, TestNode, eventually};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Types and flags of frames (RFC 9113 § 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Error codes (RFC 9113 § 7).
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A field whose name is `name` of HPACK's table (RFC 7541 § 6.2.2, appendix A).
fn field(name: u8, value: &str) -> Vec<u8> {
    let mut field = match name {
        0..15 => vec![name],
        15.. => vec![15, name - 15],
    };
    match value.len() {
        length @ 0..127 => field.push(u8::try_from(length).expect("below 127")),
        mut rest => {
            field.push(127);
            rest -= 127;
            while rest >= 128 {
                field.push(u8::try_from(rest % 128 + 128).expect("a byte"));
                rest /= 128;
            }
            field.push(u8::try_from(rest).expect("below 128"));
        }
    }
    [field, value.as_bytes().to_vec()].concat()
}

/// An HTTP/2 connection below any library.
struct Raw {
    tls: TlsStream<TcpStream>,
    head: Vec<u8>,
    stream: u32,
}

impl Raw {
    /// Connects as nobody, to call `path` with `token`.
    async fn connect(certificates: &Certificates, address: SocketAddr, path: &str, token: &str) -> Self {
        let tcp = TcpStream::connect(address).await.expect("connected");
        let tls = TlsConnector::from(certificates.tls_client(None, &[b"h2"]));
        let mut tls = tls.connect("localhost".try_into().expect("a name"), tcp).await.expect("a handshake");
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
        tls.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("sent");
        // POST, https; path, authority, content-type, authorization.
        let head = [
            vec![0x83, 0x87],
            field(4, path),
            field(1, "localhost"),
            field(31, "application/grpc"),
            field(23, &format!("Bearer {token}")),
        ];
        Self { tls, head: head.concat(), stream: 1 }
    }

    /// The frame that begins the next call, whose body does not come, and the number of its stream.
    fn begin(&mut self) -> (u32, Vec<u8>) {
        let stream = self.stream;
        self.stream += 2;
        (stream, frame(HEADERS, END_HEADERS, stream, &self.head))
    }

    /// The frames of a call that is taken back as soon as it has begun, with or without a request.
    fn begin_and_take_back(&mut self, whole: bool) -> Vec<u8> {
        let (stream, begun) = self.begin();
        let request = if whole { frame(DATA, END_STREAM, stream, &[0; 5]) } else { Vec::new() };
        [begun, request, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    }

    /// Sends `frames` and waits until they are read. `Err` once the node has closed the connection, with the reason that
    /// it gave if it did.
    async fn send(&mut self, frames: &[u8]) -> Result<(), Option<u32>> {
        let ping = frame(PING, 0, 0, &[0; 8]);
        let sent = self.tls.write_all(&[frames, &ping].concat()).await;
        let mut why = None;
        // What it said before it closed can be read, also when no more can be sent.
        loop {
            let mut head = [0; 9];
            if self.tls.read_exact(&mut head).await.is_err() {
                return Err(why);
            }
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if self.tls.read_exact(&mut payload).await.is_err() {
                return Err(why);
            }
            match (head[3], head[4]) {
                (PING, ACK) if sent.is_ok() => return Ok(()),
                (GOAWAY, _) => why = payload[4..8].try_into().ok().map(u32::from_be_bytes),
                _ => {}
            }
        }
    }
}

/// A node with a greeter, and a token for it, with whose bearer no rate limit interferes.
async fn start() -> (Certificates, TestNode, String) {
    let certificates = Certificates::new(&["g1:coordinator"]);
    let node =
        TestNode::start(Binary::Greeter, certificates.config("g1").set("coordinator_mode", "true")).await;
    let token = certificates.client(&node, "admin").await.issue("somebody", &["demo.*"]).await;
    (certificates, node, token.expect("issued"))
}

const HELLO: &str = "/demo.v1.Greeter/SayHello";
const ENDED: &str = "p2p_connections_ended_total{reason=\"resets\"}";

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_taken_back_without_end_cost_their_connection_and_nobody_else() {
    let (certificates, node, token) = start().await;
    let (admin, observer) = (certificates.client(&node, "admin").await, certificates.observer(&node).await);
    let mut raw = Raw::connect(&certificates, node.address, HELLO, &token).await;
    let mut begun = 0;
    // One after the other, each read before the next is sent: no library's own limit of frames is reached.
    loop {
        let frames = raw.begin_and_take_back(begun % 2 == 0);
        if raw.send(&frames).await.is_err() {
            break;
        }
        begun += 1;
        assert!(begun < 20_000, "it is never cut off");
        if begun % 500 == 0 {
            admin.hello("you").await.expect("greeted");
        }
    }
    assert!(begun >= 1000, "cut off after {begun} calls");
    observer.awaits_sample(ENDED, 1.0).await;
    // What was begun has ended, and whoever is the same client may come again.
    eventually("no call under way", async || {
        let metrics = observer.metrics().await;
        match crate::support::sample(&metrics, "p2p_calls_under_way") {
            // The one that asks is none: metrics are told in any case.
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let mut again = Raw::connect(&certificates, node.address, HELLO, &token).await;
    let frames = again.begin_and_take_back(false);
    assert_eq!(again.send(&frames).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_taken_back_before_they_are_looked_at_end_their_connection_at_once() {
    let (certificates, node, token) = start().await;
    let observer = certificates.observer(&node).await;
    let mut raw = Raw::connect(&certificates, node.address, HELLO, &token).await;
    let frames: Vec<u8> = (0..10_000).flat_map(|_| raw.begin_and_take_back(false)).collect();
    let why = tokio::time::timeout(Duration::from_secs(20), raw.send(&frames)).await.expect("closed");
    // A connection that is reset takes the reason with it.
    assert!(matches!(why, Err(None | Some(ENHANCE_YOUR_CALM))), "{why:?}");
    observer.awaits_sample(ENDED, 1.0).await;
    certificates.client(&node, "admin").await.hello("you").await.expect("greeted");
}

/// "MadeYouReset" (CVE-2025-8671): the client has the node take back the calls.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_the_node_is_made_to_take_back_count_the_same() {
    let (certificates, node, token) = start().await;
    let observer = certificates.observer(&node).await;
    let mut raw = Raw::connect(&certificates, node.address, HELLO, &token).await;
    let mut begun = 0;
    loop {
        let (stream, head) = raw.begin();
        // A window beyond 2^31-1 is an error of its stream (RFC 9113 § 6.9.1).
        let broken = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        if raw.send(&[head, broken].concat()).await.is_err() {
            break;
        }
        begun += 1;
        assert!(begun < 20_000, "it is never cut off");
    }
    assert!(begun >= 1000, "cut off after {begun} calls");
    observer.awaits_sample(ENDED, 1.0).await;
    certificates.client(&node, "admin").await.hello("you").await.expect("greeted");
}
