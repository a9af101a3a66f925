//! Processes that answer nonsense, hang, break off or lie. Callers get a precise status in time, the node counts it and
//! serves on.

use crate::{
    calls::HELLO,
    process::{GREETER, Kind, Process, Reflection},
    proto::DESCRIPTORS,
    states::{awaits, register, registration},
    support::{Binary, Certificates, Client, TestNode, sample},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use p2p_proto::v1::{RegisterServiceRequest, ServiceState};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Status, body::Body};
use tonic_reflection::pb::v1::{
    ErrorResponse, FileDescriptorResponse, ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_request::MessageRequest as Ask,
    server_reflection_response::MessageResponse as Answer,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};

/// A process that does `behave` with each connection.
async fn raw<F: Future<Output = ()> + Send + 'static>(
    behave: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(behave(connection));
        }
    });
    address
}

/// A process that speaks HTTP/2 and answers each request with what `answer` makes.
async fn http2(answer: fn() -> Response<Body>) -> SocketAddr {
    raw(move |connection| async move {
        let service = hyper::service::service_fn(move |request: Request<Incoming>| async move {
            let read = request.into_body().collect().await;
            read.map(|_| answer())
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let serving = hyper::server::conn::http2::Builder::new(executor)
            .serve_connection(hyper_util::rt::TokioIo::new(connection), service);
        // How it ends is the node's affair.
        serving.await.ok();
    })
    .await
}

fn grpc(frames: Vec<Result<Frame<Bytes>, Status>>) -> Response<Body> {
    let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
    Response::builder().header("content-type", "application/grpc").body(body).expect("an answer")
}

/// An empty message.
fn message() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0]))
}

fn html() -> Response<Body> {
    Response::builder().header("content-type", "text/html").body(Body::empty()).expect("an answer")
}

fn overloaded() -> Response<Body> {
    Response::builder().status(503).body(Body::empty()).expect("an answer")
}

fn without_status() -> Response<Body> {
    grpc(vec![Ok(message())])
}

fn without_anything() -> Response<Body> {
    grpc(Vec::new())
}

fn other_trailers() -> Response<Body> {
    let trailers = [("x-own".parse().expect("a name"), "1".parse().expect("a value"))];
    grpc(vec![Ok(message()), Ok(Frame::trailers(trailers.into_iter().collect()))])
}

fn reset() -> Response<Body> {
    grpc(vec![Ok(message()), Err(Status::internal("it breaks"))])
}

fn header_bomb() -> Response<Body> {
    let mut answer = grpc(vec![Ok(message())]);
    for number in 0..64 {
        let name: http::HeaderName = format!("x-{number}").parse().expect("a name");
        answer.headers_mut().insert(name, "y".repeat(4096).parse().expect("a value"));
    }
    answer
}

fn unimplemented() -> Response<Body> {
    Status::unimplemented("what is that?").into_http()
}

fn forged() -> Response<Body> {
    let mut answer = Status::unavailable("try elsewhere").into_http();
    answer.headers_mut().insert("p2p-unprocessed", "1".parse().expect("a value"));
    answer
}

/// A node, and its admin.
async fn node(certificates: &Certificates) -> (TestNode, Client) {
    let node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let client = certificates.client(&node, "admin").await;
    (node, client)
}

/// What is registered without asking the process anything.
fn unasked(address: SocketAddr) -> RegisterServiceRequest {
    RegisterServiceRequest {
        file_descriptor_set: Bytes::from_static(DESCRIPTORS),
        health: "none".to_owned(),
        ..registration(&format!("http://{address}"))
    }
}

async fn count(client: &Client, family: &str, reason: &str) -> f64 {
    let name = format!("p2p_upstream_{family}_failures_total{{service=\"{GREETER}\",reason=\"{reason}\"}}");
    sample(&client.metrics().await, &name).unwrap_or(0.0)
}

