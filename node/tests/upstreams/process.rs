//! Processes of the tests. Each is a runtime of its own, on a loopback port, so that it can be ended with all its
//! connections; none knows of nodes.

use crate::{
    proto::{DESCRIPTORS, greeter_server::GreeterServer},
    service::Greetings,
    support::eventually,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    metadata::MetadataMap,
    service::Routes,
    transport::{Identity, Server, ServerTlsConfig},
};
use tonic_health::server::HealthReporter;

pub(crate) const GREETER: &str = "demo.v1.Greeter";

/// How a process describes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reflection {
    V1,
    V1Alpha,
    None,
}

/// What a process is.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) reflection: Reflection,
    pub(crate) health: bool,
    /// Certificate and key, PEM.
    pub(crate) tls: Option<(String, String)>,
}

impl Default for Kind {
    fn default() -> Self {
        Self { reflection: Reflection::V1, health: false, tls: None }
    }
}

/// A running process that greets.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) health: HealthReporter,
    /// Calls that it was given.
    calls: Arc<AtomicUsize>,
    /// The metadata of the last one.
    last: Arc<Mutex<MetadataMap>>,
    runtime: Option<Runtime>,
}

impl Process {
    pub(crate) async fn start(name: &str, kind: Kind) -> Self {
        Self::start_at(name, kind, ([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_at(name: &str, kind: Kind, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.spawn(TcpListener::bind(address)).await.expect("bound").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (calls, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(MetadataMap::new())));
        let (count, keep) = (calls.clone(), last.clone());
        let greeter = GreeterServer::with_interceptor(
            Greetings { node: name.to_owned() },
            move |request: tonic::Request<()>| {
                count.fetch_add(1, Ordering::Relaxed);
                *keep.lock().expect("not poisoned") = request.metadata().clone();
                Ok(request)
            },
        );
        let mut routes = Routes::new(greeter);
        let builder = || {
            tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS)
        };
        routes = match kind.reflection {
            Reflection::V1 => routes.add_service(builder().build_v1().expect("reflection")),
            Reflection::V1Alpha => routes.add_service(builder().build_v1alpha().expect("reflection")),
            Reflection::None => routes,
        };
        let (health, service) = tonic_health::server::health_reporter();
        if kind.health {
            health.set_service_status(GREETER, tonic_health::ServingStatus::Serving).await;
            routes = routes.add_service(service);
        }
        let mut server = Server::builder();
        if let Some((certificate, key)) = &kind.tls {
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            server = server.tls_config(tls).expect("TLS");
        }
        let serving = server.add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(async move { serving.await.expect("serves") });
        Self { address, health, calls, last, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> MetadataMap {
        self.last.lock().expect("not poisoned").clone()
    }

    /// Ends it at once, connections too.
    pub(crate) async fn kill(self) -> SocketAddr {
        let address = self.address;
        drop(self);
        eventually("the process to end", async || match TcpStream::connect(address).await {
            Err(_) => Ok(()),
            Ok(_) => Err("it accepts".to_owned()),
        })
        .await;
        address
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
