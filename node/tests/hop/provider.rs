//! A node in this process whose service does as it is told.

use crate::{
    Way,
    support::{
        Certificates, TestNode, eventually,
        greeter::{
            DESCRIPTORS, HelloReply, HelloRequest, RepeatRequest,
            greeter_server::{Greeter, GreeterServer},
        },
    },
};
use p2p_node::{
    app::{Node, NodeBuilder},
    config::Config,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinHandle,
};
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the service does depends on the name in the request: `wait` answers when it is let, `size:N` with N bytes, `fail`
/// with an error and all that belongs to one.
#[derive(Clone)]
pub(crate) struct Told(Arc<Calls>);

struct Calls {
    waiting: AtomicUsize,
    given_up: AtomicUsize,
    let_go: Semaphore,
}

impl Told {
    fn new() -> Self {
        let (waiting, given_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Calls { waiting, given_up, let_go: Semaphore::new(0) }))
    }

    /// How many calls wait here.
    pub(crate) fn waiting_now(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// Lets so many waiting calls be answered.
    pub(crate) fn let_go(&self, calls: usize) {
        self.0.let_go.add_permits(calls);
    }

    /// Waits until so many calls wait here.
    pub(crate) async fn awaits_waiting(&self, calls: usize) {
        self.awaits("waiting calls", &self.0.waiting, calls).await;
    }

    /// Waits until so many waiting calls have been given up by their callers.
    pub(crate) async fn awaits_given_up(&self, calls: usize) {
        self.awaits("calls to be given up", &self.0.given_up, calls).await;
    }

    async fn awaits(&self, what: &str, count: &AtomicUsize, expected: usize) {
        eventually(&format!("{expected} {what}"), async || match count.load(Ordering::SeqCst) {
            found if found == expected => Ok(()),
            found => Err(format!("there are {found}")),
        })
        .await;
    }

    async fn wait(&self) {
        struct Waiting<'a>(&'a Calls, bool);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting.fetch_sub(1, Ordering::SeqCst);
                self.0.given_up.fetch_add(usize::from(!self.1), Ordering::SeqCst);
            }
        }
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let mut waiting = Waiting(&self.0, false);
        self.0.let_go.acquire().await.expect("open").forget();
        waiting.1 = true;
    }
}

type Replies = tokio_stream::Empty<Result<HelloReply, Status>>;

#[tonic::async_trait]
impl Greeter for Told {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let metadata = request.metadata().clone();
        let name = request.into_inner().name;
        let mut message = format!("Hello, {name}!");
        if name == "wait" {
            self.wait().await;
        } else if name == "fail" {
            let details = ErrorDetails::with_bad_request_violation("name", "must not be fail");
            let mut status = Status::with_error_details(Code::InvalidArgument, "as told: naïve", details);
            status.metadata_mut().insert_bin("x-trailer-bin", MetadataValue::from_bytes(&[0, 255, 10]));
            return Err(status);
        } else if let Some(size) = name.strip_prefix("size:") {
            message = "x".repeat(size.parse().expect("a number"));
        }
        let caller = metadata.get("p2p-principal").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reply = HelloReply { message, node: "told".to_owned(), caller: caller.to_owned() };
        let mut response = Response::new(reply);
        for value in metadata.get_all_bin("x-echo-bin") {
            response.metadata_mut().append_bin("x-echo-bin", value.clone());
        }
        for value in metadata.get_all("x-echo") {
            response.metadata_mut().append("x-echo", value.clone());
        }
        Ok(response)
    }

    type RepeatStream = Replies;

    async fn repeat(&self, _: Request<RepeatRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("unary only"))
    }

    async fn gather(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<HelloReply>, Status> {
        Err(Status::unimplemented("unary only"))
    }

    type ChatStream = Replies;

    async fn chat(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("unary only"))
    }
}

/// The node.
pub(crate) struct Provider {
    pub(crate) told: Told,
    pub(crate) address: SocketAddr,
    node: Option<Node>,
    /// Its own, so that it can die at once, as a process does.
    runtime: Option<Runtime>,
    _state: TempDir,
}

impl Provider {
    pub(crate) async fn start(certificates: &Certificates, name: &str, seed: &TestNode, way: Way) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        let config = certificates
            .config(name)
            .seeds(&[&seed.address.to_string()])
            .set("peer_stream_enabled", way.enabled())
            .set("state_directory", &state.path().display().to_string());
        let config = Config::from_yaml(&config.yaml(), name).expect("valid");
        let told = Told::new();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let builder = NodeBuilder::new(config).add_service(GreeterServer::new(told.clone()), DESCRIPTORS);
        let start = builder.expect("a service").start();
        let node = runtime.spawn(start).await.expect("no panic").expect("started");
        let address = node.listening();
        Self { told, address, node: Some(node), runtime: Some(runtime), _state: state }
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    /// Begins a shutdown in order.
    pub(crate) fn shut_down(&mut self) -> JoinHandle<()> {
        let node = self.node.take().expect("it runs");
        self.runtime.as_ref().expect("it runs").spawn(node.shutdown())
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.kill();
    }
}
