//! `/metrics` and `/prometheus/targets`, as scrapers see them.

use crate::{
    Setup, assert_problem, content_type, get, json_of, start,
    support::{Binary, Certificates, Cluster, TestNode},
};
use reqwest::StatusCode;
use serde_json::json;
use std::collections::BTreeSet;

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
    let value = |name: &str| crate::support::sample(&text, name);
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
