//! `grpc.health.v1.Health`, read from the registry: the whole node (`""`) and every service it serves or routes.

use super::Parts;
use crate::{
    error::{Fault, Reason},
    registry::Method,
    shutdown::Phase,
};
use p2p_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus, health_server,
};
use std::{collections::BTreeMap, pin::Pin};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

/// Most services that `List` tells.
const LIST_LIMIT: usize = 4_096;

#[derive(Debug)]
pub(super) struct Health(pub(super) Parts);

fn status(up: bool) -> ServingStatus {
    if up { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn is_provided(method: &Method) -> bool {
    method.local.is_some() || !method.providers.is_empty()
}

/// `None` for a service that nobody knows.
fn serving(parts: &Parts, service: &str) -> Option<ServingStatus> {
    let running = parts.shutdown.phase() == Phase::Running;
    if service.is_empty() {
        return Some(status(running));
    }
    let table = parts.router.registry().table();
    // A service of which any method can be called serves: its providers may differ in their methods.
    let mut methods =
        table.methods.values().filter(|method| method.info.path.service() == service).peekable();
    methods.peek()?;
    Some(status(running && methods.any(|method| is_provided(method))))
}

/// Of every service that is known, and of the whole node.
fn all(parts: &Parts) -> Result<HealthListResponse, Fault> {
    let running = parts.shutdown.phase() == Phase::Running;
    let table = parts.router.registry().table();
    let mut up = BTreeMap::from([(String::new(), running)]);
    for method in table.methods.values() {
        let provided = running && is_provided(method);
        *up.entry(method.info.path.service().to_owned()).or_default() |= provided;
        if up.len() > LIST_LIMIT {
            let text = format!("there are more than {LIST_LIMIT} services; ask for one with Check");
            return Err(Fault::new(Reason::TooLarge, text));
        }
    }
    let statuses = up.into_iter().map(|(service, up)| (service, answer(status(up)))).collect();
    Ok(HealthListResponse { statuses })
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match serving(&self.0, &service) {
            Some(status) => Ok(Response::new(answer(status))),
            None => Err(Status::not_found(format!("no node of this cluster provides {service:?}"))),
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        all(&self.0).map(Response::new).map_err(|fault| fault.to_status())
    }

    /// Sends the status now and at each change; an unknown service may still come.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let parts = self.0.clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut updates = parts.router.registry().updates();
            let mut shutdown = parts.shutdown.clone();
            let mut last = None;
            loop {
                let status = serving(&parts, &service).unwrap_or(ServingStatus::ServiceUnknown);
                if last.replace(status) != Some(status) && sender.send(Ok(answer(status))).await.is_err() {
                    return;
                }
                let running = parts.shutdown.phase() == Phase::Running;
                tokio::select! {
                    changed = updates.changed() => if changed.is_err() { return },
                    () = shutdown.reached(Phase::Leaving), if running => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
