//! One immutable state of the registry.

use super::{Handler, LocalService, Provider, traffic::Traffic};
use crate::{
    auth::{Access, access_of},
    limit::RateClass,
};
use p2p_core::{
    MethodPath, NodeId, ServiceName,
    gossip::{MemberView, View},
    method::{Idempotency, MethodInfo, StreamingKind},
};
use p2p_proto::v1::{MethodInfo as MethodRow, ServiceRecord, ServiceState};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry as MetricsRegistry, Unit},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tonic::Code;

/// One method that this node can serve or route.
#[derive(Debug)]
pub struct Method {
    /// Path, streaming kind and idempotency.
    pub info: MethodInfo,
    /// Class of rate limit.
    pub class: RateClass,
    /// Who may call it.
    pub access: Access,
    /// What serves it here, if this node provides it.
    pub local: Option<LocalHandler>,
    /// What serves it here while the service is drained: only calls of nodes that have not heard of that yet.
    pub draining: Option<LocalHandler>,
    /// Other nodes that provide it now: those in this node's zone, then the others, each by node id. All built-in
    /// methods share theirs.
    pub providers: Arc<Vec<Arc<Provider>>>,
    /// How many of them are in this node's zone.
    pub near: usize,
    /// SHA-256 of the descriptors that this node has, else of those that its first provider publishes. None for services
    /// of the system.
    pub descriptor_digest: Option<[u8; 32]>,
    /// Its counters.
    pub metrics: MethodMetrics,
}

/// A handler of a service of this node.
#[derive(Clone)]
pub struct LocalHandler {
    /// What serves a call.
    pub handler: Handler,
    /// Whether calls leave this process.
    pub upstream: bool,
}

impl std::fmt::Debug for LocalHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalHandler")
    }
}

impl Method {
    /// Whether a call that may have been processed may be made again, as its service declares.
    pub fn is_repeatable(&self) -> bool {
        match self.info.idempotency {
            Idempotency::Idempotent | Idempotency::NoSideEffects => true,
            Idempotency::Unknown => false,
        }
    }

    /// As a row of `RegistryService.ListMethods`, seen from `node`.
    pub fn row(&self, node: &NodeId) -> MethodRow {
        let mut providers: Vec<String> = self.providers.iter().map(|p| p.node.to_string()).collect();
        providers.extend(self.local.is_some().then(|| node.to_string()));
        providers.sort();
        MethodRow {
            path: self.info.path.to_string(),
            streaming: self.info.streaming.into(),
            idempotency: self.info.idempotency.into(),
            rate_class: self.class.word().to_owned(),
            providers,
        }
    }
}

/// The class of a gRPC service's methods.
pub(super) fn rate_class(service: &str) -> RateClass {
    match service {
        "p2p.v1.RpcService" => RateClass::Rpc,
        "grpc.health.v1.Health" => RateClass::Health,
        other if other.starts_with("p2p.") || other.starts_with("grpc.") => RateClass::Default,
        _ => RateClass::Grpc,
    }
}

/// All methods and providers at one moment.
#[derive(Debug, Default)]
pub struct Table {
    /// Methods by wire path.
    pub methods: HashMap<Box<str>, Arc<Method>>,
    /// Every other node that may be given calls, for the services that each node has for itself.
    pub nodes: HashMap<NodeId, Arc<Provider>>,
    /// The other nodes that serve each service of users. What is counted of them is counted for each service.
    pub services: HashMap<ServiceName, HashMap<NodeId, Arc<Provider>>>,
    /// Nodes in this node's zone, if it has one.
    near: HashSet<NodeId>,
    /// Services whose providers publish different descriptors.
    pub(super) disputed: BTreeSet<ServiceName>,
}

