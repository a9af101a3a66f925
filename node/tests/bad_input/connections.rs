//! Bytes and certificates that are no client's.

use crate::support::{Binary, Certificates, Client, TestNode, eventually, in_days, sample};
use p2p_node::identity::{Ca, UnixTime, Validity};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

fn refused(reason: &str) -> String {
    format!("p2p_connections_refused_total{{reason=\"{reason}\"}}")
}

async fn start() -> (Certificates, TestNode, Client) {
    start_with("10s").await
}

/// A node that trusts the CA of another cluster beside its own, and waits for clients as long as `timeout`.
async fn start_with(timeout: &str) -> (Certificates, TestNode, Client) {
    let certificates = Certificates::new(&["w1:worker"]);
    let day = Validity::days(UnixTime::now(), 1).expect("a day");
    let elsewhere = Ca::generate(&"elsewhere".parse().expect("a cluster"), day).expect("a CA");
    certificates.issue_by(&elsewhere, "v1", "spiffe://elsewhere/worker/v1", day);
    let both = certificates.read("ca_cert.pem") + elsewhere.cert_pem();
    std::fs::write(certificates.path("both_cert.pem"), both).expect("written");
    let config = certificates
        .config("w1")
        .set("ssl_ca_cert_file", &certificates.path("both_cert.pem").display().to_string())
        .set("tls_handshake_timeout", timeout)
        .set("http_preface_timeout", timeout);
    let node = TestNode::start(Binary::Node, config).await;
    let observer = certificates.observer(&node).await;
    (certificates, node, observer)
}

