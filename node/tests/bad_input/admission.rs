//! Clients that take more than their share: of connections, of calls at a time, of the work of verifying.

use crate::support::{
    Binary, Certificates, Client, PATIENCE, TestNode, error_details, eventually, greeter::RepeatRequest,
};
use p2p_proto::health::{HealthCheckRequest, health_client::HealthClient};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::{Code, Status};

/// An answer that goes on until its reader has had enough.
fn endless() -> RepeatRequest {
    RepeatRequest { name: "you".to_owned(), count: u32::MAX, pause_ms: 20 }
}

async fn start(settings: &[(&str, &str)]) -> (Certificates, TestNode) {
    let certificates = Certificates::new(&["g1:worker"]);
    let config =
        settings.iter().fold(certificates.config("g1"), |config, (key, value)| config.set(key, value));
    let node = TestNode::start(Binary::Greeter, config).await;
    (certificates, node)
}

async fn livez(client: &Client, http2: bool) -> Result<u16, String> {
    let answer = client.http(http2).get(client.url("/livez")).send().await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stall_make_room_for_one_that_works() {
    let long = [("tls_handshake_timeout", "600"), ("handshakes_max", "16"), ("connections_max", "32")];
    let (certificates, node) = start(&long).await;
    let observer = certificates.observer(&node).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(node.address).await.expect("accepted by the system"));
    }
    observer.awaits_sample("p2p_connections_refused_total{reason=\"opening_limit\"}", 1.0).await;
    let stranger = Client::connect_without_identity(node.address, &certificates.read("ca_cert.pem"));
    for http2 in [false, true] {
        eventually("a normal client to be served", async || match livez(&stranger, http2).await? {
            200 => Ok(()),
            status => Err(format!("HTTP {status}")),
        })
        .await;
    }
    observer.awaits_sample("p2p_connections_ended_total{reason=\"room\"}", 1.0).await;
    observer.awaits_sample("p2p_connections_opening", 1.0).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_its_client_does_not_notice() {
    let (certificates, node) = start(&[("connection_idle_timeout", "300ms")]).await;
    let (admin, observer) = (certificates.client(&node, "admin").await, certificates.observer(&node).await);
    // A call under way is not idle, however little it says.
    let mut busy = certificates.client(&node, "admin").await.greeter();
    let slow = RepeatRequest { name: "you".to_owned(), count: 2, pause_ms: 1500 };
    let mut replies = busy.repeat(slow).await.expect("begun").into_inner();
    admin.hello("you").await.expect("greeted");
    observer.awaits_sample("p2p_connections_ended_total{reason=\"idle\"}", 1.0).await;
    admin.hello("you").await.expect("greeted over a new connection");
    let mut greetings = 0;
    while replies.message().await.expect("no error").is_some() {
        greetings += 1;
    }
    assert_eq!(greetings, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_has_a_share_of_the_calls_and_the_node_a_bound() {
    let (certificates, node) = start(&[("calls_per_client_max", "2"), ("calls_max", "3")]).await;
    let (admin, observer) = (certificates.client(&node, "admin").await, certificates.observer(&node).await);
    let stranger = certificates.stranger(&node).await;
    let first = admin.greeter().repeat(endless()).await.expect("begun");
    let _second = admin.greeter().repeat(endless()).await.expect("begun");
    let refused: Status = admin.hello("you").await.expect_err("a third of one client");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let details = error_details(&refused);
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "TOO_MANY_CALLS");
    assert!(details.retry_info().and_then(|info| info.retry_delay).is_some_and(|pause| !pause.is_zero()));

    // Another client, as a node, is bound by what the node takes in all.
    let third = observer.greeter().repeat(endless()).await.expect("begun");
    let refused = observer.hello("you").await.expect_err("a fourth at the node");
    assert_eq!(
        (refused.code(), error_details(&refused).error_info().expect("ErrorInfo").reason.as_str()),
        (Code::Unavailable, "OVERLOADED")
    );
    let http = observer.http(true).get(observer.url("/cluster/nodes")).send().await.expect("an answer");
    assert_eq!(http.status(), 503);
    // Health is told also when all else is refused.
    for http2 in [false, true] {
        assert_eq!(livez(&stranger, http2).await, Ok(200));
    }
    let mut health = HealthClient::new(stranger.channel.clone());
    health.check(HealthCheckRequest { service: String::new() }).await.expect("told");

    drop((first, third));
    eventually("room for calls", async || {
        admin.hello("you").await.map(drop).map_err(|status| status.to_string())
    })
    .await;
    observer.awaits_sample("p2p_calls_refused_total{limit=\"client\"}", 1.0).await;
    observer.awaits_sample("p2p_calls_refused_total{limit=\"node\"}", 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_watch_health_without_end_leave_room_for_all_else() {
    let (certificates, node) = start(&[("rate_limit_enabled", "false"), ("calls_per_client_max", "1")]).await;
    let (stranger, observer) = (certificates.stranger(&node).await, certificates.observer(&node).await);
    let mut health = HealthClient::new(stranger.channel.clone());
    let mut watches = Vec::new();
    let refused = loop {
        match health.watch(HealthCheckRequest::default()).await {
            Ok(watch) => watches.push(watch.into_inner()),
            Err(refused) => break refused,
        }
        assert!(watches.len() <= 128, "one client has a share");
    };
    assert_eq!(
        (refused.code(), error_details(&refused).error_info().expect("ErrorInfo").reason.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_CALLS")
    );
    for watch in &mut watches {
        assert!(watch.message().await.expect("told").is_some());
    }
    health.check(HealthCheckRequest::default()).await.expect("told");
    assert_eq!(livez(&stranger, true).await, Ok(200));
    observer.awaits_sample("p2p_calls_refused_total{limit=\"watches\"}", 1.0).await;
    // One that ends makes room.
    watches.pop();
    eventually("room for another", async || {
        let watch = health.watch(HealthCheckRequest::default()).await;
        watch.map(drop).map_err(|status| status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_tokens_is_soon_not_looked_at_any_more() {
    let (certificates, node) = start(&[("authentication_failures_max", "3")]).await;
    let stranger = certificates.stranger(&node).await;
    let http = stranger.http(true);
    let guess = async |number: usize| {
        let request = http.get(stranger.url("/health")).bearer_auth(format!("{number}.b.c"));
        request.timeout(PATIENCE).send().await.expect("an answer")
    };
    // Three are the budget, the fourth spends more than there is.
    for number in 0..4 {
        assert_eq!(guess(number).await.status(), 401);
    }
    let answer = guess(5).await;
    assert_eq!(answer.status(), 429);
    let pause: u64 = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=20).contains(&pause), "three a minute: {pause}");
    assert_eq!(livez(&stranger, true).await, Ok(200), "who shows no token is served");
    let observer = certificates.observer(&node).await;
    observer.awaits_sample("p2p_authentication_blocked_total", 1.0).await;
    observer.awaits_sample("p2p_authentication_blocked_addresses", 1.0).await;
    tokio::time::timeout(Duration::from_secs(10), certificates.client(&node, "admin")).await.expect("served");
}
