//! A running node takes another configuration over: all or nothing.
//!
//! ```text
//! read everything (file, environment, --set) → check it → read what it names (services, certificates) ─ a mistake? nothing changes
//!                                                                                                     └ else all is applied
//! ```
//!
//! What can fail is done before the first change, and the certificates are the last of it: they are checked and put into force
//! in one step.

use super::publish::Publisher;
use crate::{
    auth::Auth,
    config::{Config, ConfigErrors, Key, TakesEffect},
    identity::{IdentityError, Reloaded},
    limit::Limits,
    server::{Server, Stack},
    telemetry::Metrics,
    upstream::{LoadError, Spec, Upstreams},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Longest wait for the files of a configuration: a reload must not keep a node from stopping.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What is wrong with the configuration.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A file that a service names.
    #[error(transparent)]
    Service(#[from] LoadError),
    /// With those that were registered there would be more services than a node has.
    #[error("services: {0} too many beside those that are registered; deregister as many first")]
    TooManyServices(usize),
    /// The certificate files do not hold together.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The disk does not answer.
    #[error("the configuration could not be read within {} s; is the disk, or a network file system, stuck?", READ_TIMEOUT.as_secs())]
    Slow,
    /// A defect.
    #[error("reading the configuration was cut off: {0}")]
    Defect(#[from] tokio::task::JoinError),
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Keys whose new values are in force.
    pub applied: Vec<&'static str>,
    /// Keys whose new values take a restart; those from the start stay in force.
    pub needs_restart: Vec<&'static str>,
    /// Whether another certificate, or other roots, are in force.
    pub certificates: Reloaded,
}

impl Report {
    /// Writes it to the log.
    pub(super) fn tell(&self) {
        let list = |keys: &[&str]| Some(keys.join(", ")).filter(|keys| !keys.is_empty());
        let (applied, needs_restart) = (list(&self.applied), list(&self.needs_restart));
        let replaced = self.certificates == Reloaded::Replaced;
        if replaced {
            tracing::info!("reload: new certificates in force");
        }
        if applied.is_none() && needs_restart.is_none() {
            return if !replaced {
                tracing::info!("reload: nothing has changed")
            };
        }
        tracing::info!(applied, needs_restart, "reload: done");
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// What of a node follows its configuration.
#[derive(Debug)]
pub(super) struct LiveParts {
    pub(super) limits: Arc<Limits>,
    pub(super) auth: Arc<Auth>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) stack: Arc<Stack>,
    pub(super) server: Arc<Server>,
    pub(super) publisher: Arc<Publisher>,
}

/// The configuration in force, and what follows it.
#[derive(Debug)]
pub(super) struct Live {
    config: Mutex<Config>,
    /// Held during a reload, so that there is one at a time.
    reload: tokio::sync::Mutex<()>,
    parts: LiveParts,
    reloads: Family<Labels, Counter>,
}

impl Live {
    pub(super) fn new(config: Config, parts: LiveParts, metrics: &Metrics) -> Self {
        let reloads = Family::<Labels, Counter>::default();
        for result in ["applied", "refused"] {
            drop(reloads.get_or_create(&Labels { result }));
        }
        metrics.register(|registry| {
            registry.register(
                "config_reloads",
                "Times that the configuration was read anew, and what came of it",
                reloads.clone(),
            );
        });
        Self { config: Mutex::new(config), reload: tokio::sync::Mutex::default(), parts, reloads }
    }

    /// The configuration in force: that of the start, with what reloads have changed.
    pub(super) fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn reload(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<Report, ReloadError> {
        let _reload = self.reload.lock().await;
        let outcome = self.take_over(load).await;
        let result = if outcome.is_ok() { "applied" } else { "refused" };
        self.reloads.get_or_create(&Labels { result }).inc();
        outcome
    }

    async fn take_over(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<Report, ReloadError> {
        // 1. Everything that can be wrong.
        let read = tokio::task::spawn_blocking(move || -> Result<_, ReloadError> {
            let config = load()?;
            let specs = config.services.iter().map(Spec::load).collect::<Result<Vec<_>, _>>()?;
            Ok((config, specs))
        });
        let read = tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_elapsed| ReloadError::Slow)?;
        let (config, specs) = read??;
        match self.parts.upstreams.excess(&specs) {
            0 => {}
            excess => return Err(ReloadError::TooManyServices(excess)),
        }
        // A disk that answers later than that may still bring its certificates into force: they are whole and ours.
        let certificates = tokio::time::timeout(READ_TIMEOUT, self.parts.publisher.reload()).await;
        let certificates = certificates.map_err(|_elapsed| ReloadError::Slow)???;

        // 2. Nothing is; from here on nothing fails.
        let mut in_force = self.config();
        let changed = in_force.differences(&config);
        in_force.take_over(config);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = in_force.clone();
        let other_services = self.apply(in_force, specs, &changed).await;

        let names = |effect| changed.iter().filter(move |key| key.takes_effect == effect).map(|key| key.name);
        let mut applied: Vec<&'static str> = names(TakesEffect::AtReload).collect();
        // A file that a service names may have changed, too.
        if other_services && !applied.contains(&"services") {
            applied.push("services");
        }
        Ok(Report { applied, needs_restart: names(TakesEffect::AtStart).collect(), certificates })
    }

    /// Has every part follow `config`. Returns whether other services than before are provided.
    async fn apply(&self, config: Config, specs: Vec<Spec>, changed: &[&'static Key]) -> bool {
        let parts = &self.parts;
        parts.limits.reconfigure(&config);
        parts.server.limit_to((&config).into());
        parts.stack.gateway().require_auth_for_metrics(config.metrics_require_auth);
        parts.upstreams.allow_remote(config.register_remote_upstreams);
        parts.auth.reconfigure(config.access, config.trusted_proxies);
        let other_services = parts.upstreams.configure(specs).await;
        if changed.iter().any(|key| matches!(key.name, "zone" | "labels"))
            && let Err(refusal) = parts.publisher.speak_of(config.zone, config.labels).await
        {
            tracing::error!(error = %refusal, "the new zone and labels could not be published");
        }
        other_services
    }
}
