//! The HTTP endpoints, as curl and scrapers see them, over HTTP/1.1 and HTTP/2.

mod support;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{Binary, Certificates, Client, Cluster, TestNode, error_details};
use tonic::Code;

/// A node that provides the greeter, with an admin and a stranger as its clients.
struct Setup {
    _certificates: Certificates,
    _node: TestNode,
    admin: Client,
    stranger: Client,
}

async fn start() -> Setup {
    let certificates = Certificates::new(&["g1:worker"]);
    let node = TestNode::start(Binary::Greeter, certificates.config("g1")).await;
    let (admin, stranger) = (certificates.client(&node, "admin").await, certificates.stranger(&node).await);
    Setup { _certificates: certificates, _node: node, admin, stranger }
}

async fn get(client: &Client, http2: bool, path: &str) -> Response {
    client.http(http2).get(client.url(path)).send().await.expect("an answer")
}

#[track_caller]
fn content_type(answer: &Response) -> &str {
    answer.headers()["content-type"].to_str().expect("text")
}

async fn json_of(answer: Response) -> Value {
    answer.json().await.expect("JSON")
}

/// The answer is a problem document (RFC 9457) that says why.
async fn assert_problem(answer: Response, status: u16, reason: &str) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(content_type(&answer), "application/problem+json");
    let problem = json_of(answer).await;
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["reason"], reason, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_strangers_one_word_and_members_the_reasons() {
    let Setup { admin, stranger, .. } = &start().await;
    for http2 in [false, true] {
        assert_eq!(json_of(get(stranger, http2, "/livez").await).await, json!({"status": "alive"}));
        assert_eq!(json_of(get(stranger, http2, "/readyz").await).await, json!({"status": "ready"}));
        let answer = get(stranger, http2, "/health").await;
        assert_eq!((answer.status(), content_type(&answer)), (StatusCode::OK, "application/json"));
        assert_eq!(json_of(answer).await, json!({"status": "healthy"}));

        let full = json_of(get(admin, http2, "/health").await).await;
        assert_eq!(full["status"], "healthy");
        assert_eq!(full["reasons"], json!([]));
        assert_eq!(full["version"], env!("CARGO_PKG_VERSION"));
        let cluster = &full["cluster"];
        assert_eq!((&cluster["cluster_id"], &cluster["node_id"]), (&json!("test"), &json!("g1")));
        assert_eq!((&cluster["alive"], &cluster["services"]), (&json!(1), &json!(1)), "{cluster}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_that_should_not_be_is_degraded() {
    let certificates = Certificates::new(&["w1:worker"]);
    // Nobody listens on the discard port.
    let node = TestNode::start(Binary::Node, certificates.config("w1").seeds(&["127.0.0.1:9"])).await;
    let admin = certificates.client(&node, "admin").await;
    let answer = get(&admin, true, "/health").await;
    assert_eq!(answer.status(), 200, "it serves");
    let health = json_of(answer).await;
    assert_eq!(health["status"], "degraded");
    assert!(
        health["reasons"][0].as_str().is_some_and(|why| why.contains("coordinator_addresses")),
        "{health}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_in_both_formats_and_every_family_is_described() {
    let Setup { admin, stranger, .. } = &start().await;
    admin.hello("you").await.expect("greeted");
    get(stranger, false, "/livez").await;
    let text = get(stranger, false, "/metrics").await;
    assert_eq!(content_type(&text), "text/plain; version=0.0.4; charset=utf-8");
    let text = text.text().await.expect("text");
    let described = |kind: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("# {kind} ")));
        lines.map(|line| line.split(' ').next().expect("a name").to_owned()).collect()
    };
    let (help, types) = (described("HELP"), described("TYPE"));
    assert_eq!(help, types);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        assert!(name.starts_with("p2p_") || name.starts_with("process_"), "{line}");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(types.contains(name) || family.is_some_and(|family| types.contains(family)), "{line}");
        assert!(line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok()), "{line}");
    }
    for name in [
        "p2p_build_info",
        "p2p_members",
        "p2p_gossip_frames_total",
        "p2p_gossip_bytes_total",
        "p2p_gossip_uncompressed_bytes_total",
        "p2p_gossip_interval_seconds",
        "p2p_gossip_load",
        "p2p_requests_total",
        "p2p_request_duration_seconds",
        "p2p_http_requests_total",
        "p2p_connections",
        "p2p_connections_refused_total",
        "p2p_gossip_refused_total",
        "p2p_rate_limited_requests_total",
        "p2p_certificate_expiry_timestamp_seconds",
        "process_resident_memory_bytes",
    ] {
        assert!(types.contains(name), "{name} is missing from {types:?}");
    }
    let value = |name: &str| support::sample(&text, name);
    assert_eq!(value("p2p_members{state=\"alive\"}"), Some(1.0));
    assert_eq!(value("p2p_requests_total{method=\"demo.v1.Greeter/SayHello\",code=\"OK\"}"), Some(1.0));
    assert_eq!(value("p2p_request_duration_seconds_count{method=\"demo.v1.Greeter/SayHello\"}"), Some(1.0));

    let request = stranger.http(true).get(stranger.url("/metrics"));
    let open = request.header("accept", "application/openmetrics-text; version=1.0.0").send().await;
    let open = open.expect("an answer");
    assert_eq!(content_type(&open), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = open.text().await.expect("text");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE p2p_requests counter\n"), "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_be_closed_to_strangers() {
    let certificates = Certificates::new(&["w1:worker"]);
    let config = certificates.config("w1").set("metrics_require_auth", "true");
    let node = TestNode::start(Binary::Node, config).await;
    let stranger = certificates.stranger(&node).await;
    assert_problem(get(&stranger, true, "/metrics").await, 401, "UNAUTHENTICATED").await;
    let admin = certificates.client(&node, "admin").await;
    assert_eq!(get(&admin, true, "/metrics").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_nodes_has_the_keys_of_the_contract() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.w1).await;
    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    assert_problem(get(&stranger, true, "/cluster/nodes").await, 401, "UNAUTHENTICATED").await;
    let list = json_of(get(&admin, false, "/cluster/nodes").await).await;
    assert_eq!((&list["schema"], &list["kind"]), (&json!("p2pctl/v1"), &json!("NodeList")));
    let items = list["items"].as_array().expect("items");
    let ids: Vec<&str> = items.iter().filter_map(|item| item["node_id"].as_str()).collect();
    assert_eq!(ids, ["c1", "g1", "w1"]);
    for item in items {
        let keys: Vec<&str> = item.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected = vec![
            "node_id",
            "role",
            "state",
            "addresses",
            "zone",
            "labels",
            "epoch",
            "version",
            "services",
            "rtt_ms",
            "last_change",
            "cert_expires_at",
        ];
        expected.sort_unstable();
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(item["state"], "alive");
        assert_eq!(item["version"], env!("CARGO_PKG_VERSION"));
        for time in ["last_change", "cert_expires_at"] {
            let text = item[time].as_str().expect("a time");
            assert!(text.starts_with("20") && text.contains('T') && text.ends_with('Z'), "{time}: {text}");
        }
    }
    assert_eq!(items[0]["role"], "coordinator");
    assert_eq!(items[1]["services"], json!(["demo.v1.Greeter"]));
    assert_eq!(items[1]["addresses"], json!([cluster.g1.address.to_string()]));
}

async fn post(client: &Client, body: impl Into<String>) -> Response {
    let request = client.http(true).post(client.url("/rpc")).header("content-type", "application/json");
    request.body(body.into()).send().await.expect("an answer")
}

async fn rpc(client: &Client, body: Value) -> Value {
    let answer = post(client, body.to_string()).await;
    assert_eq!((answer.status(), content_type(&answer)), (StatusCode::OK, "application/json"));
    json_of(answer).await
}

fn call(id: Value, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test(flavor = "multi_thread")]
async fn json_rpc_calls_any_unary_method() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin(&cluster.w1).await;
    let hello = |id: u32, name: &str| call(json!(id), "demo.v1.Greeter/SayHello", json!({"name": name}));

    let answer = rpc(admin, hello(1, "you")).await;
    let expected = json!({"message": "Hello, you!", "node": "g1", "caller": "spiffe://test/admin/admin"});
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": expected}));

    let silent = json!({"jsonrpc": "2.0", "method": "demo.v1.Greeter/SayHello", "params": {"name": "x"}});
    let batch =
        rpc(admin, json!([hello(1, "a"), silent, call(json!("b"), "no.Such/Method", json!({}))])).await;
    assert_eq!(batch.as_array().map(Vec::len), Some(2), "a notification has no answer: {batch}");
    assert_eq!((&batch[0]["result"]["message"], &batch[1]["id"]), (&json!("Hello, a!"), &json!("b")));
    assert_eq!(batch[1]["error"]["code"], -32601);
    let notified = post(admin, silent.to_string()).await;
    assert_eq!(notified.status(), 204);
    assert_eq!(notified.bytes().await.expect("a body").len(), 0);
    assert_eq!(post(admin, json!([silent, silent]).to_string()).await.status(), 204);
    let null = rpc(admin, call(Value::Null, "demo.v1.Greeter/SayHello", json!({"name": "you"}))).await;
    assert_eq!((&null["id"], &null["result"]["node"]), (&Value::Null, &json!("g1")), "a null id is an id");

    for (body, code) in [
        ("{", -32700),
        ("", -32700),
        ("[]", -32600),
        ("7", -32600),
        (r#"{"jsonrpc": "1.0", "id": 1, "method": "a.B/C"}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": {}, "method": "a.B/C"}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": 1}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "nonsense"}"#, -32601),
        // Nested generic calls would overflow the stack.
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "p2p.v1.RpcService/Call"}"#, -32602),
    ] {
        let answer = json_of(post(admin, body).await).await;
        assert_eq!(answer["error"]["code"], code, "{body} → {answer}");
    }
    let answer = rpc(admin, call(json!(2), "demo.v1.Greeter/SayHello", json!({"nam": 1}))).await;
    assert_eq!(answer["error"]["code"], -32602);
    assert_eq!(answer["error"]["data"]["field"], "nam", "{answer}");
    admin.awaits_sample("p2p_generic_call_faults_total{reason=\"INVALID_ARGUMENT\"}", 1.0).await;
    let answer = rpc(admin, hello(3, "")).await;
    assert_eq!(answer["error"]["code"], -32003, "the service's own INVALID_ARGUMENT: {answer}");
    assert_eq!(answer["error"]["data"]["grpc_code"], 3);
    let answer = rpc(admin, call(json!(4), "demo.v1.Greeter/Repeat", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let answer = rpc(admin, Value::Array(vec![hello(5, "x"); 51])).await;
    assert_eq!(answer["error"]["code"], -32600, "a batch is bounded: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_an_endpoint_is_said_in_http() {
    let Setup { admin, .. } = &start().await;
    for http2 in [false, true] {
        let http = admin.http(http2);
        let url = admin.url("/rpc");
        let xml =
            http.post(&url).header("content-type", "text/xml").body("<a/>").send().await.expect("an answer");
        assert_problem(xml, 415, "UNSUPPORTED_MEDIA_TYPE").await;
        for (method, path, allow) in [
            (Method::GET, "/rpc", "POST, OPTIONS"),
            (Method::POST, "/health", "GET, HEAD, OPTIONS"),
            (Method::DELETE, "/cluster/nodes", "GET, HEAD, OPTIONS"),
            (Method::PUT, "/rpc", "POST, OPTIONS"),
            (Method::TRACE, "/livez", "GET, HEAD, OPTIONS"),
        ] {
            let answer = http.request(method, admin.url(path)).send().await.expect("an answer");
            assert_eq!(answer.headers()["allow"], allow, "{path}");
            assert_problem(answer, 405, "METHOD_NOT_ALLOWED").await;
        }
        let problem = assert_problem(get(admin, http2, "/no/such/path").await, 404, "NOT_FOUND").await;
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("/health")), "{problem}");

        let full = get(admin, http2, "/livez").await;
        let length = full.headers()["content-length"].clone();
        let head = http.head(admin.url("/livez")).send().await.expect("an answer");
        assert_eq!((head.status(), &head.headers()["content-length"]), (StatusCode::OK, &length));
        assert_eq!(head.bytes().await.expect("no body").len(), 0);
        assert_eq!(get(admin, http2, "/livez").await.status(), 200, "the connection is well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_answers_with_the_pause_in_both_protocols() {
    let certificates = Certificates::new(&["g1:worker"]);
    // One more a minute: what passes is the burst, however slow the test is.
    let config =
        certificates.config("g1").set("rate_limit_enabled", "true").set("rate_limit_rpc_requests", "1");
    let node = TestNode::start(Binary::Greeter, config).await;
    let admin = certificates.client(&node, "admin").await;
    let http = admin.http(true);
    let body = call(json!(1), "p2p.v1.SystemService/Echo", json!({"message": "x"})).to_string();
    let mut refused = Vec::new();
    for _ in 0..30 {
        let request =
            http.post(admin.url("/rpc")).header("content-type", "application/json").body(body.clone());
        let answer = request.send().await.expect("an answer");
        match answer.status() {
            StatusCode::OK => assert!(refused.is_empty(), "none passes after the first refusal"),
            _ => refused.push(answer),
        }
    }
    assert_eq!(refused.len(), 10, "the burst is 20");
    for answer in refused {
        let pause: u64 = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((1..=60).contains(&pause), "{pause}");
        assert_problem(answer, 429, "RATE_LIMITED").await;
    }

    // The same budget, in gRPC.
    let status = admin.call("p2p.v1.SystemService/Echo", "", "{}").await.expect_err("refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let pause = error_details(&status).retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(pause.as_secs() < 61 && pause.as_millis() > 0, "{pause:?}");
    let pushback =
        status.metadata().get("grpc-retry-pushback-ms").expect("a trailer").to_str().expect("text");
    let pushback: u128 = pushback.parse().expect("milliseconds");
    assert_eq!(pushback, pause.as_micros().div_ceil(1000));
    admin.awaits_sample("p2p_rate_limited_requests_total{class=\"rpc\"}", 11.0).await;
    // Other clients and other classes have budgets of their own.
    let observer = certificates.observer(&node).await;
    assert!(observer.call("p2p.v1.SystemService/Echo", "", "{}").await.is_ok());
    assert_eq!(get(&admin, true, "/health").await.status(), 200);
    assert!(admin.hello("you").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_charged_for_each_of_its_calls() {
    let certificates = Certificates::new(&["g1:worker"]);
    let config =
        certificates.config("g1").set("rate_limit_enabled", "true").set("rate_limit_rpc_requests", "1");
    let node = TestNode::start(Binary::Greeter, config).await;
    let admin = &certificates.client(&node, "admin").await;
    let echo = |id: usize| call(json!(id), "p2p.v1.SystemService/Echo", json!({"message": "x"}));
    let silent = json!({"jsonrpc": "2.0", "method": "p2p.v1.SystemService/Echo"});
    let mut calls: Vec<Value> = (0..30).map(echo).collect();
    // A notification counts, too.
    calls[0] = silent.clone();
    let answers = rpc(admin, Value::Array(calls)).await;
    let answers = answers.as_array().expect("a batch");
    assert_eq!(answers.len(), 29);
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], at + 1);
        // The burst is 20.
        assert_eq!(answer.get("result").is_some(), at + 1 < 20, "{answer}");
    }
    let refused = &answers[28]["error"];
    assert_eq!((&refused["code"], &refused["data"]["reason"]), (&json!(-32008), &json!("RATE_LIMITED")));
    assert!(refused["data"]["retry_after_ms"].as_u64().is_some_and(|pause| pause > 0), "{refused}");
    admin.awaits_sample("p2p_rate_limited_requests_total{class=\"rpc\"}", 10.0).await;
    assert_problem(post(admin, silent.to_string()).await, 429, "RATE_LIMITED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_call_is_charged_once_at_its_entry() {
    let cluster = Cluster::start_with(|config| {
        // Only the provider limits, and strictly.
        let limited = config.name == "g1";
        let config = config.set("rate_limit_enabled", if limited { "true" } else { "false" });
        config.set("rate_limit_grpc_requests", "1").set("rate_limit_grpc_burst", "1")
    })
    .await;
    let through_entry = cluster.admin(&cluster.w1).await;
    for _ in 0..5 {
        through_entry.hello("you").await.expect("charged at the entry, which has no limit");
    }
    let direct = cluster.admin(&cluster.g1).await;
    direct.hello("you").await.expect("the first");
    assert_eq!(direct.hello("you").await.expect_err("the second").code(), Code::ResourceExhausted);
}

/// Whether `value` is what the schema says: types, required fields, enumerations and items.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("a reference into the document");
        return conforms(document, document.pointer(pointer).expect("a schema"), value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| conforms(document, choice, value).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{value} fits {fitting} of {schema}")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kind_or_kinds = &schema["type"];
    let kinds = kind_or_kinds.as_array().cloned().unwrap_or_else(|| vec![kind_or_kinds.clone()]);
    let fits = |name: &Value| name == kind || (name == "number" && kind == "integer") || name.is_null();
    if !kinds.iter().any(fits) {
        return Err(format!("{value} is no {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        value.get(name).ok_or_else(|| format!("{name} is missing in {value}"))?;
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        value.get(name).map_or(Ok(()), |value| conforms(document, schema, value))?;
    }
    let mut items = value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object());
    items.try_for_each(|item| conforms(document, &schema["items"], item))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_the_openapi_document_says() {
    let Setup { admin, stranger, .. } = &start().await;
    let document = json_of(get(stranger, true, "/openapi.json").await).await;
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 9);
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            // As an admin and as a stranger; what the document names, and what it forbids.
            for (client, accept) in [(admin, "*/*"), (stranger, "*/*"), (admin, "image/png")] {
                let body = call(json!(1), "p2p.v1.SystemService/Echo", json!({"message": "x"})).to_string();
                let request =
                    client.http(true).request(method.clone(), client.url(path)).header("accept", accept);
                let request = match method {
                    Method::POST => request.header("content-type", "application/json").body(body),
                    _ => request,
                };
                let answer = request.send().await.expect("an answer");
                let status = answer.status();
                assert!(status != 406 || accept == "image/png");
                for (header, value) in [
                    ("x-content-type-options", "nosniff"),
                    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                    ("referrer-policy", "no-referrer"),
                ] {
                    assert_eq!(answer.headers()[header], value, "{path}");
                }
                let responses = &operation["responses"];
                let mut response = &responses[status.as_str()];
                if response.is_null() {
                    response = &responses["default"];
                }
                if let Some(name) = response["$ref"].as_str() {
                    response =
                        document.pointer(name.strip_prefix('#').expect("a reference")).expect("a response");
                }
                let media = content_type(&answer).split(';').next().expect("a type").to_owned();
                let schema = &response["content"][&media]["schema"];
                assert!(schema.is_object(), "{path}: {status} with {media} is not in the document");
                let text = answer.text().await.expect("text");
                let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                conforms(&document, schema, &value).unwrap_or_else(|why| panic!("{path}: {why}"));
            }
        }
    }
    let options =
        admin.http(true).request(Method::OPTIONS, admin.url("/rpc")).send().await.expect("an answer");
    assert_eq!(
        (options.status().as_u16(), &options.headers()["allow"]),
        (204, &"POST, OPTIONS".parse().expect("text"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_packed_for_those_who_take_gzip() {
    let Setup { stranger, .. } = &start().await;
    let request = stranger.http(true).get(stranger.url("/metrics")).header("accept-encoding", "gzip");
    let packed = request.send().await.expect("an answer");
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_eq!(packed.headers()["vary"], "accept, accept-encoding");
    let packed = packed.bytes().await.expect("bytes");
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(&packed[..]);
    std::io::Read::read_to_string(&mut reader, &mut text).expect("gzip");
    assert!(text.contains("p2p_build_info") && packed.len() * 3 < text.len(), "{} bytes", packed.len());
    let plain = get(stranger, true, "/metrics").await;
    assert!(plain.headers().get("content-encoding").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_nodes_is_filtered_and_comes_in_pages() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin(&cluster.w1).await;
    let ask = async |query: &str| json_of(get(admin, true, &format!("/cluster/nodes?{query}")).await).await;
    let ids = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items").iter();
        items.map(|item| item["node_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&ask("role=worker").await), ["g1", "w1"]);
    assert_eq!(ids(&ask("state=down,left").await), Vec::<String>::new());
    let first = ask("limit=2").await;
    assert_eq!((ids(&first), &first["next"]), (vec!["c1".to_owned(), "g1".to_owned()], &json!("g1")));
    let last = ask("limit=2&after=g1").await;
    assert_eq!((ids(&last), last.get("next")), (vec!["w1".to_owned()], None));
    let wrong = get(admin, true, "/cluster/nodes?stat=alive").await;
    let problem = assert_problem(wrong, 400, "INVALID_ARGUMENT").await;
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("stat")), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_each_check_to_those_who_ask() {
    let Setup { stranger, .. } = &start().await;
    let ready = json_of(get(stranger, false, "/readyz?verbose").await).await;
    assert_eq!(ready, json!({"status": "ready", "checks": {"serving": "ok", "cluster": "ok"}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_finds_every_node_by_one_of_them() {
    let cluster = Cluster::start().await;
    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    assert_problem(get(&stranger, false, "/prometheus/targets").await, 401, "UNAUTHENTICATED").await;
    // As a scraper does: a token that names what it reads, and no certificate.
    let admin = cluster.admin(&cluster.c1).await;
    let token = admin.issue("prometheus", &["p2p.v1.ClusterService/ListNodes"]).await.expect("a token");
    stranger.awaits_verdict(&token, "").await;
    let request = stranger.http(false).get(stranger.url("/prometheus/targets")).bearer_auth(&token);
    let answer = request.send().await.expect("an answer");
    assert_eq!((answer.status(), content_type(&answer)), (StatusCode::OK, "application/json"));
    let group = |node: &TestNode, node_id: &str, role: &str| {
        let labels = json!({"cluster_id": "test", "node_id": node_id, "role": role, "zone": ""});
        json!({"targets": [node.address.to_string()], "labels": labels})
    };
    let expected = json!([
        group(&cluster.c1, "c1", "coordinator"),
        group(&cluster.g1, "g1", "worker"),
        group(&cluster.w1, "w1", "worker"),
    ]);
    assert_eq!(json_of(answer).await, expected);
}
