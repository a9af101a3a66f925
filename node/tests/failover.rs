//! Three providers of one service behind a fourth node: what callers see when one of them is killed, drained, or hangs.

mod support;

use p2p_proto::v1::{
    CircuitState, ListServicesRequest, MemberState, ServiceInfo,
    registry_service_client::RegistryServiceClient,
};
use rustix::process::Signal;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use support::{
    Binary, Certificates, Client, TestNode, error_details, eventually,
    greeter::{HelloRequest, RepeatRequest},
    sample,
};
use tokio::task::JoinHandle;
use tonic::{Request, Status};

const HELLO: &str = "demo.v1.Greeter/SayHello";
const PROVIDERS: [&str; 3] = ["g1", "g2", "g3"];

/// The coordinator `c1`, where calls enter, and three greeters; `c1` routes to all of them.
async fn start(zones: [&str; 3]) -> (Certificates, TestNode, Vec<TestNode>) {
    let certificates = Certificates::new(&["c1:coordinator", "g1:worker", "g2:worker", "g3:worker"]);
    let entry = TestNode::start(Binary::Node, certificates.config("c1").set("zone", "east")).await;
    let seed = entry.address.to_string();
    let mut providers = Vec::new();
    for (name, zone) in PROVIDERS.into_iter().zip(zones) {
        let config = certificates.config(name).set("zone", &format!("\"{zone}\"")).seeds(&[&seed]);
        providers.push(TestNode::start(Binary::Greeter, config).await);
    }
    let client = certificates.observer(&entry).await;
    for provider in PROVIDERS {
        client.awaits_provider(HELLO, provider).await;
    }
    (certificates, entry, providers)
}

/// Calls without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Vec<Status>>>,
}

impl Load {
    fn start(client: &Client, workers: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let worker = |_| {
            let (client, stop, answered) = (client.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.hello("load").await {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => failed.push(status),
                    }
                }
                failed
            })
        };
        let workers = (0..workers).map(worker).collect();
        Self { stop, answered, workers }
    }

    /// Waits until so many more calls were answered.
    async fn answers(&self, more: u64) {
        let until = self.answered.load(Ordering::Relaxed) + more;
        eventually("calls are answered", async || {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered >= until { Ok(()) } else { Err(format!("{answered} of {until}")) }
        })
        .await;
    }

    async fn failures(self) -> Vec<Status> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for worker in self.workers {
            failed.extend(worker.await.expect("no panic"));
        }
        failed
    }
}

async fn served_by(client: &Client) -> String {
    client.hello("x").await.expect("greeted").node
}

