//! A defect in one task is counted, and costs nobody else anything.

mod support;

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/greeter/service.rs"]
mod service;
use support::greeter as proto;

use p2p_node::{app::NodeBuilder, config::Config, telemetry};
use proto::{DESCRIPTORS, HelloRequest, greeter_server::GreeterServer};
use support::{Certificates, Client};
use tonic::Request;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_panics_fails_its_call_and_no_other() {
    telemetry::count_panics();
    let (certificates, home) = (Certificates::new(&["g1:worker"]), tempfile::tempdir().expect("a directory"));
    let yaml = certificates
        .config("g1")
        .set("state_directory", &home.path().join("state").display().to_string())
        .yaml();
    let config = Config::from_yaml(&yaml, "test").expect("valid");
    let greeter = GreeterServer::with_interceptor(
        service::Greetings { node: "g1".to_owned() },
        |request: Request<()>| match request.metadata().contains_key("defect") {
            true => panic!("as asked"),
            false => Ok(request),
        },
    );
    let node = NodeBuilder::new(config).add_service(greeter, DESCRIPTORS).expect("added").start().await;
    let node = node.expect("started");
    let client = Client::connect(
        node.listening(),
        &certificates.read("ca_cert.pem"),
        Some(certificates.pair("admin")),
    )
    .await;

    for _ in 0..3 {
        let mut request = Request::new(HelloRequest { name: "x".to_owned() });
        request.metadata_mut().insert("defect", "1".parse().expect("a value"));
        client.greeter().say_hello(request).await.expect_err("the call has failed");
        assert_eq!(client.hello("y").await.expect("others are answered").node, "g1");
    }
    client.awaits_sample("p2p_panics_total", 3.0).await;
    client.awaits_sample("p2p_requests_in_flight", 0.0).await;
    let metrics = client.metrics().await;
    let under_way = support::sample(&metrics, "p2p_calls_under_way");
    assert_eq!(under_way, Some(0.0), "nothing is left of calls that have panicked");
    node.shutdown().await;
}
