//! `p2p.v1.RegistryService`: methods and schemas.

use crate::{
    error::{Fault, Reason},
    registry::{Method, Registry},
};
use p2p_core::suggest;
use p2p_proto::v1::{
    GetDescriptorsRequest, GetDescriptorsResponse, ListMethodsRequest, ListMethodsResponse,
    registry_service_server::RegistryService,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[derive(Debug)]
pub(super) struct Methods(pub(super) Arc<crate::router::Router>);

#[tonic::async_trait]
impl RegistryService for Methods {
    async fn list_methods(
        &self,
        _request: Request<ListMethodsRequest>,
    ) -> Result<Response<ListMethodsResponse>, Status> {
        let registry = self.0.registry();
        let table = registry.table();
        let mut methods: Vec<_> = table.methods.values().map(|method| method.row(registry.node())).collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Response::new(ListMethodsResponse { methods }))
    }

    async fn get_descriptors(
        &self,
        request: Request<GetDescriptorsRequest>,
    ) -> Result<Response<GetDescriptorsResponse>, Status> {
        let forwarded = super::caller(request.extensions())?.forwarded_by.is_some();
        let service = request.into_inner().service;
        let method = any_method(self.0.registry(), &service).map_err(|fault| fault.to_status())?;
        if forwarded && method.local.is_none() {
            let fault = Fault::new(Reason::NotProvided, format!("this node does not provide {service}"));
            return Err(fault.to_status());
        }
        let schema = self.0.schema(&method).await.map_err(|fault| fault.to_status())?;
        Ok(Response::new(GetDescriptorsResponse { file_descriptor_set: schema.encoded().clone() }))
    }
}

fn any_method(registry: &Registry, service: &str) -> Result<Arc<Method>, Fault> {
    let table = registry.table();
    let mut methods = table.methods.values();
    if let Some(method) = methods.find(|method| method.info.path.service() == service) {
        return Ok(method.clone());
    }
    let known = table.methods.values().map(|method| method.info.path.service());
    let hint = suggest::nearest(service, known).map(|known| format!("; did you mean {known}?"));
    Err(Fault::new(
        Reason::NotFound,
        format!("no node of this cluster provides {service}{}", hint.unwrap_or_default()),
    ))
}
