//! The HTTP endpoints, as curl and scrapers see them, over HTTP/1.1 and HTTP/2.
//!
//! | file | what it shows |
//! |---|---|
//! | `endpoints` | health, the list of nodes, and requests that fit nowhere |
//! | `json_rpc` | `/rpc`: JSON-RPC 2.0 |
//! | `limits` | rate limits, as callers of either protocol meet them |
//! | `metrics` | `/metrics` and `/prometheus/targets` |
//! | `openapi` | the OpenAPI document, held against what is answered |

mod endpoints;
mod json_rpc;
mod limits;
mod metrics;
mod openapi;
#[path = "../support/mod.rs"]
mod support;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use support::{Binary, Certificates, Client, TestNode};

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