async fn refused(client: &Client, reason: &str) -> f64 {
    let name = format!("p2p_upstream_registrations_refused_total{{reason=\"{reason}\"}}");
    sample(&client.metrics().await, &name).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_grpc_is_a_precise_status_and_counted() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (_node, client) = node(&certificates).await;
    let http1 = raw(|mut connection| async move {
        let mut request = [0; 1024];
        if connection.read(&mut request).await.is_ok() {
            connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.ok();
        }
    });
    let garbage = raw(|mut connection| async move {
        connection.write_all(b"SSH-2.0-OpenSSH_9.9 and more than nine bytes\r\n").await.ok();
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.ok();
    });
    let hangs_up = raw(|connection| async move { drop(connection) });
    for (address, code, reason, counted) in [
        (http2(html).await, Code::Internal, "UPSTREAM_INVALID", "not_grpc"),
        (http2(overloaded).await, Code::Internal, "UPSTREAM_INVALID", "not_grpc"),
        (http2(without_status).await, Code::Internal, "UPSTREAM_INVALID", "no_status"),
        (http2(without_anything).await, Code::Internal, "UPSTREAM_INVALID", "no_status"),
        (http2(other_trailers).await, Code::Internal, "UPSTREAM_INVALID", "no_status"),
        (http2(reset).await, Code::Unavailable, "PROVIDER_LOST", "lost"),
        (http2(header_bomb).await, Code::Unavailable, "PROVIDER_LOST", "lost"),
        (http1.await, Code::Unavailable, "PROVIDER_", ""),
        (garbage.await, Code::Unavailable, "PROVIDER_", ""),
        (hangs_up.await, Code::Unavailable, "PROVIDER_", ""),
    ] {
        register(&client, unasked(address)).await.expect("registered");
        let before = count(&client, "call", counted).await;
        let status = client.hello("x").await.expect_err("no answer");
        let told = crate::support::error_details(&status).error_info().map(|info| info.reason.clone());
        assert_eq!(status.code(), code, "{status}");
        assert!(told.as_deref().is_some_and(|told| told.starts_with(reason)), "{told:?}: {status}");
        assert!(!status.message().contains("127.0.0.1"), "where a process listens is no caller's business");
        if !counted.is_empty() {
            assert_eq!(count(&client, "call", counted).await, before + 1.0, "{counted}");
        }
    }
    // The node is none the worse.
    let process = Process::start("process", Kind::default()).await;
    register(&client, registration(&process.url())).await.expect("registered");
    assert_eq!(client.hello("x").await.expect("greeted").node, "process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_costs_its_callers_their_deadline_and_nobody_else_anything() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (_node, client) = node(&certificates).await;
    // It accepts and says nothing, for as long as the test runs.
    let hangs = raw(|mut connection| async move {
        while connection.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    // A node that gives calls without a deadline half a second.
    let config = certificates.config("c1").set("rpc_default_timeout", "500ms");
    let hasty_node = TestNode::start(Binary::Node, config).await;
    let hasty = certificates.client(&hasty_node, "admin").await;
    register(&hasty, unasked(hangs)).await.expect("registered");
    let status = hasty.hello("x").await.expect_err("no answer");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");

    register(&client, unasked(hangs)).await.expect("registered");
    // Its health check tells, and it is avoided.
    let checked = RegisterServiceRequest { health: "grpc".to_owned(), ..unasked(hangs) };
    register(&client, checked).await.expect("registered");
    let found = awaits(&client, ServiceState::NotServing).await;
    assert!(found.upstream.expect("here").problem.contains("does not answer its health check in time"));
    assert_eq!(client.hello("x").await.expect_err("avoided").code(), Code::Unavailable);

    let status = register(&client, registration(&format!("http://{hangs}"))).await.expect_err("no answer");
    assert!(status.code() == Code::FailedPrecondition && status.message().contains("in time"), "{status}");
    assert_eq!(refused(&client, "timeout").await, 1.0);
    assert!(count(&client, "check", "timeout").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_lies_about_its_methods_answers_for_itself() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (_node, client) = node(&certificates).await;
    register(&client, unasked(http2(unimplemented).await)).await.expect("registered");
    let status = client.hello("x").await.expect_err("it lied");
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "what is that?"));
    // What only nodes say, it cannot say.
    register(&client, unasked(http2(forged).await)).await.expect("registered");
    let status = client.hello("x").await.expect_err("refused");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "try elsewhere"));
    assert!(status.metadata().get("p2p-unprocessed").is_none());
}

/// A process whose reflection answers each question with these files.
#[derive(Clone)]
struct Liar(Arc<Vec<Vec<u8>>>);

