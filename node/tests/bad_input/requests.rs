//! Requests of those who may connect.

use crate::support::{Binary, Certificates, Client, TestNode, eventually, greeter::HelloRequest};
use p2p_proto::v1::{EchoRequest, GetInfoRequest};
use tonic::Code;

/// More than the 4 MiB that a message may have.
const OVERSIZED: usize = 5 * 1024 * 1024;

async fn start() -> (Certificates, TestNode, Client) {
    let certificates = Certificates::new(&["g1:worker"]);
    let node = TestNode::start(Binary::Greeter, certificates.config("g1")).await;
    let admin = certificates.client(&node, "admin").await;
    (certificates, node, admin)
}

fn counted(method: &str, code: &str) -> String {
    format!("p2p_requests_total{{method=\"{method}\",code=\"{code}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_params_name_the_field() {
    let (_certificates, _node, admin) = start().await;
    for (json, field) in
        [(r#"{"nam": "you"}"#, "nam"), (r#"{"name": 7}"#, "name"), (r#"{"name": {"first": "you"}}"#, "name")]
    {
        let status = admin.call("demo.v1.Greeter/SayHello", "", json).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{json}");
        assert!(status.message().contains("no valid demo.v1.HelloRequest message"), "{status}");
        assert!(status.message().contains(field), "{json} → {status}");
    }
    for json in ["", "[]", "nonsense", r#"{"name": "you"} trailing"#, r#"{"name": "you""#] {
        let status = admin.call("demo.v1.Greeter/SayHello", "", json).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{json}");
    }
    let status = admin.call("not a method", "", "{}").await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let status = admin.call("demo.v1.Greeter/Repeat", "", "{}").await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("is server_streaming; generic calls are unary"), "{status}");
    admin.awaits_sample(&counted("p2p.v1.RpcService/Call", "INVALID_ARGUMENT"), 10.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_resource_exhausted_everywhere() {
    let (_certificates, _node, admin) = start().await;
    let big = || "x".repeat(OVERSIZED);
    let hello = || HelloRequest { name: big() };
    let mut greeter = admin.greeter();
    let json = format!("{{\"name\": \"{}\"}}", big());

    let local = admin.system().echo(EchoRequest { message: big() }).await.expect_err("refused");
    let unary = greeter.say_hello(hello()).await.expect_err("refused");
    let client = greeter.gather(tokio_stream::iter([hello()])).await.expect_err("refused");
    let generic = admin.call("demo.v1.Greeter/SayHello", "", &json).await.expect_err("refused");
    let mut replies = greeter.chat(tokio_stream::iter([hello()])).await.expect("open").into_inner();
    let bidi = replies.message().await.expect_err("refused");
    for status in [local, unary, client, generic, bidi] {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("too large") || status.message().contains("larger"), "{status}");
    }
    for method in [
        "p2p.v1.SystemService/Echo",
        "demo.v1.Greeter/SayHello",
        "demo.v1.Greeter/Chat",
        "p2p.v1.RpcService/Call",
    ] {
        admin.awaits_sample(&counted(method, "RESOURCE_EXHAUSTED"), 1.0).await;
    }

    let http = admin.http(true).post(admin.url("/rpc")).header("content-type", "application/json");
    let answer = http.body(json).send().await.expect("an answer");
    assert_eq!(answer.status(), 413);
    // The node is well.
    assert_eq!(admin.hello("you").await.expect("greeted").message, "Hello, you!");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_unauthenticated_and_that_is_counted() {
    let (certificates, node, admin) = start().await;
    let stranger = certificates.stranger(&node).await;
    let statuses = [
        stranger.system().get_info(GetInfoRequest {}).await.expect_err("refused"),
        stranger.hello("you").await.expect_err("refused"),
        stranger.members().await.expect_err("refused"),
        stranger.call("demo.v1.Greeter/SayHello", "", "{}").await.expect_err("refused"),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("needs a client certificate of this cluster"), "{status}");
    }
    for method in ["p2p.v1.SystemService/GetInfo", "demo.v1.Greeter/SayHello", "p2p.v1.RpcService/Call"] {
        admin.awaits_sample(&counted(method, "UNAUTHENTICATED"), 1.0).await;
    }
    for path in ["/cluster/nodes", "/rpc"] {
        let answer = stranger.http(true).get(stranger.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), 401, "{path}");
        let counted = format!("p2p_http_requests_total{{path=\"{path}\",status=\"401\"}}");
        admin.awaits_sample(&counted, 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_are_counted_without_their_names() {
    let (certificates, node, admin) = start().await;
    let stranger = certificates.stranger(&node).await;
    for path in ["/no.Such/Method", "/x", "/p2p.v1.SystemService/getinfo", "/..%2f/etc"] {
        let request = admin.http(true).post(stranger.url(path)).header("content-type", "application/grpc");
        let answer = request.body(vec![0; 5]).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "gRPC's own status tells");
        assert_eq!(answer.headers()["grpc-status"], "12", "{path}");
    }
    admin.awaits_sample("p2p_requests_unknown_method_total", 4.0).await;
    eventually("metrics without the names", async || {
        let metrics = admin.metrics().await;
        if metrics.contains("no.Such") { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
}
