//! `grpc.health.v1.Health`, read from the registry: the whole node (`""`) and every service it serves or routes.

use super::Parts;
use crate::shutdown::Phase;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

#[derive(Debug)]
pub(super) struct Health(pub(super) Parts);

/// `None` for a service that nobody knows.
fn serving(parts: &Parts, service: &str) -> Option<ServingStatus> {
    let running = parts.shutdown.phase() == Phase::Running;
    let status = |up: bool| if up { ServingStatus::Serving } else { ServingStatus::NotServing };
    if service.is_empty() {
        return Some(status(running));
    }
    let table = parts.router.registry().table();
    let method = table.methods.values().find(|method| method.info.path.service() == service)?;
    Some(status(running && (method.local.is_some() || !method.providers.is_empty())))
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
