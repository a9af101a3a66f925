//! The local socket, where the system says who calls, and the audit log, which keeps what they did.

mod support;

use hyper_util::rt::TokioIo;
use p2p_proto::v1::{
    CreateJoinTokenRequest, EvictRequest, GossipFrame, ListNodesRequest, MemberState, ServiceState,
    SetServiceStateRequest, cluster_service_client::ClusterServiceClient,
    enrollment_service_client::EnrollmentServiceClient, gossip_service_client::GossipServiceClient,
    registry_service_client::RegistryServiceClient,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{Binary, Certificates, Cluster, TestNode, eventually};
use tokio::net::UnixStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

/// A gRPC channel over a socket, in plain HTTP/2, as `grpcurl -plaintext -unix` opens it.
async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(dial).await.expect("connected")
}

/// The SPIFFE id of an admin that the user of this test counts as.
fn own_admin() -> String {
    format!("spiffe://test/admin/uid-{}", rustix::process::geteuid().as_raw())
}

fn lines(path: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.lines().map(|line| serde_json::from_str(line).map_err(|error| error.to_string())).collect()
}

/// The lines of the audit log once there are `count`.
async fn audited(path: &Path, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    eventually("lines of the audit log", async || {
        found = lines(path)?;
        if found.len() >= count { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    found
}

async fn start(name: &str, role: &str) -> (Certificates, TestNode, PathBuf, PathBuf) {
    let certificates = Certificates::new(&[&format!("{name}:{role}")]);
    let (socket, log) = (certificates.path("node.sock"), certificates.path("audit.jsonl"));
    let config = certificates
        .config(name)
        .set("listen_socket", &socket.display().to_string())
        .set("audit_log", &log.display().to_string());
    let node = TestNode::start(Binary::Node, config).await;
    (certificates, node, socket, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_a_coordinator_is_an_admin_and_what_it_does_is_kept() {
    let (certificates, mut node, socket, log) = start("c1", "coordinator").await;
    let channel = connect(&socket).await;
    let request = CreateJoinTokenRequest { role: "worker".to_owned(), ..CreateJoinTokenRequest::default() };
    let made = EnrollmentServiceClient::new(channel.clone()).create_join_token(request).await;
    let token = made.expect("made").into_inner().token;
    let evict = EvictRequest { node_id: "no-such".to_owned(), ..EvictRequest::default() };
    let evicted = ClusterServiceClient::new(channel).evict(evict).await;
    let code = evicted.err().map_or(Code::Ok, |status| status.code());

    let http = reqwest::Client::builder().no_proxy().unix_socket(socket.clone()).build().expect("a client");
    let health: Value =
        http.get("http://localhost/health").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(health["cluster"]["node_id"], "c1", "details are for members: {health}");
    // A stranger that tries the same over the port, and an admin with its certificate.
    let stranger = certificates.stranger(&node).await;
    let refused = stranger.join_token(CreateJoinTokenRequest::default()).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let admin = certificates.client(&node, "admin").await;
    let bearer = admin.issue("ci", &["demo.*"]).await.expect("issued");

    let found = audited(&log, 4).await;
    let uid = rustix::process::geteuid().as_raw();
    let line = |at: usize, field: &str| found[at][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(line(0, "act"), "p2p.v1.EnrollmentService/CreateJoinToken");
    assert_eq!(
        (line(0, "by"), line(0, "evidence"), line(0, "result")),
        (own_admin(), "local".into(), "OK".into())
    );
    assert_eq!(found[0]["uid"], uid);
    assert!(line(0, "note").contains("worker"), "{}", found[0]);
    assert_eq!(
        (line(1, "act"), line(1, "note")),
        ("p2p.v1.ClusterService/Evict".into(), "node no-such".into())
    );
    assert_eq!(line(1, "result") == "OK", code == Code::Ok, "{}", found[1]);
    assert_eq!(
        (line(2, "by"), line(2, "evidence"), line(2, "result")),
        ("anonymous".into(), "none".into(), "UNAUTHENTICATED".into())
    );
    assert_eq!(
        (line(3, "act"), line(3, "by"), line(3, "evidence")),
        ("p2p.v1.AuthService/IssueToken".into(), "spiffe://test/admin/admin".into(), "certificate".into())
    );
    assert!(line(3, "note").contains("subject ci"), "{}", found[3]);
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(!text.contains(&token) && !text.contains(&bearer), "no token is ever in it");
    node.signal(rustix::process::Signal::TERM);
    node.ends().await;
    assert!(!socket.exists(), "the socket goes with its node");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_a_worker_operates_that_node_and_nothing_else() {
    let (_certificates, _node, socket, log) = start("w1", "worker").await;
    let channel = connect(&socket).await;
    let mut cluster = ClusterServiceClient::new(channel.clone());
    let nodes = cluster.list_nodes(ListNodesRequest {}).await.expect("a list").into_inner().nodes;
    assert_eq!(nodes.len(), 1);
    let state = ServiceState::Draining.into();
    let set = SetServiceStateRequest { name: "no.Such".to_owned(), state };
    let refused =
        RegistryServiceClient::new(channel.clone()).set_service_state(set).await.expect_err("unknown");
    assert_ne!(refused.code(), Code::PermissionDenied, "it may: {refused}");
    let evict = EvictRequest { node_id: "w2".to_owned(), ..EvictRequest::default() };
    assert_eq!(cluster.evict(evict).await.expect_err("refused").code(), Code::PermissionDenied);
    let frames = tokio_stream::iter([GossipFrame::default()]);
    let gossip = GossipServiceClient::new(channel).exchange(frames).await;
    assert_eq!(gossip.expect_err("nobody speaks for a node").code(), Code::PermissionDenied);
    let found = audited(&log, 2).await;
    assert_eq!(found[0]["by"], "spiffe://test/worker/w1");
    assert_eq!(
        (&found[1]["act"], &found[1]["result"]),
        (&"p2p.v1.ClusterService/Evict".into(), &"PERMISSION_DENIED".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_a_worker_calls_services_of_other_nodes() {
    let socket = tempfile::tempdir().expect("a directory");
    let path = |name: &str| socket.path().join(name);
    let cluster = Cluster::start_with(|config| {
        let file = path(&config.name);
        config.set("listen_socket", &file.display().to_string())
    })
    .await;
    let mut greeter = support::greeter::greeter_client::GreeterClient::new(connect(&path("w1")).await);
    let hello = support::greeter::HelloRequest { name: "you".to_owned() };
    let reply = greeter.say_hello(hello).await.expect("greeted by g1").into_inner();
    assert_eq!((reply.node.as_str(), reply.caller.as_str()), ("g1", "spiffe://test/worker/w1"));
    let observer = cluster.certificates.observer(&cluster.w1).await;
    observer.awaits_state("g1", MemberState::Alive).await;
}
