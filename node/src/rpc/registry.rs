//! `p2p.v1.RegistryService`: methods and schemas; what it does with services is in `services`.

use super::{Parts, caller, note, services};
use crate::{
    error::{Fault, Reason},
    registry::{Method, Registry},
};
use p2p_core::suggest;
use p2p_proto::v1::{
    DeregisterServiceRequest, DeregisterServiceResponse, GetDescriptorsRequest, GetDescriptorsResponse,
    ListMethodsRequest, ListMethodsResponse, ListServicesRequest, ListServicesResponse,
    RegisterServiceRequest, RegisterServiceResponse, SetServiceStateRequest, SetServiceStateResponse,
    registry_service_server::RegistryService,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[derive(Debug)]
pub(super) struct Methods(pub(super) Parts);

#[tonic::async_trait]
impl RegistryService for Methods {
    async fn list_methods(
        &self,
        _request: Request<ListMethodsRequest>,
    ) -> Result<Response<ListMethodsResponse>, Status> {
        let registry = self.0.router.registry();
        let table = registry.table();
        let mut methods: Vec<_> = table.methods.values().map(|method| method.row(registry.node())).collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Response::new(ListMethodsResponse { methods }))
    }

    async fn get_descriptors(
        &self,
        request: Request<GetDescriptorsRequest>,
    ) -> Result<Response<GetDescriptorsResponse>, Status> {
        let forwarded = caller(request.extensions())?.forwarded_by.is_some();
        let service = request.into_inner().service;
        let method = any_method(self.0.router.registry(), &service).map_err(|fault| fault.to_status())?;
        if forwarded && method.local.is_none() {
            let fault = Fault::new(Reason::NotProvided, format!("this node does not provide {service}"));
            return Err(fault.to_status());
        }
        let schema = self.0.router.schema(&method).await.map_err(|fault| fault.to_status())?;
        Ok(Response::new(GetDescriptorsResponse { file_descriptor_set: schema.encoded().clone() }))
    }

    async fn list_services(
        &self,
        _request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        Ok(Response::new(ListServicesResponse { services: services::list(&self.0) }))
    }

    async fn register_service(
        &self,
        request: Request<RegisterServiceRequest>,
    ) -> Result<Response<RegisterServiceResponse>, Status> {
        let by = caller(request.extensions())?.principal.to_string();
        note(request.extensions(), || format!("service {}", request.get_ref().name));
        let registered = services::register(&self.0, request.into_inner(), by).await;
        registered
            .map(|service| Response::new(RegisterServiceResponse { service: Some(service) }))
            .map_err(|fault| fault.to_status())
    }

    async fn deregister_service(
        &self,
        request: Request<DeregisterServiceRequest>,
    ) -> Result<Response<DeregisterServiceResponse>, Status> {
        note(request.extensions(), || format!("service {}", request.get_ref().name));
        let deregistered = services::deregister(&self.0, &request.into_inner().name).await;
        deregistered
            .map(|in_flight| Response::new(DeregisterServiceResponse { in_flight }))
            .map_err(|fault| fault.to_status())
    }

    async fn set_service_state(
        &self,
        request: Request<SetServiceStateRequest>,
    ) -> Result<Response<SetServiceStateResponse>, Status> {
        note(request.extensions(), || {
            let message = request.get_ref();
            format!("service {}: {}", message.name, message.state().as_str_name())
        });
        let set = services::set_state(&self.0, &request.into_inner()).await;
        set.map(|service| Response::new(SetServiceStateResponse { service: Some(service) }))
            .map_err(|fault| fault.to_status())
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
