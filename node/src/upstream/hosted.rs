//! All upstreams of a node: how each stands, and what the registry shows of it.

use super::{
    learn::Learned, metrics::UpstreamMetrics, problem::Problem, relay::Upstream, spec::Spec,
    state::ServiceFile,
};
use crate::{
    identity::IdentityStore,
    registry::{LocalService, Registry},
    telemetry::Metrics,
};
use p2p_core::{ServiceName, grant::Grant, record::MAX_OWNER_BYTES};
use p2p_proto::{
    Timestamp,
    v1::{ServiceState, UpstreamInfo},
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{task::AbortHandle, time::Instant};

/// Most bytes that the records of all services of this node may come to: all records of a node share one bound, and
/// beyond it nobody would take them.
const MAX_RECORDS_BYTES: usize = MAX_OWNER_BYTES * 3 / 4;

/// How one upstream stands.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) upstream: Arc<Upstream>,
    /// Who registered it, and its lease; `None` if the configuration names it.
    pub(super) registered: Option<(String, Option<Duration>)>,
    /// What an admin wants: serving, draining or disabled.
    pub(super) asked: ServiceState,
    pub(super) learned: Option<Learned>,
    /// Why it is not healthy.
    pub(super) problem: Option<Problem>,
    /// When a look at it passed last, or it was started.
    pub(super) renewed: (Instant, SystemTime),
    /// What the registry shows of it.
    pub(super) shown: Option<(ServiceState, [u8; 32])>,
    pub(super) task: Option<AbortHandle>,
}