impl Table {
    pub(super) fn build(
        node: &NodeId,
        local: &BTreeMap<ServiceName, LocalService>,
        view: &View,
        before: &Table,
        metrics: &RequestMetrics,
    ) -> Self {
        let zone_of = |member: &MemberView| member.records.node.zone.clone();
        let zone = view.members.get(node).map(zone_of).filter(|zone| !zone.is_empty());
        let mut table = Self::default();
        for (id, member) in view.members.iter().filter(|(id, member)| *id != node && member.serves()) {
            if let Some(address) = member.address {
                let known = before.nodes.get(id);
                table.nodes.insert(id.clone(), provider(known, id, None, address, metrics));
                if zone.as_ref().is_some_and(|zone| *zone == member.records.node.zone) {
                    table.near.insert(id.clone());
                }
            }
        }
        table.add_local(local, metrics);
        let remote = || view.members.iter().filter(|(id, _)| *id != node);
        for (id, member) in remote() {
            if let Some(address) = table.nodes.get(id).map(|provider| provider.address) {
                table.add_remote(id, Some((address, before)), member, is_serving, metrics);
            }
        }
        // Last, so that what is served decides: a method whose every provider is gone, or does not serve it now, stays
        // known, and its callers hear that nobody provides it now.
        for (id, member) in remote() {
            let gone = !table.nodes.contains_key(id);
            table.add_remote(id, None, member, |service| gone || !is_serving(service), metrics);
        }
        metrics.disputed.set(i64::try_from(table.disputed.len()).unwrap_or(i64::MAX));
        table
    }

    /// Every node provides the built-in services for itself: other nodes' are reached by naming the node.
    fn add_local(&mut self, local: &BTreeMap<ServiceName, LocalService>, metrics: &RequestMetrics) {
        let mut everywhere: Vec<_> = self.nodes.values().cloned().collect();
        everywhere.sort_by(|a, b| a.node.cmp(&b.node));
        let (everywhere, nowhere) = (Arc::new(everywhere), Arc::default());
        for service in local.values() {
            let built_in = service.name.is_reserved();
            for info in &service.methods {
                let handler =
                    || LocalHandler { handler: service.handler.clone(), upstream: service.upstream };
                let method = Method {
                    info: info.clone(),
                    class: rate_class(service.name.as_str()),
                    access: access_of(info.path.as_str()),
                    local: (service.state == ServiceState::Serving).then(handler),
                    draining: (service.state == ServiceState::Draining).then(handler),
                    providers: Arc::clone(if built_in { &everywhere } else { &nowhere }),
                    near: 0,
                    descriptor_digest: (!built_in).then(|| service.schema.digest()),
                    metrics: metrics.of(info),
                };
                self.methods.insert(info.path.as_wire().into(), Arc::new(method));
            }
        }
    }

    /// Adds those services of a member that are `wanted`; `serves` has its address and the table before, without it
    /// only that their methods exist is added.
    fn add_remote(
        &mut self,
        node: &NodeId,
        serves: Option<(SocketAddr, &Table)>,
        member: &MemberView,
        wanted: impl Fn(&ServiceRecord) -> bool,
        metrics: &RequestMetrics,
    ) {
        for (name, service) in member.records.services.iter().filter(|(_, service)| wanted(service)) {
            let provider = serves.map(|(address, before)| {
                let known = before.services.get(name).and_then(|nodes| nodes.get(node));
                let provider = provider(known, node, Some(name), address, metrics);
                self.services.entry(name.clone()).or_default().insert(node.clone(), provider.clone());
                provider
            });
            for method in &service.methods {
                let Ok(path) = MethodPath::new(name, &method.name) else { continue };
                let info = MethodInfo {
                    streaming: StreamingKind::try_from(method.streaming)
                        .unwrap_or(StreamingKind::Unspecified),
                    idempotency: Idempotency::try_from(method.idempotency).unwrap_or(Idempotency::Unknown),
                    path,
                };
                self.add_provider(info, provider.as_ref(), &service.descriptor_digest, metrics);
            }
        }
    }

    /// A provider whose method streams otherwise than the known one is left out: one of them is wrong, and a
    /// call could only break at it. Where providers declare another idempotency, none counts.
    fn add_provider(
        &mut self,
        info: MethodInfo,
        provider: Option<&Arc<Provider>>,
        digest: &[u8],
        metrics: &RequestMetrics,
    ) {
        let path: Box<str> = info.path.as_wire().into();
        let entry = self.methods.entry(path).or_insert_with(|| {
            Arc::new(Method {
                class: rate_class(info.path.service()),
                access: access_of(info.path.as_str()),
                local: None,
                draining: None,
                providers: Arc::default(),
                near: 0,
                descriptor_digest: digest.try_into().ok(),
                metrics: metrics.of(&info),
                info: info.clone(),
            })
        });
        let Some(provider) = provider else { return };
        if entry.info.streaming != info.streaming {
            tracing::warn!(
                method = %info.path,
                provider = %provider.node,
                theirs = info.streaming.word(),
                known = entry.info.streaming.word(),
                "provider left out: its method streams otherwise than the known one"
            );
            return;
        }
        // Whoever takes the call must agree that it may be made twice.
        if entry.info.idempotency != info.idempotency
            && let Some(method) = Arc::get_mut(entry)
        {
            method.info.idempotency = Idempotency::Unknown;
        }
        let disputed = entry.descriptor_digest.is_some_and(|known| known[..] != *digest);
        if let Some(method) = Arc::get_mut(entry) {
            let providers = Arc::make_mut(&mut method.providers);
            if self.near.contains(&provider.node) {
                providers.insert(method.near, provider.clone());
                method.near += 1;
            } else {
                providers.push(provider.clone());
            }
        }
        if disputed && let Ok(service) = info.path.service().parse() {
            self.disputed.insert(service);
        }
    }
}