/// What the node answers before it closes the connection.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset also ends it; what came before counts.
    read.expect("the node closes the connection").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_neither_tls_nor_http_is_dropped_and_counted() {
    let (_certificates, node, observer) = start().await;
    for garbage in [&b"\x00\x01\x02\x03"[..], b"ssh-2.0\r\n", &[0xff; 4096]] {
        let mut tcp = TcpStream::connect(node.address).await.expect("connected");
        tcp.write_all(garbage).await.expect("sent");
        assert_eq!(answer(&mut tcp).await, "");
    }
    observer.awaits_sample(&refused("garbage"), 3.0).await;
    // A handshake that begins well and goes on badly.
    let mut tcp = TcpStream::connect(node.address).await.expect("connected");
    tcp.write_all(&[22, 3, 1, 0, 5, 1, 2, 3, 4, 5]).await.expect("sent");
    answer(&mut tcp).await;
    observer.awaits_sample(&refused("handshake"), 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_to_use_https() {
    let (_certificates, node, observer) = start().await;
    // Longer than one segment, so that the answer must not be lost to a reset.
    let long =
        format!("POST /rpc HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000));
    for request in ["GET /health HTTP/1.1\r\nhost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &long] {
        let mut tcp = TcpStream::connect(node.address).await.expect("connected");
        let (mut read, mut write) = tcp.split();
        let (answer, _sent) = tokio::join!(answer(&mut read), write.write_all(request.as_bytes()));
        let (head, body) =
            answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert_eq!(body, "this port speaks TLS; use https:// in the address\n");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    }
    observer.awaits_sample(&refused("plain_http"), 3.0).await;
    // As an HTTP client sees it.
    let url = format!("http://{}/health", node.address);
    let seen = reqwest::Client::builder().no_proxy().build().expect("a client").get(url).send().await;
    let seen = seen.expect("an answer");
    assert_eq!(seen.status(), 400);
    assert!(seen.text().await.expect("a body").contains("use https://"));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_cut_off_before_and_after_the_handshake() {
    let (certificates, node, observer) = start_with("1s").await;
    let mut silent = TcpStream::connect(node.address).await.expect("connected");
    assert_eq!(answer(&mut silent).await, "");
    observer.awaits_sample(&refused("timeout"), 1.0).await;

    for (count, protocol) in [(1.0, &b"h2"[..]), (2.0, b"http/1.1")] {
        let tcp = TcpStream::connect(node.address).await.expect("connected");
        let tls = TlsConnector::from(certificates.tls_client(None, &[protocol]));
        let name = "localhost".try_into().expect("a name");
        let mut tls = tls.connect(name, tcp).await.expect("a handshake");
        answer(&mut tls).await;
        observer.awaits_sample(&refused("preface"), count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_must_be_of_this_ca_this_cluster_and_this_time() {
    let (certificates, node, observer) = start().await;
    let day = Validity::days(UnixTime::now(), 1).expect("a day");
    let other_ca = Certificates::new(&[]).ca();
    certificates.issue_by(&other_ca, "other_ca", "spiffe://test/admin/admin", day);
    certificates.issue("token_signer", "spiffe://test/token-signer/w1", day);
    let past = Validity { not_before: in_days(-10), not_after: in_days(-1) };
    certificates.issue("expired", "spiffe://test/admin/admin", past);

    for (count, name) in [(1.0, "other_ca"), (2.0, "v1"), (3.0, "token_signer"), (4.0, "expired")] {
        let http =
            Client::connect_lazily(node.address, &certificates.read("ca_cert.pem"), certificates.pair(name));
        let answer = http.http(false).get(http.url("/health")).send().await;
        assert!(answer.is_err(), "{name}: {answer:?}");
        observer.awaits_sample(&refused("handshake"), count).await;
    }
    let log = node.log();
    for sentence in [
        "issued by another CA",
        "spiffe://elsewhere/worker/v1 belongs to cluster elsewhere, not to cluster test",
        "expired on 20",
    ] {
        assert!(log.contains(sentence), "{sentence:?} is missing from:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_do_not_join_whatever_the_reason() {
    // The same cluster id under another CA, and another cluster id under the same CA.
    let (certificates, node, observer) = start().await;
    let foreign = Certificates::new(&["x1:worker"]);
    let seed = node.address.to_string();
    for (certificates, name, ca, sentence) in [
        (&foreign, "x1", "ca_cert.pem", "issued by another CA"),
        (&certificates, "v1", "both_cert.pem", "belongs to cluster test, not to cluster elsewhere"),
    ] {
        let ca = certificates.path(ca).display().to_string();
        let config = certificates.config(name).set("ssl_ca_cert_file", &ca).seeds(&[&seed]);
        let mut stranger = TestNode::start(Binary::Node, config).await;
        let line = stranger.logs("seed not reached").await;
        assert!(line.contains(sentence), "{line}");
        let trusted = std::fs::read_to_string(ca).expect("a file of the test");
        let other = Client::connect(stranger.address, &trusted, Some(certificates.pair(name))).await;
        other.awaits_sample("p2p_peer_dials_total{result=\"tls\"}", 1.0).await;
        assert_eq!(other.members().await.expect("a list").len(), 1, "{name} takes no member either");
    }
    assert_eq!(observer.members().await.expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_cap_are_closed_and_counted() {
    let certificates = Certificates::new(&["w1:worker"]);
    let config = certificates.config("w1").set("connections_max", "2").set("tls_handshake_timeout", "600");
    let node = TestNode::start(Binary::Node, config).await;
    let observer = certificates.observer(&node).await;
    // The gRPC channel is one; this is two. A client may dial anew before it takes the open one again, and is
    // refused then as the third is.
    let http = observer.http(false);
    let get = async || -> Result<String, String> {
        let answer = http.get(observer.url("/metrics")).send().await.map_err(|error| error.to_string())?;
        answer.text().await.map_err(|error| error.to_string())
    };
    eventually("the second connection", async || get().await.map(drop)).await;
    let mut third = TcpStream::connect(node.address).await.expect("accepted by the system");
    assert_eq!(answer(&mut third).await, "");
    eventually("the refusal to be counted", async || {
        let metrics = get().await?;
        let refusals = sample(&metrics, &refused("limit")).unwrap_or_default();
        let open = sample(&metrics, "p2p_connections");
        if refusals >= 1.0 && open == Some(2.0) { Ok(()) } else { Err(metrics) }
    })
    .await;
}