impl Hosted {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        registered: Option<(String, Option<Duration>)>,
        asked: ServiceState,
    ) -> Self {
        Self {
            upstream,
            registered,
            asked,
            learned: None,
            problem: Some(Problem::Starting),
            renewed: (Instant::now(), SystemTime::now()),
            shown: None,
            task: None,
        }
    }

    /// How it is published.
    fn state(&self) -> ServiceState {
        match (self.asked, &self.problem) {
            (ServiceState::Serving, Some(_)) => ServiceState::NotServing,
            (asked, _) => asked,
        }
    }

    fn info(&self) -> UpstreamInfo {
        let spec = &self.upstream.spec;
        let lease = self.registered.as_ref().and_then(|(_, lease)| *lease);
        let expires = lease.and_then(|lease| self.renewed.1.checked_add(lease));
        UpstreamInfo {
            url: spec.url.to_string(),
            configured: self.registered.is_none(),
            registered_by: self.registered.as_ref().map(|(by, _)| by.clone()).unwrap_or_default(),
            state: self.asked.into(),
            healthy: self.problem.is_none(),
            problem: self.problem.as_ref().map(ToString::to_string).unwrap_or_default(),
            health: spec.health.word().to_owned(),
            in_flight: self.upstream.in_flight(),
            max_concurrent: spec.max_concurrent.map_or(0, std::num::NonZeroU32::get),
            lease_expires_at: expires.map(timestamp),
        }
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

/// The upstreams of a node.
#[derive(Debug)]
pub struct Upstreams {
    pub(super) registry: Arc<Registry>,
    identity: Arc<IdentityStore>,
    pub(super) allow_remote: AtomicBool,
    pub(super) metrics: UpstreamMetrics,
    services: Mutex<BTreeMap<ServiceName, Hosted>>,
    /// Locked by blocking threads only.
    pub(super) file: Arc<Mutex<ServiceFile>>,
    /// Held while something is registered, deregistered or set, so that disk and memory agree.
    pub(super) change: tokio::sync::Mutex<()>,
}

impl Upstreams {
    /// No upstreams yet. `allow_remote` lets registrations name other hosts.
    pub fn new(
        registry: Arc<Registry>,
        identity: Arc<IdentityStore>,
        file: ServiceFile,
        allow_remote: bool,
        metrics: &Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            identity,
            allow_remote: allow_remote.into(),
            metrics: metrics.register(UpstreamMetrics::register),
            services: Mutex::default(),
            file: Arc::new(Mutex::new(file)),
            change: tokio::sync::Mutex::default(),
        })
    }

    /// Ends what looks at upstreams. Calls in flight go on.
    pub fn close(&self) {
        for task in self.services().values().filter_map(|hosted| hosted.task.as_ref()) {
            task.abort();
        }
    }

    pub(super) fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Hosted>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every upstream's service, with how it stands.
    pub fn infos(&self) -> BTreeMap<ServiceName, UpstreamInfo> {
        self.services().iter().map(|(name, hosted)| (name.clone(), hosted.info())).collect()
    }

    /// Puts an upstream in place of an earlier one of its name, and has it looked at from now on.
    pub(super) fn insert(self: &Arc<Self>, mut hosted: Hosted) {
        let name = hosted.upstream.name().clone();
        self.metrics.begin(&name, hosted.problem.is_none());
        let mut services = self.services();
        self.show(&mut hosted);
        hosted.task = Some(tokio::spawn(self.clone().keep_watching(hosted.upstream.clone())).abort_handle());
        if let Some(before) = services.insert(name, hosted).and_then(|before| before.task) {
            before.abort();
        }
    }

    /// Provides a service no more; calls in flight finish.
    pub(super) fn remove(&self, name: &ServiceName) -> Option<Hosted> {
        let removed = self.withdraw(name);
        self.metrics.forget(name);
        removed
    }

    /// The same for one that another takes the place of.
    pub(super) fn withdraw(&self, name: &ServiceName) -> Option<Hosted> {
        let removed = self.services().remove(name);
        self.registry.withdraw(name);
        if let Some(task) = removed.as_ref().and_then(|removed| removed.task.as_ref()) {
            task.abort();
        }
        removed
    }

    /// Brings the registry in line with how an upstream stands. Called with the services locked.
    pub(super) fn show(&self, hosted: &mut Hosted) {
        let Some(learned) = &hosted.learned else { return };
        let shows = (hosted.state(), learned.schema.digest());
        if hosted.shown == Some(shows) {
            return;
        }
        let upstream = &hosted.upstream;
        let service = LocalService::of_upstream(
            upstream.name().clone(),
            learned.methods.clone(),
            learned.schema.clone(),
            shows.0,
            upstream.handler(),
        );
        match self.registry.host(service) {
            Ok(()) => hosted.shown = Some(shows),
            Err(error) => hosted.problem = Some(Problem::Conflict(error.to_string())),
        }
    }

    /// Whether this node may provide a service through an upstream.
    pub(super) fn granted(&self, spec: &Spec, registered: bool) -> Result<(), Problem> {
        let name = &spec.name;
        let identity = self.identity.current();
        let certificate = identity.certificate();
        if !certificate.may_provide(name) {
            let granted = certificate.grant.as_ref().map(Grant::globs).unwrap_or_default().join(", ");
            return Err(Problem::NotGranted(format!(
                "the certificate of this node grants {}, and not {name}; a join token with --allow-service grants others",
                if name.is_reserved() {
                    "no services of the packages p2p and grpc"
                } else {
                    granted.as_str()
                }
            )));
        }
        if registered && !spec.url.is_loopback() && !self.allow_remote.load(Ordering::Relaxed) {
            return Err(Problem::NotGranted(format!(
                "{} is not on this host; set register_remote_upstreams: true in the configuration of this node to allow that",
                spec.url
            )));
        }
        Ok(())
    }

    /// Whether what was learned can be published beside what is.
    pub(super) fn fits(&self, name: &ServiceName, learned: &Learned) -> Result<(), Problem> {
        if let Some(conflict) = self.registry.conflict(&learned.methods) {
            return Err(Problem::Conflict(conflict));
        }
        let local = self.registry.local();
        if local.get(name).is_some_and(|service| !service.upstream) {
            return Err(Problem::Conflict(format!("this node implements {name} itself")));
        }
        let others = local.values().filter(|service| !service.name.is_reserved() && service.name != *name);
        let others: usize = others.map(|service| service.record().encoded_len()).sum();
        let own = learned.methods.iter().map(|method| method.path.method().len() + 16).sum::<usize>() + 1024;
        if others + own > MAX_RECORDS_BYTES {
            return Err(Problem::Bounds(format!(
                "with it the services of this node would take more than {MAX_RECORDS_BYTES} bytes to publish"
            )));
        }
        Ok(())
    }
}
