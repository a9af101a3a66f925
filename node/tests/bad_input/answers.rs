//! Answers of a service that does not keep to its own descriptors.

use crate::support::{Binary, Certificates, Client, TestNode, error_details};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use p2p_node::{
    app::{Node, NodeBuilder},
    config::Config,
};
use p2p_proto::v1::{CallResponse, GetMetricsRequest, call_response::Result as CallResult};
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::{
    convert::Infallible,
    task::{Context, Poll},
};
use tonic::{Code, Status, body::Body, server::NamedService};

/// Fields of a message that takes two bytes when it is empty.
const FIELDS: i32 = 500;
/// How many of them one answer holds.
const ITEMS: usize = 100_000;

fn field(name: &str, number: i32, kind: Type, label: Label, message: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(label.into()),
        type_name: message.map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..DescriptorProto::default() }
}

fn descriptors() -> Vec<u8> {
    let many = (1..=FIELDS).map(|at| field(&format!("field_{at}"), at, Type::String, Label::Optional, None));
    let get = MethodDescriptorProto {
        name: Some("Get".to_owned()),
        input_type: Some(".rogue.v1.In".to_owned()),
        output_type: Some(".rogue.v1.Out".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        // The greeter's file has the same name.
        name: Some("greeter.proto".to_owned()),
        package: Some("rogue.v1".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![
            message("In", vec![field("what", 1, Type::String, Label::Optional, None)]),
            message("Out", vec![field("items", 1, Type::Message, Label::Repeated, Some(".rogue.v1.Wide"))]),
            message("Wide", many.collect()),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("Rogue".to_owned()),
            method: vec![get],
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

/// Answers as the request says.
#[derive(Clone, Debug)]
struct Rogue;

impl NamedService for Rogue {
    const NAME: &'static str = "rogue.v1.Rogue";
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("fits"));
    frame.put_slice(message);
    frame.freeze()
}

impl tower::Service<http::Request<Body>> for Rogue {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let asked = request.into_body().collect().await.expect("a request").to_bytes();
            let asked = |word: &str| asked.ends_with(word.as_bytes());
            let body = if asked("garbage") {
                framed(b"\x0a\xff")
            } else if asked("wide") {
                framed(&[0x0a, 0].repeat(ITEMS))
            } else if asked("lie") {
                Bytes::from_static(b"\0\0\xff\xff\xff")
            } else {
                framed(b"")
            };
            let mut trailers = http::HeaderMap::new();
            if !asked("silent") {
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            }
            let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
            let mut answer = http::Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames))));
            let kind = http::HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert("content-type", kind);
            Ok(answer)
        })
    }
}

/// A node of this process that provides the rogue, and its home.
async fn start_rogue(certificates: &Certificates, seed: &TestNode) -> (tempfile::TempDir, Node) {
    let home = tempfile::tempdir().expect("a directory");
    let state = home.path().display().to_string();
    let config = certificates.config("r1").seeds(&[&seed.address.to_string()]).set("state_directory", &state);
    let config = Config::from_yaml(&config.yaml(), "r1").expect("a configuration");
    let node = NodeBuilder::new(config).add_service(Rogue, &descriptors()).expect("a service");
    (home, node.start().await.expect("started"))
}

async fn memory(client: &Client) -> u64 {
    let metrics = client.system().get_metrics(GetMetricsRequest {}).await.expect("answered");
    metrics.into_inner().process_resident_memory_bytes
}

async fn get(client: &Client, what: &str) -> Result<CallResponse, Status> {
    client.call("rogue.v1.Rogue/Get", "", &format!("{{\"what\": \"{what}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_is_a_fault_of_its_provider_and_costs_little() {
    let certificates = Certificates::new(&["c1:coordinator", "r1:worker"]);
    let entry = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let (_home, rogue) = start_rogue(&certificates, &entry).await;
    let admin = certificates.observer(&entry).await;
    admin.awaits_provider("rogue.v1.Rogue/Get", "r1").await;

    let answer = get(&admin, "nothing wrong").await.expect("answered");
    assert_eq!(answer.result, Some(CallResult::Json("{\"items\":[]}".to_owned())));
    let before = memory(&admin).await;
    for (what, code, reason, text) in [
        ("garbage", Code::Internal, "PROVIDER_GARBLED", "no rogue.v1.Out message"),
        ("wide", Code::ResourceExhausted, "TOO_LARGE", "rpc_max_message_bytes"),
    ] {
        let status = get(&admin, what).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status}");
        assert!(status.message().contains(text), "{what}: {status}");
        assert_eq!(error_details(&status).error_info().expect("ErrorInfo").reason, reason);
        admin.awaits_sample(&format!("p2p_generic_call_faults_total{{reason=\"{reason}\"}}"), 1.0).await;
    }
    // 200 KB that would be a gigabyte of JSON.
    let grown = memory(&admin).await.saturating_sub(before);
    println!("bad input: {grown} bytes more after an answer of {ITEMS} messages with {FIELDS} fields");
    assert!(grown < 128 * 1024 * 1024, "{grown}");
    for (what, text) in [("lie", "not one gRPC message"), ("silent", "no gRPC status")] {
        let answer = get(&admin, what).await.expect("answered");
        let Some(CallResult::Error(error)) = answer.result else { panic!("{what}: {answer:?}") };
        assert!(error.message.contains(text), "{what}: {}", error.message);
    }
    rogue.shutdown().await;
}

/// The files that describe `name`, as the node reflects them.
async fn reflected(client: &Client, name: &str) -> Vec<FileDescriptorProto> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    };
    let message_request = Some(MessageRequest::FileByFilename(name.to_owned()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<_, ServerReflectionResponse>::default();
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let path = http::uri::PathAndQuery::from_static(path);
    let requests = tonic::Request::new(tokio_stream::iter([request]));
    let mut answers = grpc.streaming(requests, path, codec).await.expect("open").into_inner();
    let answer = answers.message().await.expect("no error").expect("an answer");
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let files = files.file_descriptor_proto.iter();
    files.map(|file| FileDescriptorProto::decode(file.as_slice()).expect("a descriptor")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_files_with_one_name_every_node_gives_the_same() {
    let certificates = Certificates::new(&["c1:coordinator", "g1:worker", "r1:worker"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let g1 = certificates.config("g1").seeds(&[&c1.address.to_string()]);
    let g1 = TestNode::start(Binary::Greeter, g1).await;
    let (_home, rogue) = start_rogue(&certificates, &c1).await;
    // The provider of one file, a node that provides neither, and below that of the other.
    for entry in [&c1, &g1] {
        let client = certificates.observer(entry).await;
        client.awaits_provider("demo.v1.Greeter/SayHello", "g1").await;
        client.awaits_provider("rogue.v1.Rogue/Get", "r1").await;
        let files = reflected(&client, "greeter.proto").await;
        assert_eq!(files[0].package(), "demo.v1", "through {}", entry.config.name);
        client.awaits_sample("p2p_descriptor_conflicts_total", 1.0).await;
    }
    let own = Client::connect_lazily(
        rogue.listening(),
        &certificates.read("ca_cert.pem"),
        certificates.pair("admin"),
    );
    own.awaits_provider("demo.v1.Greeter/SayHello", "g1").await;
    assert_eq!(reflected(&own, "greeter.proto").await[0].package(), "demo.v1", "not the rogue's own");
    // Each service is described by its own.
    let answer = get(&certificates.observer(&c1).await, "nothing wrong").await.expect("answered");
    assert_eq!(answer.result, Some(CallResult::Json("{\"items\":[]}".to_owned())));
    rogue.shutdown().await;
}
