//! Access tokens through real nodes: issued at one, shown at any, verified again where the call is served.

#[path = "support/mod.rs"]
mod support;

use p2p_proto::v1::{
    GetInfoRequest, IssueTokenRequest, ListNodesRequest, VerifyTokenRequest, VerifyTokenResponse,
    auth_service_client::AuthServiceClient, cluster_service_client::ClusterServiceClient,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use support::{Binary, Client, Cluster, error_details, eventually, greeter::HelloRequest};
use tonic::{Code, Request, Status};

async fn issue(client: &Client, scope: &[&str], ttl_seconds: u64) -> Result<String, Status> {
    issue_with(client, None, scope, ttl_seconds).await
}

/// Issues with a token instead of the client's certificate.
async fn issue_with(
    client: &Client,
    token: Option<&str>,
    scope: &[&str],
    ttl_seconds: u64,
) -> Result<String, Status> {
    let scope = scope.iter().map(|&glob| glob.to_owned()).collect();
    let mut request = Request::new(IssueTokenRequest { subject: "ci".to_owned(), scope, ttl_seconds });
    if let Some(token) = token {
        show(&mut request, token);
    }
    let answer = AuthServiceClient::new(client.channel.clone()).issue_token(request).await?;
    Ok(answer.into_inner().token)
}

fn show<T>(request: &mut Request<T>, token: &str) {
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a value"));
}

fn hello(token: &str) -> Request<HelloRequest> {
    let mut request = Request::new(HelloRequest { name: "world".to_owned() });
    show(&mut request, token);
    request
}

/// Waits until the node knows the key of a token.
async fn accepts(client: &Client, token: &str) {
    eventually("the token to be accepted", async || {
        let verdict = judge(client, token).await;
        if verdict.accepted { Ok(()) } else { Err(format!("{verdict:?}")) }
    })
    .await;
}

async fn judge(client: &Client, token: &str) -> VerifyTokenResponse {
    let request = VerifyTokenRequest { token: token.to_owned() };
    let answer = AuthServiceClient::new(client.channel.clone()).verify_token(request).await;
    answer.expect("anybody may ask").into_inner()
}

fn http(client: &Client, method: Method, path: &str, token: &str) -> RequestBuilder {
    client.http(true).request(method, client.url(path)).header("authorization", format!("Bearer {token}"))
}

async fn call(client: &Client, token: &str, method: &str) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "world"}});
    let request = http(client, Method::POST, "/rpc", token).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.expect("an answer");
    serde_json::from_str(&answer.text().await.expect("text")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_a_scope_can_call_exactly_that_through_any_node() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let token = issue(&admin, &["demo.v1.Greeter/SayHello"], 600).await.expect("issued");
    for entry in cluster.nodes() {
        let client = cluster.certificates.stranger(entry).await;
        accepts(&client, &token).await;
        let reply = client.greeter().say_hello(hello(&token)).await.expect("greeted").into_inner();
        assert_eq!(
            (reply.node.as_str(), reply.caller.as_str()),
            ("g1", "ci"),
            "through {}",
            entry.config.name
        );

        // What only nodes may say changes nothing.
        let mut forged = hello(&token);
        for (name, value) in
            [("p2p-principal", "spiffe://test/admin/admin"), ("p2p-hop", "1"), ("p2p-entry-node", "c1")]
        {
            forged.metadata_mut().insert(name, value.parse().expect("a value"));
        }
        let reply = client.greeter().say_hello(forged).await.expect("greeted").into_inner();
        assert_eq!(reply.caller, "ci");

        // Everything else is denied, and the missing scope named.
        let mut gather = Request::new(tokio_stream::iter([HelloRequest { name: "world".to_owned() }]));
        show(&mut gather, &token);
        let mut nodes = Request::new(ListNodesRequest {});
        show(&mut nodes, &token);
        let mut info = Request::new(GetInfoRequest {});
        show(&mut info, &token);
        for (status, path) in [
            (client.greeter().gather(gather).await.expect_err("denied"), "demo.v1.Greeter/Gather"),
            (
                ClusterServiceClient::new(client.channel.clone())
                    .list_nodes(nodes)
                    .await
                    .expect_err("denied"),
                "p2p.v1.ClusterService/ListNodes",
            ),
            (client.system().get_info(info).await.expect_err("denied"), "p2p.v1.SystemService/GetInfo"),
            (
                issue_with(&client, Some(&token), &["*"], 60).await.expect_err("denied"),
                "p2p.v1.AuthService/IssueToken",
            ),
        ] {
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            assert_eq!(status.message(), format!("this token's scope does not include {path}"));
        }
        let answer = http(&client, Method::GET, "/cluster/nodes", &token).send().await.expect("an answer");
        assert_eq!(answer.status(), 403);
        let denied = call(&client, &token, "demo.v1.Greeter/SayHello").await;
        assert_eq!(denied["reason"], "PERMISSION_DENIED", "{denied}");
    }

    // A generic call takes both: the door, and what lies behind it.
    let token =
        issue(&admin, &["p2p.v1.RpcService/Call", "demo.v1.Greeter/SayHello"], 600).await.expect("issued");
    let client = cluster.certificates.stranger(&cluster.w1).await;
    let answer = call(&client, &token, "demo.v1.Greeter/SayHello").await;
    assert_eq!(
        (&answer["result"]["node"], &answer["result"]["caller"]),
        (&json!("g1"), &json!("ci")),
        "{answer}"
    );
    let answer = call(&client, &token, "p2p.v1.SystemService/GetInfo").await;
    assert_eq!(answer["error"]["data"]["reason"], "PERMISSION_DENIED", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_before_the_certificate_and_a_bad_one_is_named() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let token = issue(&admin, &["demo.*"], 600).await.expect("issued");
    // Even an admin is no more than the token that it shows.
    let reply = admin.greeter().say_hello(hello(&token)).await.expect("greeted").into_inner();
    assert_eq!(reply.caller, "ci");
    let answer = http(&admin, Method::GET, "/cluster/nodes", &token).send().await.expect("an answer");
    assert_eq!(answer.status(), 403);

    let client = cluster.certificates.stranger(&cluster.w1).await;
    accepts(&client, &token).await;
    let (signed, signature) = token.rsplit_once('.').expect("dots");
    let forged =
        format!("{signed}.{}{}", if signature.starts_with('A') { "B" } else { "A" }, &signature[1..]);
    let oversized = "x".repeat(9_000);
    for (bad, sentence, reason) in [
        (forged.as_str(), "the access token is not valid", "signature"),
        ("nonsense", "the access token is not valid", "malformed"),
        (oversized.as_str(), "the access token is too large", "too_large"),
    ] {
        let status = client.greeter().say_hello(hello(bad)).await.expect_err("refused");
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, sentence));
        let answer = http(&client, Method::GET, "/cluster/nodes", bad).send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
        let challenge =
            format!("Bearer realm=\"p2p\", error=\"invalid_token\", error_description=\"{sentence}\"");
        assert_eq!(answer.headers()["www-authenticate"], challenge.as_str());
        let counted = format!("p2p_authentication_failures_total{{reason=\"{reason}\"}}");
        client.awaits_sample(&counted, 2.0).await;
    }
    let anonymous = client.http(true).get(client.url("/cluster/nodes")).send().await.expect("an answer");
    assert_eq!(
        (anonymous.status().as_u16(), &anonymous.headers()["www-authenticate"]),
        (401, &"Bearer realm=\"p2p\"".parse().expect("a value"))
    );
    assert!(!cluster.w1.log().contains(signature), "tokens are not logged");

    // Members are told why, strangers what they could find out anyway.
    let observer = cluster.certificates.observer(&cluster.w1).await;
    assert_eq!(judge(&observer, &forged).await.reason, "signature");
    assert_eq!(judge(&client, &forged).await.reason, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_shows_the_keys_and_verifies_while_all_coordinators_are_down() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let token = issue(&admin, &["demo.*"], 600).await.expect("issued");
    let mut shown = Vec::new();
    for entry in cluster.nodes() {
        let client = cluster.certificates.stranger(entry).await;
        accepts(&client, &token).await;
        let answer =
            client.http(true).get(client.url("/.well-known/jwks.json")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let keys: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
        assert_eq!(keys["keys"][0]["kty"], "OKP");
        assert_eq!((&keys["keys"][0]["use"], &keys["keys"][0]["alg"]), (&json!("sig"), &json!("EdDSA")));
        shown.push(keys);
    }
    assert!(shown.iter().all(|keys| *keys == shown[0]), "{shown:?}");

    cluster.c1.signal(rustix::process::Signal::KILL);
    cluster.c1.ends().await;
    let file = cluster.g1.state_directory().join("token_signers.json");
    eventually("the keys to be on disk", async || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if text.contains("signers") { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.g1.signal(rustix::process::Signal::KILL);
    let again = cluster.g1.start_again(Binary::Greeter).await;
    let client = cluster.certificates.stranger(&again).await;
    let reply = client.greeter().say_hello(hello(&token)).await.expect("greeted").into_inner();
    assert_eq!((reply.node.as_str(), reply.caller.as_str()), ("g1", "ci"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minter_passes_on_no_more_than_it_has() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let minter = issue(&admin, &["p2p.v1.AuthService/IssueToken", "demo.*"], 600).await.expect("issued");
    let client = cluster.certificates.stranger(&cluster.c1).await;
    let minted = issue_with(&client, Some(&minter), &["demo.v1.Greeter/SayHello"], 60).await.expect("issued");
    assert_eq!(client.greeter().say_hello(hello(&minted)).await.expect("greeted").into_inner().caller, "ci");
    let with_default = issue_with(&client, Some(&minter), &["demo.*"], 0).await.expect("as long as its own");
    assert!(judge(&client, &with_default).await.accepted);
    for (scope, ttl, sentence) in [
        ("shop.*", 60, "this token's scope does not include shop.*, so it cannot pass it on"),
        ("*", 60, "this token's scope does not include *, so it cannot pass it on"),
        ("p2p.v1.AuthService/*", 60, "does not include p2p.v1.AuthService/*"),
        ("demo.*", 3_600, "and cannot issue one that lives longer"),
    ] {
        let status = issue_with(&client, Some(&minter), &[scope], ttl).await.expect_err("denied");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains(sentence), "{status}");
    }
    for (scope, ttl, sentence) in [
        ("p2p.*", 60, "named one by one"),
        ("demo", 60, "is no method glob"),
        ("demo.*", 31 * 24 * 3_600, "lives at most 30d"),
    ] {
        let status = issue(&admin, &[scope], ttl).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(sentence), "{status}");
    }
    let stranger = issue(&client, &["demo.*"], 60).await.expect_err("refused");
    assert_eq!(stranger.code(), Code::Unauthenticated, "{stranger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_names_the_coordinators_for_what_it_does_not_do() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.w1).await;
    let status = issue(&admin, &["demo.*"], 60).await.expect_err("not here");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().starts_with("w1 is no coordinator; ask a coordinator: c1 at "), "{status}");
    let info = error_details(&status).error_info().expect("ErrorInfo").clone();
    assert_eq!(info.reason, "NOT_COORDINATOR");
    assert_eq!(info.metadata["coordinators"], cluster.c1.address.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_access_open_and_narrow() {
    let rules = "[{methods: [p2p.v1.ClusterService/ListNodes], allow: [anonymous]}, \
                  {methods: [demo.v1.Greeter/SayHello], allow: [ci, node]}]";
    let cluster = Cluster::start_with(|config| config.set("access", rules)).await;
    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    assert_eq!(stranger.members().await.expect("open").len(), 3);
    let answer = stranger.http(true).get(stranger.url("/cluster/nodes")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let admin = cluster.admin(&cluster.c1).await;
    let status = admin.hello("world").await.expect_err("narrowed");
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("`access` rules"), "{status}");
    let token = issue(&admin, &["demo.*"], 600).await.expect("issued");
    assert_eq!(admin.greeter().say_hello(hello(&token)).await.expect("listed").into_inner().caller, "ci");
    assert!(cluster.w1.log().contains("lets in callers without any evidence"));
}
