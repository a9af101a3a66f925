//! The services that every node has: health, reflection, system.

mod support;

use p2p_proto::{
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, health_check_response::ServingStatus,
        health_client::HealthClient,
    },
    v1::{
        CallRequest, EchoRequest, GetInfoRequest, GetMetricsRequest, call_request::Payload,
        rpc_service_client::RpcServiceClient,
    },
};
use prost::Message as _;
use rustix::process::Signal;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Binary, Certificates, Client, Cluster, TestNode};
use tonic::{Code, Request, Status, client::Grpc, codec::Streaming};

async fn check(client: &Client, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(client.channel.clone()).check(request).await?;
    Ok(answer.into_inner().status())
}

async fn watch(client: &Client, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(client.channel.clone()).watch(request).await.expect("open").into_inner()
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let next = tokio::time::timeout(support::PATIENCE, watch.message()).await.expect("in time");
    next.expect("no error").expect("a status").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_to_strangers_and_follows_the_registry() {
    let cluster = Cluster::start().await;
    // Through another node than the provider.
    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    for known in ["", "demo.v1.Greeter", "p2p.v1.SystemService", "grpc.health.v1.Health"] {
        assert_eq!(check(&stranger, known).await.expect("known"), ServingStatus::Serving, "{known:?}");
    }
    assert_eq!(check(&stranger, "no.Such").await.expect_err("unknown").code(), Code::NotFound);

    let mut node = watch(&stranger, "").await;
    let mut greeter = watch(&stranger, "demo.v1.Greeter").await;
    let mut unknown = watch(&stranger, "no.Such").await;
    assert_eq!(next(&mut node).await, ServingStatus::Serving);
    assert_eq!(next(&mut greeter).await, ServingStatus::Serving);
    assert_eq!(next(&mut unknown).await, ServingStatus::ServiceUnknown);
    // The names of all services are for members.
    let list =
        async |client: &Client| HealthClient::new(client.channel.clone()).list(HealthListRequest {}).await;
    assert_eq!(list(&stranger).await.expect_err("refused").code(), Code::Unauthenticated);
    let statuses = list(&cluster.admin(&cluster.w1).await).await.expect("listed").into_inner().statuses;
    for known in ["", "demo.v1.Greeter", "p2p.v1.SystemService"] {
        assert_eq!(statuses[known].status(), ServingStatus::Serving, "{known:?}");
    }
    cluster.g1.signal(Signal::TERM);
    assert_eq!(next(&mut greeter).await, ServingStatus::NotServing);
    assert_eq!(check(&stranger, "demo.v1.Greeter").await.expect("known"), ServingStatus::NotServing);
    let statuses = list(&cluster.admin(&cluster.w1).await).await.expect("listed").into_inner().statuses;
    assert_eq!(statuses["demo.v1.Greeter"].status(), ServingStatus::NotServing);
    cluster.w1.signal(Signal::TERM);
    assert_eq!(next(&mut node).await, ServingStatus::NotServing);
}

macro_rules! reflection_test {
    ($test:ident, $version:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, ServerReflectionResponse,
                server_reflection_request::MessageRequest as Ask,
                server_reflection_response::MessageResponse as Answer,
            };
            let cluster = Cluster::start().await;
            let (certificates, node) = (&cluster.certificates, &cluster.w1);
            let path =
                concat!("/grpc.reflection.", stringify!($version), ".ServerReflection/ServerReflectionInfo");
            let ask = async |client: &Client, questions: Vec<Ask>| -> Result<Vec<Answer>, Status> {
                let requests = questions
                    .into_iter()
                    .map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
                let requests: Vec<_> = requests.collect();
                let mut grpc = Grpc::new(client.channel.clone());
                grpc.ready().await.expect("connected");
                let codec = tonic_prost::ProstCodec::<_, ServerReflectionResponse>::default();
                let requests = Request::new(tokio_stream::iter(requests));
                let answers =
                    grpc.streaming(requests, http::uri::PathAndQuery::from_static(path), codec).await?;
                let mut answers = answers.into_inner();
                let mut all = Vec::new();
                while let Some(answer) = answers.message().await? {
                    all.push(answer.message_response.expect("an answer"));
                }
                Ok(all)
            };
            // Not the node that provides the greeter.
            let admin = certificates.client(node, "admin").await;
            let questions = vec![
                Ask::ListServices(String::new()),
                Ask::FileContainingSymbol("demo.v1.Greeter".to_owned()),
                Ask::FileContainingSymbol("p2p.v1.SystemService.GetInfo".to_owned()),
                Ask::FileByFilename("greeter.proto".to_owned()),
                Ask::FileContainingSymbol("demo.v1.HelloRequest".to_owned()),
                Ask::FileContainingSymbol("demo.v1.Greeter.SayHello".to_owned()),
                Ask::FileContainingSymbol("no.Such".to_owned()),
                Ask::FileByFilename("no/such.proto".to_owned()),
            ];
            let answers = ask(&admin, questions.clone()).await.expect("answered");
            assert_eq!(answers.len(), questions.len());

            let Answer::ListServicesResponse(list) = &answers[0] else { panic!("{:?}", answers[0]) };
            let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
            for name in [
                "demo.v1.Greeter",
                "p2p.v1.SystemService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ] {
                assert!(names.contains(&name), "{name} is missing from {names:?}");
            }
            let described =
                [(1, "Greeter"), (2, "SystemService"), (3, "Greeter"), (4, "Greeter"), (5, "Greeter")];
            for (answer, service) in described {
                let Answer::FileDescriptorResponse(files) = &answers[answer] else {
                    panic!("{:?}", answers[answer])
                };
                let files = files.file_descriptor_proto.iter().map(|file| {
                    prost_types::FileDescriptorProto::decode(file.as_slice()).expect("a descriptor")
                });
                let files: Vec<_> = files.collect();
                assert!(files.iter().any(|file| file.service.iter().any(|found| found.name() == service)));
                let sent: Vec<&str> = files.iter().map(|file| file.name()).collect();
                for import in files.iter().flat_map(|file| &file.dependency) {
                    assert!(sent.contains(&import.as_str()), "{import} is missing from {sent:?}");
                }
            }
            for answer in &answers[6..] {
                let Answer::ErrorResponse(error) = answer else { panic!("{answer:?}") };
                assert_eq!(error.error_code, i32::from(Code::NotFound));
            }

            // What was learned is kept while nobody can be asked; the service itself is not listed then.
            cluster.g1.signal(Signal::KILL);
            admin.awaits_state("g1", p2p_proto::v1::MemberState::Down).await;
            let answers = ask(&admin, vec![Ask::ListServices(String::new())]).await.expect("answered");
            let Answer::ListServicesResponse(list) = &answers[0] else { panic!("{:?}", answers[0]) };
            assert!(list.service.iter().all(|service| service.name != "demo.v1.Greeter"), "{list:?}");

            let stranger = certificates.stranger(node).await;
            let refused = ask(&stranger, vec![Ask::ListServices(String::new())]).await.expect_err("refused");
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
    };
}

