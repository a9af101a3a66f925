//! Rate limits, as callers of either protocol meet them.

use crate::{
    assert_problem, call, get, post, rpc,
    support::{Binary, Certificates, Cluster, TestNode, error_details},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

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
