//! What the configuration says of upstreams: at the start, and again whenever it is read anew.

use super::{
    health,
    hosted::{Hosted, Upstreams},
    learn::{Learned, learn},
    problem::Problem,
    relay::Upstream,
    spec::Spec,
    state::state_of,
};
use crate::config::service::MAX_SERVICES;
use futures_util::future::join_all;
use p2p_core::ServiceName;
use p2p_proto::v1::ServiceState;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

/// One upstream that is to run.
struct Wanted {
    spec: Spec,
    /// Who registered it, and its lease; `None` if the configuration names it.
    registered: Option<(String, Option<Duration>)>,
    asked: ServiceState,
}

impl Upstreams {
    /// Lets registrations name other hosts, or no longer. Those that do are not served then.
    pub fn allow_remote(&self, allow: bool) {
        self.allow_remote.store(allow, Ordering::Relaxed);
    }

    /// How many services too many there would be with these in the configuration.
    pub fn excess(&self, configured: &[Spec]) -> usize {
        let services = self.services();
        let registered = services.iter().filter(|(_, hosted)| hosted.registered.is_some());
        let beside = registered.filter(|(name, _)| configured.iter().all(|spec| spec.name != **name));
        (beside.count() + configured.len()).saturating_sub(MAX_SERVICES)
    }

    /// Has what is configured run, and what was registered before: at the start all of it, later what has changed. Returns
    /// whether anything has. What runs as it should is left alone, and so are calls in flight.
    pub async fn configure(self: &Arc<Self>, configured: Vec<Spec>) -> bool {
        let _change = self.change.lock().await;
        let mut wanted = self.wanted(configured);
        let gone: Vec<ServiceName> = {
            let services = self.services();
            let names = services.iter().filter(|(_, hosted)| hosted.registered.is_none());
            names.map(|(name, _)| name).filter(|name| !wanted.contains_key(*name)).cloned().collect()
        };
        for name in &gone {
            self.remove(name);
            tracing::info!(service = %name, "service removed: the configuration names it no more");
        }
        wanted.retain(|name, wanted| {
            let services = self.services();
            let runs = services.get(name).filter(|hosted| {
                hosted.upstream.spec == wanted.spec
                    && hosted.registered.is_some() == wanted.registered.is_some()
            });
            runs.is_none()
        });
        let changed = !gone.is_empty() || !wanted.is_empty();
        join_all(wanted.into_values().map(|wanted| self.run(wanted))).await;
        changed
    }

    /// Everything that is to run, by name.
    fn wanted(&self, configured: Vec<Spec>) -> BTreeMap<ServiceName, Wanted> {
        // Nobody else holds it: whoever changes the file holds `change`.
        let stored = self.file.lock().unwrap_or_else(PoisonError::into_inner).stored.services.clone();
        let asked = |name: &ServiceName| {
            stored.get(name.as_str()).map_or(ServiceState::Serving, |service| state_of(&service.state))
        };
        let configured = configured.into_iter().map(|spec| {
            let asked = asked(&spec.name);
            (spec.name.clone(), Wanted { spec, registered: None, asked })
        });
        let mut wanted: BTreeMap<_, _> = configured.collect();
        for (name, service) in &stored {
            let Some(registration) = &service.registration else { continue };
            let spec = name.parse().ok().and_then(|name| registration.spec(name));
            let Some(spec) = spec.filter(|spec| !spec.name.is_reserved()) else {
                tracing::error!(service = name, "a registered service is unreadable and not started");
                continue;
            };
            if wanted.contains_key(&spec.name) {
                tracing::warn!(
                    service = name,
                    "the configuration names a registered service; the configuration counts"
                );
                continue;
            }
            if wanted.len() >= MAX_SERVICES {
                tracing::error!(service = %name, most = MAX_SERVICES, "too many services of upstreams; this one is not started");
                continue;
            }
            let lease = Some(registration.lease_seconds).filter(|lease| *lease > 0).map(Duration::from_secs);
            let registered = Some((registration.registered_by.clone(), lease));
            let asked = state_of(&service.state);
            wanted.insert(spec.name.clone(), Wanted { spec, registered, asked });
        }
        wanted
    }

    /// Starts an upstream. One that takes the place of another is looked at first: if it serves, no call is lost between
    /// them; if not, its predecessor's methods are not provided in its name.
    async fn run(self: &Arc<Self>, wanted: Wanted) {
        let Wanted { spec, registered, asked } = wanted;
        let name = spec.name.clone();
        let upstream = match Upstream::new(spec, &self.metrics) {
            Ok(upstream) => upstream,
            Err(problem) => {
                self.remove(&name);
                return tracing::error!(service = %name, %problem, "upstream not started");
            }
        };
        let by_registration = registered.is_some();
        let mut hosted = Hosted::new(upstream.clone(), registered, asked);
        if self.services().contains_key(&name) {
            match self.first_look(&upstream, by_registration).await {
                Ok((learned, problem)) => (hosted.learned, hosted.problem) = (Some(learned), problem),
                Err(problem) => {
                    tracing::warn!(service = %name, upstream = %upstream.spec.url, %problem, "the new upstream does not serve yet");
                    drop(self.withdraw(&name));
                }
            }
        }
        self.insert(hosted);
    }

    /// What an upstream provides, and why it is not healthy if it is not.
    async fn first_look(
        &self,
        upstream: &Upstream,
        registered: bool,
    ) -> Result<(Learned, Option<Problem>), Problem> {
        let (spec, channel) = (&upstream.spec, &upstream.channel);
        self.granted(spec, registered)?;
        let learned = learn(spec, channel).await?;
        self.fits(&spec.name, &learned)?;
        Ok((learned, health::check(spec, channel).await.err()))
    }
}