reflection_test!(reflection_v1_lists_and_describes_services, v1);
reflection_test!(reflection_v1alpha_lists_and_describes_services, v1alpha);

#[tokio::test(flavor = "multi_thread")]
async fn the_system_service_tells_plausible_facts() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let client = certificates.client(&node, "admin").await;
    let mut system = client.system();

    let echo =
        system.echo(EchoRequest { message: "dźwięk ∞".to_owned() }).await.expect("answered").into_inner();
    assert_eq!((echo.message.as_str(), echo.node_id.as_str()), ("dźwięk ∞", "c1"));

    let info = system.get_info(GetInfoRequest {}).await.expect("answered").into_inner();
    assert_eq!(
        (info.node_id.as_str(), info.cluster_id.as_str(), info.role.as_str()),
        ("c1", "test", "coordinator")
    );
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(Some(info.pid), node.process_id());
    assert_eq!(info.arch, std::env::consts::ARCH);
    assert!(!info.hostname.is_empty() && !info.os.is_empty(), "{info:?}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let started = u64::try_from(info.started_at.expect("a time").seconds).expect("after 1970");
    assert!(now.abs_diff(started) < 60 && info.epoch / 1000 >= started - 60, "{info:?}");

    let first = system.get_metrics(GetMetricsRequest {}).await.expect("answered").into_inner();
    assert!((0.0..=1.0).contains(&first.cpu_usage_ratio), "{first:?}");
    assert!(first.cpu_count > 0 && first.load_average_1m >= 0.0, "{first:?}");
    assert!(first.memory_available_bytes <= first.memory_total_bytes, "{first:?}");
    assert!(first.process_resident_memory_bytes > 1 << 20, "{first:?}");
    assert!(first.process_resident_memory_bytes < first.memory_total_bytes, "{first:?}");
    assert!(first.uptime_seconds < 60, "{first:?}");
    let second = system.get_metrics(GetMetricsRequest {}).await.expect("answered").into_inner();
    assert!(second.process_cpu_seconds >= first.process_cpu_seconds, "{second:?}");

    // One echo so far. Generic calls count as what they call, whatever they were told.
    let [first, second] = [first, second].map(|answer| answer.traffic.expect("told"));
    assert_eq!((first.calls, first.calls_failed, second.calls), (1, 0, 1));
    assert!(first.gossip_interval_seconds > 0.0, "{first:?}");
    let generic = |json: &str| CallRequest {
        method: "p2p.v1.SystemService/Echo".to_owned(),
        payload: Some(Payload::Json(json.to_owned())),
        ..CallRequest::default()
    };
    let mut calls = RpcServiceClient::new(client.channel.clone());
    calls.call(generic(r#"{"message":"again"}"#)).await.expect("answered");
    calls.call(generic("no JSON")).await.expect_err("refused");
    let metrics = system.get_metrics(GetMetricsRequest {}).await.expect("answered").into_inner();
    let traffic = metrics.traffic.expect("told");
    assert_eq!((traffic.calls, traffic.calls_failed), (3, 1));
    assert_eq!(traffic.unary_durations.iter().map(|count| count.calls).sum::<u64>(), 3);
}
