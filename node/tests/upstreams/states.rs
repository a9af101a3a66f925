//! Registering, draining, disabling, leases, and what survives a restart.

use crate::{
    calls::{HELLO, service, two_nodes, worker},
    process::{GREETER, Kind, Process},
    support::{Binary, Certificates, Client, TestNode, error_details, eventually, greeter::HelloRequest},
};
use p2p_core::grant::Grant;
use p2p_node::identity::{LeafRequest, UnixTime, Validity, files::node_sans};
use p2p_proto::v1::{
    DeregisterServiceRequest, ListServicesRequest, RegisterServiceRequest, ServiceInfo, ServiceState,
    SetServiceStateRequest, registry_service_client::RegistryServiceClient,
};
use rustix::process::Signal;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tonic::{Code, Status};

/// A registration that is looked at often.
pub(crate) fn registration(upstream: &str) -> RegisterServiceRequest {
    RegisterServiceRequest {
        name: GREETER.to_owned(),
        upstream: upstream.to_owned(),
        health_interval_ms: 100,
        ..RegisterServiceRequest::default()
    }
}

pub(crate) async fn register(
    client: &Client,
    request: RegisterServiceRequest,
) -> Result<ServiceInfo, Status> {
    let answer = RegistryServiceClient::new(client.channel.clone()).register_service(request).await?;
    Ok(answer.into_inner().service.expect("the service"))
}

async fn set(client: &Client, state: ServiceState) -> Result<ServiceInfo, Status> {
    let request = SetServiceStateRequest { name: GREETER.to_owned(), state: state.into() };
    let answer = RegistryServiceClient::new(client.channel.clone()).set_service_state(request).await?;
    Ok(answer.into_inner().service.expect("the service"))
}

async fn find(client: &Client) -> Result<Option<ServiceInfo>, Status> {
    let answer =
        RegistryServiceClient::new(client.channel.clone()).list_services(ListServicesRequest {}).await?;
    Ok(answer.into_inner().services.into_iter().find(|service| service.name == GREETER))
}

