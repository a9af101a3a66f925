//! Services as `RegistryService` lists them, and what admins do with those of this node's upstreams.

use super::Parts;
use crate::{
    config::{HealthCheck, UpstreamUrl, service::HEALTH_INTERVAL, service::HEALTH_INTERVALS},
    error::{Fault, Reason},
    registry::{Snapshot, Table},
    upstream::{Registration, Spec},
};
use p2p_core::{NodeId, ServiceName, balancer};
use p2p_proto::v1::{
    CircuitState, RegisterServiceRequest, ServiceInfo, ServiceProvider, ServiceRecord, ServiceState,
    SetServiceStateRequest,
};
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

/// Longest lease: a hundred years, beyond which clocks may overflow.
const MAX_LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Every service of users, by name.
pub(super) fn list(parts: &Parts) -> Vec<ServiceInfo> {
    let registry = parts.router.registry();
    let (here, table) = (registry.node(), registry.table());
    let mut services: BTreeMap<String, ServiceInfo> = BTreeMap::new();
    let mut add = |node: &NodeId, record: &ServiceRecord| {
        let service = services.entry(record.name.clone()).or_insert_with(|| ServiceInfo {
            name: record.name.clone(),
            methods: record.methods.iter().map(|method| method.name.clone()).collect(),
            ..ServiceInfo::default()
        });
        service.providers.push(provider(&table, node, record));
    };
    // What this node provides it knows before the view does.
    for record in registry.records() {
        add(here, &record);
    }
    let view = parts.gossip.view();
    for (node, member) in
        view.borrow().members.iter().filter(|(node, member)| *node != here && member.serves())
    {
        for record in member.records.services.values() {
            add(node, record);
        }
    }
    for (name, upstream) in parts.upstreams.infos() {
        let unknown = || ServiceInfo { name: name.to_string(), ..ServiceInfo::default() };
        services.entry(name.to_string()).or_insert_with(unknown).upstream = Some(upstream);
    }
    let mut services: Vec<_> = services.into_values().collect();
    for service in &mut services {
        service.methods.sort();
        service.providers.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let serving = |provider: &&ServiceProvider| provider.state() == ServiceState::Serving;
        let stands = service.providers.iter().find(serving).or(service.providers.first());
        service.state = stands.map_or(ServiceState::NotServing, ServiceProvider::state).into();
    }
    services
}

/// One that publishes a service, with its circuit as this node sees it.
fn provider(table: &Table, node: &NodeId, record: &ServiceRecord) -> ServiceProvider {
    let found = table.services.get(record.name.as_str()).and_then(|nodes| nodes.get(node));
    let mut row =
        ServiceProvider { node_id: node.to_string(), state: record.state, ..ServiceProvider::default() };
    let Some(Snapshot { circuit, in_flight, latency }) = found.map(|provider| provider.snapshot()) else {
        return row;
    };
    let (state, left) = match circuit {
        balancer::CircuitState::Closed => (CircuitState::Closed, Duration::ZERO),
        balancer::CircuitState::Open { left } => (CircuitState::Open, left),
        balancer::CircuitState::HalfOpen => (CircuitState::HalfOpen, Duration::ZERO),
    };
    row.circuit = state.into();
    row.circuit_open_seconds = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    row.in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
    row.latency_ms = latency.map(|latency| latency.as_secs_f64() * 1000.0);
    row
}

fn one(parts: &Parts, name: &ServiceName) -> Result<ServiceInfo, Fault> {
    let found = list(parts).into_iter().find(|service| service.name == name.as_str());
    found.ok_or_else(|| Fault::new(Reason::NotFound, format!("{name} was deregistered meanwhile")))
}

fn invalid(what: impl std::fmt::Display) -> Fault {
    Fault::new(Reason::InvalidArgument, what.to_string())
}

fn name(text: &str) -> Result<ServiceName, Fault> {
    text.parse().map_err(|_| invalid("a service name is package.Service, as in shop.Orders"))
}

/// Registers an upstream.
pub(super) async fn register(
    parts: &Parts,
    request: RegisterServiceRequest,
    by: String,
) -> Result<ServiceInfo, Fault> {
    let spec = spec(request.clone())?;
    let lease = Duration::from_secs(request.lease_seconds);
    if lease > MAX_LEASE {
        return Err(invalid("a lease is at most 36500d; 0 means for ever"));
    }
    let name = spec.name.clone();
    let registration = Registration { spec, by, lease: Some(lease).filter(|lease| !lease.is_zero()) };
    parts.upstreams.register(registration).await?;
    one(parts, &name)
}

fn spec(request: RegisterServiceRequest) -> Result<Spec, Fault> {
    let url: UpstreamUrl = request.upstream.parse().map_err(invalid)?;
    let health = match request.health.as_str() {
        "" => HealthCheck::default(),
        word => word.parse().map_err(invalid)?,
    };
    let health_interval = match request.health_interval_ms {
        0 => HEALTH_INTERVAL,
        ms => Duration::from_millis(ms),
    };
    if !HEALTH_INTERVALS.contains(&health_interval) {
        return Err(invalid("the health interval is 100ms to 1h"));
    }
    let some = |bytes: bytes::Bytes| Some(bytes).filter(|bytes| !bytes.is_empty());
    let ca_pem = some(request.ca_pem);
    if url.tls != ca_pem.is_some() {
        return Err(invalid("an https upstream needs the certificate of its CA, and an http one takes none"));
    }
    Ok(Spec {
        name: name(&request.name)?,
        url,
        descriptors: some(request.file_descriptor_set),
        health,
        health_interval,
        max_concurrent: NonZeroU32::new(request.max_concurrent),
        ca_pem,
    })
}

/// Forgets a registration.
pub(super) async fn deregister(parts: &Parts, service: &str) -> Result<u32, Fault> {
    parts.upstreams.deregister(&name(service)?).await
}

/// Enables, drains or disables.
pub(super) async fn set_state(parts: &Parts, request: &SetServiceStateRequest) -> Result<ServiceInfo, Fault> {
    let name = name(&request.name)?;
    let state = request.state();
    match state {
        ServiceState::Serving | ServiceState::Draining | ServiceState::Disabled => {}
        ServiceState::Unspecified | ServiceState::NotServing => {
            return Err(invalid("a service can be set to SERVING, DRAINING or DISABLED"));
        }
    }
    parts.upstreams.set_state(&name, state).await?;
    one(parts, &name)
}
