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
    config::{Config, ConfigErrors, Key, Report, TakesEffect},
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
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

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

impl ReloadError {
    /// Each mistake, as a sentence.
    pub(super) fn mistakes(&self) -> Vec<String> {
        match self {
            Self::Config(errors) => errors.errors.iter().map(ToString::to_string).collect(),
            Self::Service(_)
            | Self::TooManyServices(_)
            | Self::Identity(_)
            | Self::Slow
            | Self::Defect(_) => vec![self.to_string()],
        }
    }
}

/// Writes to the log what a reload has done.
pub(super) fn tell(report: &Report) {
    let list = |keys: &[&str]| Some(keys.join(", ")).filter(|keys| !keys.is_empty());
    let (applied, needs_restart) = (list(&report.applied), list(&report.needs_restart));
    if report.certificates {
        tracing::info!("reload: new certificates in force");
    }
    if applied.is_none() && needs_restart.is_none() {
        return if !report.certificates {
            tracing::info!("reload: nothing has changed")
        };
    }
    tracing::info!(applied, needs_restart, "reload: done");
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
    config: watch::Sender<Config>,
    /// Held during a reload, so that there is one at a time.
    reload: tokio::sync::Mutex<()>,
    parts: LiveParts,
    reloads: Family<Labels, Counter>,
}

impl Live {
    pub(super) fn new(config: watch::Sender<Config>, parts: LiveParts, metrics: &Metrics) -> Self {
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
        Self { config, reload: tokio::sync::Mutex::default(), parts, reloads }
    }

    /// The configuration in force: that of the start, with what reloads have changed.
    pub(super) fn config(&self) -> Config {
        self.config.borrow().clone()
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

    /// What [`Self::reload`] would do, as far as the configuration and the certificates tell: files that it names are read,
    /// but not compared.
    pub(super) async fn preview(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<Report, ReloadError> {
        let (config, _) = self.read(load).await?;
        let certificates = tokio::time::timeout(READ_TIMEOUT, self.parts.publisher.preview()).await;
        let certificates = certificates.map_err(|_elapsed| ReloadError::Slow)???;
        Ok(report(&self.config().differences(&config), certificates))
    }

    /// The configuration and what it names, checked.
    async fn read(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<(Config, Vec<Spec>), ReloadError> {
        let read = tokio::task::spawn_blocking(move || -> Result<_, ReloadError> {
            let config = load()?;
            let specs = config.services.iter().map(Spec::load).collect::<Result<Vec<_>, _>>()?;
            Ok((config, specs))
        });
        let read = tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_elapsed| ReloadError::Slow)?;
        let (config, specs) = read??;
        match self.parts.upstreams.excess(&specs) {
            0 => Ok((config, specs)),
            excess => Err(ReloadError::TooManyServices(excess)),
        }
    }

    async fn take_over(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<Report, ReloadError> {
        // 1. Everything that can be wrong.
        let (config, specs) = self.read(load).await?;
        // A disk that answers later than that may still bring its certificates into force: they are whole and ours.
        let certificates = tokio::time::timeout(READ_TIMEOUT, self.parts.publisher.reload()).await;
        let certificates = certificates.map_err(|_elapsed| ReloadError::Slow)???;

        // 2. Nothing is; from here on nothing fails.
        let mut in_force = self.config();
        let changed = in_force.differences(&config);
        in_force.take_over(config);
        self.config.send_replace(in_force.clone());
        let other_services = self.apply(in_force, specs, &changed).await;

        let mut report = report(&changed, certificates);
        // A file that a service names may have changed, too.
        if other_services && !report.applied.contains(&"services") {
            report.applied.push("services");
        }
        Ok(report)
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

fn report(changed: &[&'static Key], certificates: Reloaded) -> Report {
    let names =
        |effect| changed.iter().filter(|key| key.takes_effect == effect).map(|key| key.name).collect();
    Report {
        applied: names(TakesEffect::AtReload),
        needs_restart: names(TakesEffect::AtStart),
        certificates: certificates == Reloaded::Replaced,
    }
}