/// Waits until the node sees the service in `state`.
pub(crate) async fn awaits(client: &Client, state: ServiceState) -> ServiceInfo {
    let mut found = None;
    eventually(state.word(), async || {
        found = find(client).await.map_err(|status| status.to_string())?;
        match &found {
            Some(service) if service.state() == state => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    found.expect("found")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_serves_the_cluster_survives_a_restart_and_can_be_taken_back() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let (c1, w1) = two_nodes(&certificates, "[]").await;
    let (admin, far) = (certificates.client(&w1, "admin").await, certificates.client(&c1, "admin").await);
    let request =
        RegisterServiceRequest { lease_seconds: 3600, max_concurrent: 9, ..registration(&process.url()) };
    let registered = register(&admin, request).await.expect("registered");
    assert_eq!((registered.state(), registered.methods.len()), (ServiceState::Serving, 4));
    let upstream = registered.upstream.expect("an upstream");
    assert_eq!((upstream.url, upstream.registered_by.as_str()), (process.url(), "spiffe://test/admin/admin"));
    assert!(!upstream.configured && upstream.healthy && upstream.lease_expires_at.is_some());
    far.awaits_provider(HELLO, "w1").await;
    assert_eq!(far.hello("x").await.expect("greeted").node, "process");
    let seen = find(&far).await.expect("listed").expect("known");
    assert!(seen.upstream.is_none() && seen.providers[0].node_id == "w1", "{seen:?}");

    w1.signal(Signal::TERM);
    let w1 = w1.start_again(Binary::Node).await;
    let admin = certificates.client(&w1, "admin").await;
    let again = awaits(&admin, ServiceState::Serving).await.upstream.expect("an upstream");
    assert_eq!((again.max_concurrent, again.registered_by), (9, upstream.registered_by));
    far.awaits_provider(HELLO, "w1").await;
    assert_eq!(far.hello("x").await.expect("greeted").node, "process");

    let mut registry = RegistryServiceClient::new(admin.channel.clone());
    let request = DeregisterServiceRequest { name: GREETER.to_owned() };
    registry.deregister_service(request.clone()).await.expect("deregistered");
    let twice = registry.deregister_service(request).await.expect_err("it is gone");
    assert_eq!(twice.code(), Code::NotFound);
    eventually("no provider", async || match far.providers(HELLO).await? {
        providers if providers.is_empty() => Ok(()),
        providers => Err(format!("{providers:?}")),
    })
    .await;
    let status = far.hello("x").await.expect_err("nobody provides it");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unimplemented), "{status}");
    w1.signal(Signal::TERM);
    let w1 = w1.start_again(Binary::Node).await;
    let admin = certificates.client(&w1, "admin").await;
    assert!(find(&admin).await.expect("listed").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_registered_is_refused_with_a_reason() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator"]);
    let spiffe: p2p_core::SpiffeId = "spiffe://test/worker/w1".parse().expect("an id");
    let issued = certificates
        .ca()
        .issue(&LeafRequest {
            sans: node_sans(&spiffe.name, &[]),
            spiffe,
            grant: Some(Grant::parse(&["shop.*"]).expect("a grant")),
            vouchers: Vec::new(),
            validity: Validity::days(UnixTime::now(), 1).expect("a day"),
        })
        .expect("issued");
    crate::support::write_with_mode(&certificates.path("w1_cert.pem"), &issued.cert_pem, 0o644);
    crate::support::write_with_mode(&certificates.path("w1_key.pem"), &issued.key_pem, 0o600);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let services = format!("[{{name: {GREETER}, upstream: \"{}\"}}]", process.url());
    let w1 = TestNode::start(Binary::Node, worker(&certificates, &c1, &services)).await;
    let admin = certificates.client(&c1, "admin").await;

    for (request, code, why) in [
        (registration("http://192.0.2.1:50051"), Code::PermissionDenied, "register_remote_upstreams: true"),
        (
            registration("http://elsewhere.example:1"),
            Code::PermissionDenied,
            "register_remote_upstreams: true",
        ),
        (registration("http://127.0.0.1"), Code::InvalidArgument, "port is missing"),
        (registration("https://127.0.0.1:1"), Code::InvalidArgument, "needs the certificate of its CA"),
        (
            RegisterServiceRequest {
                name: "p2p.v1.ClusterService".to_owned(),
                ..registration(&process.url())
            },
            Code::PermissionDenied,
            "packages p2p and grpc",
        ),
        (
            RegisterServiceRequest {
                name: "grpc.health.v1.Health".to_owned(),
                ..registration(&process.url())
            },
            Code::PermissionDenied,
            "packages p2p and grpc",
        ),
        (
            RegisterServiceRequest { name: "demo.v1.Greetr".to_owned(), ..registration(&process.url()) },
            Code::FailedPrecondition,
            "did you mean demo.v1.Greeter?",
        ),
        (
            RegisterServiceRequest { health: "http".to_owned(), ..registration(&process.url()) },
            Code::InvalidArgument,
            "auto, grpc, tcp or none",
        ),
        (
            RegisterServiceRequest { name: "not a name".to_owned(), ..registration(&process.url()) },
            Code::InvalidArgument,
            "package.Service",
        ),
    ] {
        let status = register(&admin, request).await.expect_err(why);
        assert!(status.code() == code && status.message().contains(why), "{status}");
    }
    assert!(find(&admin).await.expect("listed").is_none(), "nothing was registered");

    // A worker's certificate is not enough, and what a node may provide its own certificate says.
    let node = certificates.observer(&c1).await;
    let status = register(&node, registration(&process.url())).await.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied);
    let admin = certificates.client(&w1, "admin").await;
    let status = register(&admin, registration(&process.url())).await.expect_err("refused");
    assert!(
        status.code() == Code::PermissionDenied && status.message().contains("grants shop.*"),
        "{status}"
    );
    let found = find(&admin).await.expect("listed").expect("configured");
    assert!(found.upstream.expect("here").problem.contains("grants shop.*"));
    assert_eq!(process.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_loses_no_call_and_lasts_until_it_is_enabled() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "g1:worker"]);
    let (c1, w1) = two_nodes(&certificates, &service(&process, "")).await;
    let seed = c1.address.to_string();
    let _g1 = TestNode::start(Binary::Greeter, certificates.config("g1").seeds(&[&seed])).await;
    let (admin, far) = (certificates.client(&w1, "admin").await, certificates.client(&c1, "admin").await);
    for provider in ["w1", "g1"] {
        far.awaits_provider(HELLO, provider).await;
        admin.awaits_provider(HELLO, provider).await;
    }

    // Callers at both nodes, and one that is in the middle of a conversation with the process.
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = [&far, &admin, &far, &admin]
        .into_iter()
        .map(|client| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.hello("x").await.expect("no call fails");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let (asking, questions) = tokio::sync::mpsc::channel(1);
    let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
    let mut chat = admin.greeter().chat(questions).await.expect("begun").into_inner();
    eventually("calls to reach the process", async || {
        if process.calls() > 20 { Ok(()) } else { Err(format!("{} calls", process.calls())) }
    })
    .await;

    let drained = set(&admin, ServiceState::Draining).await.expect("drained");
    assert_eq!(drained.upstream.expect("here").state(), ServiceState::Draining);
    eventually("w1 to be no provider any more", async || match far.providers(HELLO).await? {
        providers if providers == ["g1"] => Ok(()),
        providers => Err(format!("{providers:?}")),
    })
    .await;
    let settled = process.calls();
    for _ in 0..50 {
        assert_eq!(far.hello("x").await.expect("greeted").node, "g1");
        assert_eq!(admin.hello("x").await.expect("greeted").node, "g1");
    }
    assert!(process.calls() <= settled + callers.len(), "only calls that were on their way reach it");
    asking.send(HelloRequest { name: "still here".to_owned() }).await.expect("open");
    let reply = chat.message().await.expect("the conversation goes on").expect("a greeting");
    assert_eq!(reply.message, "Hello, still here!");
    drop(asking);
    assert!(chat.message().await.expect("ended well").is_none());

    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.expect("no call failed") > 0);
    }
    w1.signal(Signal::TERM);
    let w1 = w1.start_again(Binary::Node).await;
    let admin = certificates.client(&w1, "admin").await;
    eventually("the process to be known again", async || {
        let found = find(&admin).await.map_err(|status| status.to_string())?;
        let upstream = found.and_then(|service| service.upstream);
        let ready = upstream.as_ref().is_some_and(|it| it.healthy && it.state() == ServiceState::Draining);
        if ready { Ok(()) } else { Err(format!("{upstream:?}")) }
    })
    .await;
    set(&admin, ServiceState::Serving).await.expect("enabled");
    far.awaits_provider(HELLO, "w1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_disabled_is_refused_at_once_also_after_a_restart() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator"]);
    let config = certificates.config("c1").set("services", &service(&process, ""));
    let node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;
    admin.awaits_provider(HELLO, "c1").await;
    set(&admin, ServiceState::Disabled).await.expect("disabled");
    let status = admin.hello("x").await.expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(error_details(&status).error_info().expect("a reason").reason, "NO_PROVIDER");
    node.signal(Signal::TERM);
    let node = node.start_again(Binary::Node).await;
    let admin = certificates.client(&node, "admin").await;
    let found = awaits(&admin, ServiceState::Disabled).await;
    assert!(found.upstream.expect("here").configured);
    assert_eq!(admin.hello("x").await.expect_err("refused").code(), Code::Unavailable);
    let status = set(&admin, ServiceState::NotServing).await.expect_err("no order");
    assert_eq!(status.code(), Code::InvalidArgument);
    set(&admin, ServiceState::Serving).await.expect("enabled");
    admin.awaits_provider(HELLO, "c1").await;
    assert_eq!(admin.hello("x").await.expect("greeted").node, "process");
    let request = DeregisterServiceRequest { name: GREETER.to_owned() };
    let mut registry = RegistryServiceClient::new(admin.channel.clone());
    let status = registry.deregister_service(request).await.expect_err("it is configured");
    assert!(status.message().contains("services:"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_is_avoided_and_comes_back_by_itself() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let (c1, _w1) = two_nodes(&certificates, &service(&process, "")).await;
    let far = certificates.client(&c1, "admin").await;
    far.awaits_provider(HELLO, "w1").await;
    let address = process.kill().await;
    let status = far.hello("x").await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::Unavailable);
    let found = awaits(&far, ServiceState::NotServing).await;
    assert_eq!(found.providers[0].state(), ServiceState::NotServing);
    let status = far.hello("x").await.expect_err("nobody provides it now");
    assert_eq!(error_details(&status).error_info().expect("a reason").reason, "NO_PROVIDER");
    let _again = Process::start_at("again", Kind::default(), address).await;
    far.awaits_provider(HELLO, "w1").await;
    assert_eq!(far.hello("x").await.expect("greeted").node, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_that_a_process_tells_decides_whether_it_gets_calls() {
    let process = Process::start("process", Kind { health: true, ..Kind::default() }).await;
    let certificates = Certificates::new(&["c1:coordinator"]);
    let config = certificates.config("c1").set("services", &service(&process, ", health: grpc"));
    let node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;
    admin.awaits_provider(HELLO, "c1").await;
    process.health.set_service_status(GREETER, tonic_health::ServingStatus::NotServing).await;
    let found = awaits(&admin, ServiceState::NotServing).await;
    assert!(found.upstream.expect("here").problem.contains("NOT_SERVING"));
    process.health.set_service_status(GREETER, tonic_health::ServingStatus::Serving).await;
    awaits(&admin, ServiceState::Serving).await;

    // A process without grpc.health.v1, which was asked for.
    let silent = Process::start("silent", Kind::default()).await;
    let config = certificates.config("c1").set("services", &service(&silent, ", health: grpc"));
    let node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;
    eventually("the problem to be told", async || {
        let found = find(&admin).await.map_err(|status| status.to_string())?;
        let problem = found.and_then(|service| service.upstream).map(|upstream| upstream.problem);
        let told = problem.as_ref().is_some_and(|problem| problem.contains("health auto, tcp or none"));
        if told { Ok(()) } else { Err(format!("{problem:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_no_health_check_renews_ends() {
    let process = Process::start("process", Kind::default()).await;
    let certificates = Certificates::new(&["c1:coordinator"]);
    let node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let admin = certificates.client(&node, "admin").await;
    let request = RegisterServiceRequest { lease_seconds: 1, ..registration(&process.url()) };
    let ends = |service: ServiceInfo| service.upstream?.lease_expires_at.map(|at| at.seconds);
    let first = ends(register(&admin, request).await.expect("registered")).expect("a lease");
    eventually("checks to renew the lease", async || {
        let found = find(&admin).await.map_err(|status| status.to_string())?.and_then(ends);
        // The first one is over, and the registration is still there.
        if found.is_some_and(|end| end > first + 1) { Ok(()) } else { Err(format!("{first} {found:?}")) }
    })
    .await;
    process.kill().await;
    eventually("the registration to end", async || match find(&admin).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_services_follow_a_reload_and_no_call_is_lost_to_a_new_upstream() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (first, second) =
        (Process::start("first", Kind::default()).await, Process::start("second", Kind::default()).await);
    let mut node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let admin = certificates.client(&node, "admin").await;
    assert!(find(&admin).await.expect("listed").is_none());

    let services = service(&first, "");
    node.reloads(|config| config.set("services", &services), "applied=\"services\"").await;
    awaits(&admin, ServiceState::Serving).await;
    assert_eq!(admin.hello("x").await.expect("greeted").node, "first");

    // Calls go on all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let (caller, stopped) = (admin.clone(), stop.clone());
    let calls = tokio::spawn(async move {
        let mut answered = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            answered.push(caller.hello("x").await.map(|reply| reply.node));
        }
        answered
    });
    let services = service(&second, "");
    node.reloads(|config| config.set("services", &services), "applied=\"services\"").await;
    assert_eq!(admin.hello("x").await.expect("greeted").node, "second");
    stop.store(true, Ordering::Relaxed);
    for answer in calls.await.expect("called") {
        let by = answer.expect("no call is lost");
        assert!(matches!(by.as_str(), "first" | "second"), "{by}");
    }

    // One that is not there does not leave the one before it in its place.
    let services = service(&second, ", max_concurrent: 3");
    second.kill().await;
    let told = node.reloads(|config| config.set("services", &services), "applied=\"services\"").await;
    assert!(!told.contains("needs_restart"), "{told}");
    let found = find(&admin).await.expect("listed");
    assert!(found.is_none_or(|found| found.state() != ServiceState::Serving));
    admin.hello("x").await.expect_err("nobody serves");

    // What was registered comes back where the configuration names it no more.
    node.config.keys.remove("services");
    node.reloads(|config| config, "applied=\"services\"").await;
    assert!(find(&admin).await.expect("listed").is_none_or(|found| found.upstream.is_none()));
    let calls = first.calls();
    register(&admin, registration(&first.url())).await.expect("registered");
    node.reloads(|config| config, "nothing has changed").await;
    assert_eq!(admin.hello("x").await.expect("greeted").node, "first");
    assert_eq!(first.calls(), calls + 1);
}