async fn greeter(client: &Client) -> ServiceInfo {
    let mut registry = RegistryServiceClient::new(client.channel.clone());
    let answer = registry.list_services(ListServicesRequest {}).await.expect("listed");
    answer.into_inner().services.into_iter().find(|it| it.name == "demo.v1.Greeter").expect("known")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_idempotent_call_fails_when_a_provider_is_killed() {
    let (certificates, entry, mut providers) = start(["", "", ""]).await;
    let client = certificates.client(&entry, "admin").await;
    let load = Load::start(&client, 32);
    load.answers(2_000).await;
    // All of them take part.
    for provider in greeter(&client).await.providers {
        assert_eq!(provider.circuit(), CircuitState::Closed, "{provider:?}");
        assert!(provider.latency_ms.is_some_and(|latency| latency > 0.0), "{provider:?}");
    }
    providers[1].signal(Signal::KILL);
    providers[1].ends().await;
    load.answers(2_000).await;
    certificates.observer(&entry).await.awaits_state("g2", MemberState::Down).await;
    load.answers(500).await;
    let failed = load.failures().await;
    assert!(failed.is_empty(), "{} calls failed: {:?}", failed.len(), failed.first());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_when_a_provider_stops_in_order() {
    let (certificates, entry, mut providers) = start(["", "", ""]).await;
    let client = certificates.client(&entry, "admin").await;
    let load = Load::start(&client, 32);
    load.answers(1_000).await;
    providers[0].signal(Signal::TERM);
    let ended = providers[0].ends().await;
    assert!(ended.success(), "{ended}");
    load.answers(1_000).await;
    let failed = load.failures().await;
    assert!(failed.is_empty(), "{} calls failed: {:?}", failed.len(), failed.first());
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_of_the_same_zone_serve_until_they_are_gone() {
    let (certificates, entry, mut providers) = start(["west", "east", "east"]).await;
    let client = certificates.client(&entry, "admin").await;
    for _ in 0..60 {
        assert_ne!(served_by(&client).await, "g1");
    }
    for near in &mut providers[1..] {
        near.signal(Signal::KILL);
        near.ends().await;
    }
    for _ in 0..20 {
        assert_eq!(served_by(&client).await, "g1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_takes_few_calls_and_loses_none_of_the_others() {
    let (certificates, entry, providers) = start(["", "", ""]).await;
    let client = certificates.client(&entry, "admin").await;
    for _ in 0..30 {
        served_by(&client).await;
    }
    providers[2].signal(Signal::STOP);
    let mut late = 0;
    for _ in 0..100 {
        let mut request = Request::new(HelloRequest { name: "x".to_owned() });
        request.set_timeout(Duration::from_millis(400));
        late += u32::from(client.greeter().say_hello(request).await.is_err());
    }
    // One call waits; what it learns keeps the others away, until membership does.
    assert!(late <= 3, "{late} calls waited in vain");
    providers[2].signal(Signal::CONT);
}

/// Makes calls until `provider`, which does not answer, holds `more` of them; returns them all.
async fn calls_until_held(
    client: &Client,
    provider: &str,
    more: u32,
    call: impl Fn() -> JoinHandle<Result<(), Status>>,
) -> Vec<JoinHandle<Result<(), Status>>> {
    let held = async || {
        let found = greeter(client).await.providers.into_iter().find(|it| it.node_id == provider);
        found.map_or(0, |found| found.in_flight)
    };
    let (mut calls, before) = (Vec::new(), held().await);
    eventually("calls to be held", async || {
        calls.extend((0..50).map(|_| call()));
        let held = held().await;
        if held >= before + more { Ok(()) } else { Err(format!("{held}, {before} before")) }
    })
    .await;
    calls
}

async fn errors(calls: Vec<JoinHandle<Result<(), Status>>>) -> Vec<Status> {
    let mut errors = Vec::new();
    for call in calls {
        errors.extend(call.await.expect("no panic").err());
    }
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_have_been_processed_is_made_again_only_if_its_method_says_so() {
    let (certificates, entry, mut providers) = start(["", "", ""]).await;
    let client = certificates.client(&entry, "admin").await;
    let load = Load::start(&client, 8);
    load.answers(200).await;
    assert!(load.failures().await.is_empty());
    providers[1].signal(Signal::STOP);
    let hello = || {
        let client = client.clone();
        tokio::spawn(async move { client.hello("x").await.map(drop) })
    };
    let repeat = || {
        let client = client.clone();
        tokio::spawn(async move {
            let many = RepeatRequest { name: "x".to_owned(), count: 1, pause_ms: 0 };
            client.greeter().repeat(many).await.map(drop)
        })
    };
    let (once, again) =
        tokio::join!(calls_until_held(&client, "g2", 1, repeat), calls_until_held(&client, "g2", 1, hello),);
    providers[1].signal(Signal::KILL);
    providers[1].ends().await;
    let (once, again) = (errors(once).await, errors(again).await);
    assert!(again.is_empty(), "{} of the repeatable failed: {:?}", again.len(), again.first());
    for status in &once {
        let info = error_details(status).error_info().expect("ErrorInfo").clone();
        assert_eq!(info.reason, "PROVIDER_LOST", "{status}");
        assert!(status.message().contains("may have been processed"), "{status}");
    }
    let metrics = certificates.observer(&entry).await.metrics().await;
    let retried = sample(&metrics, "p2p_retries_total{reason=\"lost\"}").expect("a sample");
    assert!(retried + once.len() as f64 >= 2.0, "{retried} made again, {} not", once.len());
}
