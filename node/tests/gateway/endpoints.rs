//! Health, the list of nodes, and requests that fit nowhere.

use crate::{
    Setup, assert_problem, content_type, get, json_of, start,
    support::{Binary, Certificates, Cluster, TestNode},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