#[tonic::async_trait]
impl ServerReflection for Liar {
    type ServerReflectionInfoStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        request: tonic::Request<tonic::Streaming<ServerReflectionRequest>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, Status> {
        use tokio_stream::StreamExt as _;
        let files = self.0.clone();
        let answers = request.into_inner().map(move |request| {
            let message = match request?.message_request {
                Some(Ask::FileContainingSymbol(_) | Ask::FileByFilename(_)) if !files.is_empty() => {
                    let file_descriptor_proto = files.to_vec();
                    Answer::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
                }
                _ => Answer::ErrorResponse(ErrorResponse {
                    error_code: 13,
                    error_message: "no\u{7}".to_owned(),
                }),
            };
            Ok(ServerReflectionResponse { message_response: Some(message), ..Default::default() })
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

async fn liar(files: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tonic::transport::Server::builder()
        .add_service(ServerReflectionServer::new(Liar(Arc::new(files))))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(async move { server.await.expect("serves") });
    address
}

fn greeter_files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(DESCRIPTORS).expect("our own").file
}

fn file(name: &str, imports: &[&str]) -> Vec<u8> {
    let public = (0..imports.len()).map(|index| i32::try_from(index).expect("few")).collect();
    FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: imports.iter().map(|&import| import.to_owned()).collect(),
        public_dependency: public,
        ..FileDescriptorProto::default()
    }
    .encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_believed_within_bounds_only() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (node, client) = node(&certificates).await;
    let greeter: Vec<Vec<u8>> = greeter_files().iter().map(prost::Message::encode_to_vec).collect();
    let with = |more: &[Vec<u8>]| [greeter.as_slice(), more].concat();
    let mut huge = greeter_files().remove(0);
    huge.source_code_info = Some(prost_types::SourceCodeInfo {
        location: vec![prost_types::source_code_info::Location {
            leading_comments: Some("x".repeat(2 * 1024 * 1024)),
            ..Default::default()
        }],
    });
    let many: Vec<Vec<u8>> = (0..300).map(|number| file(&format!("{number}.proto"), &[])).collect();
    let many_methods = {
        let mut file = greeter_files().remove(0);
        let method = file.service[0].method[0].clone();
        let more = (0..1000).map(|number| {
            let mut method = method.clone();
            method.name = Some(format!("Do{number}"));
            method
        });
        file.service[0].method.extend(more);
        file.encode_to_vec()
    };
    let circle = with(&[file("a.proto", &["b.proto"]), file("b.proto", &["a.proto"])]);
    let importing = {
        let mut file = greeter_files().remove(0);
        file.dependency.push("nowhere.proto".to_owned());
        vec![file.encode_to_vec()]
    };
    for (files, reason, why) in [
        (vec![huge.encode_to_vec()], "descriptor_bounds", "more than 1048576 bytes"),
        (with(&many), "descriptor_bounds", "more than 256 files"),
        (vec![many_methods], "descriptor_bounds", "more than 512 methods"),
        (circle, "descriptor_bounds", "imports itself"),
        (vec![vec![0xff; 64]], "descriptors", "no encoded FileDescriptorProto"),
        (vec![file("a.proto", &[])], "descriptors", "no service demo.v1.Greeter"),
        (importing, "reflection", "it gives no \"nowhere.proto\""),
        (Vec::new(), "reflection", "no"),
    ] {
        let address = liar(files).await;
        let before = refused(&client, reason).await;
        let status = register(&client, registration(&format!("http://{address}"))).await.expect_err(why);
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains(why) && !status.message().contains('\u{7}'), "{status}");
        assert_eq!(refused(&client, reason).await, before + 1.0, "{reason}");
    }
    let silent = Process::start("silent", Kind { reflection: Reflection::None, ..Kind::default() }).await;
    let status = register(&client, registration(&silent.url())).await.expect_err("no reflection");
    assert!(status.message().contains("implements no gRPC reflection"), "{status}");
    // With its descriptors it needs none.
    let described = RegisterServiceRequest {
        file_descriptor_set: Bytes::from_static(DESCRIPTORS),
        ..registration(&silent.url())
    };
    register(&client, described).await.expect("registered");
    client.awaits_provider(HELLO, "c1").await;
    assert_eq!(client.hello("x").await.expect("greeted").node, "silent");
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_method_that_streams_otherwise_elsewhere_is_refused() {
    let certificates = Certificates::new(&["c1:coordinator", "g1:worker"]);
    let (c1, client) = node(&certificates).await;
    let seed = c1.address.to_string();
    let _g1 = TestNode::start(Binary::Greeter, certificates.config("g1").seeds(&[&seed])).await;
    client.awaits_provider(HELLO, "g1").await;
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).expect("our own");
    for file in &mut set.file {
        for service in &mut file.service {
            service.method[0].server_streaming = Some(true);
        }
    }
    let process = Process::start("process", Kind::default()).await;
    let request = RegisterServiceRequest {
        file_descriptor_set: set.encode_to_vec().into(),
        ..registration(&process.url())
    };
    let status = register(&client, request).await.expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("server_streaming here and unary at node g1"), "{status}");
    assert_eq!(refused(&client, "conflict").await, 1.0);
    assert_eq!(client.hello("x").await.expect("greeted").node, "g1");
}
