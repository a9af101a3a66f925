//! A service that this node implements itself.

use crate::schema::{Schema, SchemaError};
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

/// What serves the methods of a service: any tonic service.
pub type Handler = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

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

/// A service that this node implements itself.
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
                response.map(Body::new)
            })
        });
        Ok(Self { name, methods, schema, labels: BTreeMap::new(), handler })
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
            state: ServiceState::Serving.into(),
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
