//! One method on many nodes at once.

mod support;

use p2p_proto::v1::{
    BroadcastRequest, BroadcastResponse, MemberState, broadcast_request::Payload,
    broadcast_response::Result as NodeResult, rpc_service_client::RpcServiceClient,
};
use rustix::process::Signal;
use std::{collections::BTreeMap, time::Duration};
use support::{Client, Cluster};
use tonic::{Code, Request, Status};

fn request(method: &str, json: &str) -> BroadcastRequest {
    BroadcastRequest {
        method: method.to_owned(),
        payload: Some(Payload::Json(json.to_owned())),
        ..BroadcastRequest::default()
    }
}

/// The results in the order in which they came.
async fn broadcast(
    client: &Client,
    message: BroadcastRequest,
    timeout: Option<Duration>,
) -> Result<Vec<BroadcastResponse>, Status> {
    let mut request = Request::new(message);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let mut results = RpcServiceClient::new(client.channel.clone()).broadcast(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(result) = results.message().await? {
        all.push(result);
    }
    let nodes: Vec<u32> = all.iter().map(|result| result.nodes).collect();
    assert!(nodes.iter().all(|nodes| *nodes as usize == all.len()), "{nodes:?}");
    Ok(all)
}

fn names(results: &[BroadcastResponse]) -> Vec<&str> {
    let mut names: Vec<&str> = results.iter().map(|result| result.node.as_str()).collect();
    names.sort_unstable();
    names
}

fn json(results: &[BroadcastResponse], node: &str) -> serde_json::Value {
    let found = results.iter().find(|result| result.node == node).expect("a result");
    let Some(NodeResult::Json(json)) = &found.result else { panic!("{found:?}") };
    serde_json::from_str(json).expect("JSON")
}

const INFO: &str = "p2p.v1.SystemService/GetInfo";

#[tokio::test(flavor = "multi_thread")]
async fn every_node_that_is_meant_answers_for_itself() {
    let cluster = Cluster::start_with(|config| {
        let disk = if config.name == "c1" { "hdd" } else { "ssd" };
        let spare = config.name == "w1";
        config.set("labels", &format!("{{disk: {disk}, spare: '{spare}'}}"))
    })
    .await;
    // Through a worker: nodes answer for themselves, wherever they are asked.
    let admin = cluster.admin(&cluster.w1).await;
    let all = broadcast(&admin, request(INFO, "{}"), None).await.expect("broadcast");
    assert_eq!(names(&all), ["c1", "g1", "w1"]);
    for node in ["c1", "g1", "w1"] {
        assert_eq!(json(&all, node)["nodeId"], node);
    }
    let of = |role: &str, labels: &[(&str, &str)]| BroadcastRequest {
        role: role.to_owned(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..request(INFO, "{}")
    };
    for (filter, expected) in [
        (of("coordinator", &[]), vec!["c1"]),
        (of("worker", &[]), vec!["g1", "w1"]),
        (of("", &[("disk", "ssd")]), vec!["g1", "w1"]),
        (of("worker", &[("disk", "ssd"), ("spare", "true")]), vec!["w1"]),
    ] {
        let found = broadcast(&admin, filter.clone(), None).await.expect("broadcast");
        assert_eq!(names(&found), expected, "{filter:?}");
    }
    let status = broadcast(&admin, of("coordinator", &[("disk", "ssd")]), None).await.expect_err("nobody");
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().starts_with("no alive node with role coordinator and label disk=ssd provides"),
        "{status}"
    );

    // A user's service is called where it is provided, and its own error is a result.
    let hello = request("demo.v1.Greeter/SayHello", r#"{"name": "all"}"#);
    let greeted = broadcast(&admin, hello, None).await.expect("broadcast");
    assert_eq!(names(&greeted), ["g1"]);
    let reply = json(&greeted, "g1");
    assert_eq!(
        (&reply["message"], &reply["caller"]),
        (&"Hello, all!".into(), &"spiffe://test/admin/admin".into())
    );
    let refused =
        broadcast(&admin, request("demo.v1.Greeter/SayHello", "{}"), None).await.expect("broadcast");
    let Some(NodeResult::Error(error)) = &refused[0].result else { panic!("{refused:?}") };
    assert_eq!((error.code, error.message.as_str()), (3, "name is empty; whom shall I greet?"));

    // Encoded messages stay encoded.
    let encoded = BroadcastRequest { payload: Some(Payload::Binary(Vec::new().into())), ..request(INFO, "") };
    let all = broadcast(&admin, encoded, None).await.expect("broadcast");
    assert!(all.iter().all(|result| matches!(&result.result, Some(NodeResult::Binary(_)))), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_broadcast_is_refused_before_any_node_is_called() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    for (message, code, text) in [
        (request("demo.v1.Greeter/Repeat", "{}"), Code::InvalidArgument, "generic calls are unary"),
        (request("p2p.v1.RpcService/Call", "{}"), Code::InvalidArgument, "cannot call"),
        (request("no.Such/Method", "{}"), Code::Unimplemented, "no node of this cluster provides"),
        (request("nonsense", "{}"), Code::InvalidArgument, "package.Service/Method"),
        (request("demo.v1.Greeter/SayHello", r#"{"nam": 1}"#), Code::InvalidArgument, "field nam"),
        (
            BroadcastRequest { role: "admin".to_owned(), ..request(INFO, "{}") },
            Code::InvalidArgument,
            "no role",
        ),
    ] {
        let status = broadcast(&admin, message.clone(), None).await.expect_err("refused");
        assert_eq!(status.code(), code, "{message:?}: {status}");
        assert!(status.message().contains(text), "{status}");
    }
    // Who may not call a method may not broadcast it: an act of admins, shown to others by a node.
    let stranger = cluster.certificates.stranger(&cluster.c1).await;
    let status = broadcast(&stranger, request(INFO, "{}"), None).await.expect_err("refused");
    assert_eq!(status.code(), Code::Unauthenticated);
    let acts = request("p2p.v1.AuthService/ListRevocations", "{}");
    let results = broadcast(&admin, acts, None).await.expect("broadcast");
    let refused: BTreeMap<&str, bool> = results
        .iter()
        .map(|result| {
            (
                result.node.as_str(),
                matches!(&result.result, Some(NodeResult::Error(error)) if error.code == 7),
            )
        })
        .collect();
    assert_eq!(refused, BTreeMap::from([("c1", false), ("g1", true), ("w1", true)]), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_named_and_hides_nobody() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    cluster.w1.signal(Signal::STOP);
    let timeout = Duration::from_secs(3);
    let results = broadcast(&admin, request(INFO, "{}"), Some(timeout)).await.expect("the stream ends well");
    assert_eq!(names(&results), ["c1", "g1", "w1"]);
    let last = results.last().expect("three");
    assert_eq!(last.node, "w1", "the others came first");
    let Some(NodeResult::Error(error)) = &last.result else { panic!("{last:?}") };
    assert_eq!(error.code, i32::from(Code::DeadlineExceeded));
    assert!(last.elapsed_ms >= 2_000 && last.elapsed_ms < 3_000, "{last:?}");

    // A suspect is asked, too: it may be alive, and if it is not, the caller should know whom it has not reached.
    admin.awaits_state("w1", MemberState::Suspect).await;
    let results =
        broadcast(&admin, request(INFO, "{}"), Some(Duration::from_secs(1))).await.expect("broadcast");
    assert_eq!(names(&results), ["c1", "g1", "w1"]);
    admin.awaits_sample("p2p_broadcast_results_total{result=\"error\"}", 2.0).await;
    admin.awaits_sample("p2p_broadcast_results_total{result=\"ok\"}", 4.0).await;
    cluster.w1.signal(Signal::CONT);
}