fn is_serving(service: &ServiceRecord) -> bool {
    service.state == i32::from(ServiceState::Serving)
}

/// The provider, with its counts kept while it stays at one address.
fn provider(
    known: Option<&Arc<Provider>>,
    node: &NodeId,
    service: Option<&ServiceName>,
    address: SocketAddr,
    metrics: &RequestMetrics,
) -> Arc<Provider> {
    match known.filter(|known| known.address == address) {
        Some(known) => known.clone(),
        None => {
            Arc::new(Provider::new(node.clone(), address).of(service.cloned(), metrics.ejections.clone()))
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MethodLabels {
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    method: String,
    code: &'static str,
}

/// Requests of the whole node. Label values come from the registry and the gRPC codes only.
#[derive(Clone, Debug)]
pub(super) struct RequestMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<MethodLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    pub(super) disputed: Gauge,
    pub(super) unknown: Counter,
    ejections: Counter,
    pub(super) traffic: Arc<Traffic>,
}

/// Counters of one method, looked up once. They outlive tables: the same method gets the same ones again.
#[derive(Clone, Debug)]
pub struct MethodMetrics {
    family: Family<RequestLabels, Counter>,
    method: Arc<str>,
    ok: Counter,
    duration: Histogram,
    streaming: StreamingKind,
    /// Where calls of users count.
    traffic: Option<Arc<Traffic>>,
    /// Requests being served, of all methods.
    pub in_flight: Gauge,
}

impl MethodMetrics {
    /// Counts one finished request.
    pub fn finished(&self, code: Code, duration: Duration) {
        if code == Code::Ok {
            self.ok.inc();
        } else {
            let labels = RequestLabels { method: self.method.to_string(), code: code_word(code) };
            self.family.get_or_create(&labels).inc();
        }
        self.duration.observe(duration.as_secs_f64());
        self.called(code, duration);
    }

    /// Counts a call that came in a request of another method: of a generic call.
    pub fn called(&self, code: Code, duration: Duration) {
        if let Some(traffic) = &self.traffic {
            traffic.ended(self.streaming, code, duration);
        }
    }
}

fn new_histogram() -> Histogram {
    Histogram::new([0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
}

impl RequestMetrics {
    pub(super) fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(new_histogram),
            in_flight: Gauge::default(),
            disputed: Gauge::default(),
            unknown: Counter::default(),
            ejections: Counter::default(),
            traffic: Arc::default(),
        };
        registry.register("requests", "Requests by method and gRPC code", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to the end of its answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("requests_in_flight", "Requests being served", metrics.in_flight.clone());
        registry.register(
            "services_disputed",
            "Services whose providers publish different descriptors; those of the first count",
            metrics.disputed.clone(),
        );
        registry.register(
            "requests_unknown_method",
            "Requests for methods that no node provides",
            metrics.unknown.clone(),
        );
        registry.register(
            "provider_ejections",
            "Times that a provider was given no more calls because they failed",
            metrics.ejections.clone(),
        );
        metrics
    }

    fn of(&self, info: &MethodInfo) -> MethodMetrics {
        let method = info.path.as_str();
        let ok = RequestLabels { method: method.to_owned(), code: code_word(Code::Ok) };
        MethodMetrics {
            family: self.requests.clone(),
            method: method.into(),
            ok: self.requests.get_or_create_owned(&ok),
            duration: self.durations.get_or_create_owned(&MethodLabels { method: method.to_owned() }),
            streaming: info.streaming,
            traffic: Traffic::counts(&info.path).then(|| self.traffic.clone()),
            in_flight: self.in_flight.clone(),
        }
    }
}

/// The name of a gRPC code as the specification writes it.
pub fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
