//! A service that this node provides: one that it implements itself, or an upstream's.

use crate::{
    error::Fault,
    schema::{Schema, SchemaError},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body as HttpBody;
use p2p_core::{
    ServiceName,
    method::{InvalidName, MethodInfo},
};
use p2p_proto::v1::{ServiceMethod, ServiceRecord, ServiceState};
use std::{collections::BTreeMap, convert::Infallible, fmt, sync::Arc};
use tonic::{body::Body, server::NamedService};
use tower::{Service, ServiceExt as _};

/// A call that was not taken: nothing of it was processed, and the request is whole.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// The request, to be served elsewhere.
    pub request: Request<Body>,
}

/// What serves the methods of a service: any tonic service, or an upstream.
pub type Handler =
    Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Box<Refused>>> + Send + Sync>;

/// Why a service cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its name is not a service name.
    #[error("{0:?} is no service name: {1}")]
    Name(String, InvalidName),
    /// Its descriptors do not describe it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Its name is reserved.
    #[error("{0} is reserved: services of the packages p2p and grpc are built in")]
    Reserved(ServiceName),
}

/// A service that this node provides.
#[derive(Clone)]
pub struct LocalService {
    /// Fully qualified.
    pub name: ServiceName,
    /// Its methods.
    pub methods: Vec<MethodInfo>,
    /// Its descriptors.
    pub schema: Arc<Schema>,
    /// Labels of its record.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes calls, as the node publishes it.
    pub state: ServiceState,
    /// Whether calls leave this process: another one implements the service.
    pub upstream: bool,
    pub(crate) handler: Handler,
}

impl LocalService {
    /// A tonic service with the encoded `FileDescriptorSet` that describes it.
    ///
    /// # Errors
    ///
    /// When the descriptors do not contain the service.
    pub fn new<S, B>(service: S, schema: Arc<Schema>) -> Result<Self, ServiceError>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let name: ServiceName =
            S::NAME.parse().map_err(|error| ServiceError::Name(S::NAME.to_owned(), error))?;
        let methods = schema.methods(&name)?;
        let handler: Handler = Arc::new(move |request| {
            let answer = service.clone().oneshot(request);
            Box::pin(async move {
                let Ok(response) = answer.await;
                Ok(response.map(Body::new))
            })
        });
        let state = ServiceState::Serving;
        Ok(Self { name, methods, schema, labels: BTreeMap::new(), state, upstream: false, handler })
    }

    /// A service that another process implements, reached by `handler`.
    pub fn of_upstream(
        name: ServiceName,
        methods: Vec<MethodInfo>,
        schema: Arc<Schema>,
        state: ServiceState,
        handler: Handler,
    ) -> Self {
        Self { name, methods, schema, labels: BTreeMap::new(), state, upstream: true, handler }
    }

    /// What the node publishes of it.
    pub fn record(&self) -> ServiceRecord {
        ServiceRecord {
            name: self.name.to_string(),
            methods: self
                .methods
                .iter()
                .map(|method| ServiceMethod {
                    name: method.path.method().to_owned(),
                    streaming: method.streaming.into(),
                    idempotency: method.idempotency.into(),
                })
                .collect(),
            state: self.state.into(),
            descriptor_digest: Bytes::copy_from_slice(&self.schema.digest()),
            labels: self.labels.clone(),
        }
    }
}

impl fmt::Debug for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalService").field("name", &self.name).finish_non_exhaustive()
    }
}
