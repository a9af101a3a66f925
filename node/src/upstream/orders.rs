//! What admins order: registering, deregistering, states. Each is on disk before it is in force, and goes through to the end
//! also if its caller turns away: disk and memory agree.

use super::{
    health,
    hosted::{Hosted, Upstreams},
    learn::learn,
    problem::Problem,
    relay::Upstream,
    spec::Spec,
    state::{Stored, StoredRegistration, StoredService},
};
use crate::{
    config::service::MAX_SERVICES,
    error::{Fault, Reason},
};
use p2p_core::ServiceName;
use p2p_proto::v1::ServiceState;
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

/// What an admin asks for.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The upstream.
    pub spec: Spec,
    /// Who asks.
    pub by: String,
    /// How long it outlives the last health check that passed; `None` for ever.
    pub lease: Option<Duration>,
}

impl Upstreams {
    /// Registers an upstream once its methods are known and it is kept on disk.
    ///
    /// # Errors
    ///
    /// When it may not or cannot be; nothing is changed then.
    pub async fn register(self: &Arc<Self>, registration: Registration) -> Result<(), Fault> {
        let spec = &registration.spec;
        self.may_register(spec)?;
        let refused = |problem: Problem| {
            self.metrics.refused(problem.word());
            let why = format!("{} at {} is not registered: {problem}", spec.name, spec.url);
            Fault::new(Reason::Precondition, why)
        };
        let upstream = Upstream::new(spec.clone(), &self.metrics).map_err(refused)?;
        let learned = learn(spec, &upstream.channel).await.map_err(refused)?;
        self.fits(&spec.name, &learned).map_err(refused)?;
        let problem = health::check(spec, &upstream.channel).await.err();

        let this = self.clone();
        let commit = tokio::spawn(async move {
            let _change = this.change.lock().await;
            let Registration { spec, by, lease } = registration;
            // Once more: meanwhile others may have registered.
            this.may_register(&spec)?;
            let stored = StoredRegistration::new(&spec, by.clone(), lease);
            let key = spec.name.to_string();
            this.save(move |kept| {
                let service = StoredService { registration: Some(stored), ..StoredService::default() };
                kept.services.insert(key, service);
            })
            .await?;
            let hosted = Hosted::new(upstream, Some((by, lease)), ServiceState::Serving);
            this.insert(Hosted { learned: Some(learned), problem, ..hosted });
            tracing::info!(service = %spec.name, upstream = %spec.url, "service registered");
            Ok(())
        });
        commit.await.map_err(Fault::internal)?
    }

    /// Whether there is room for an upstream, and nothing forbids it.
    fn may_register(&self, spec: &Spec) -> Result<(), Fault> {
        self.granted(spec, true).map_err(|problem| Fault::new(Reason::Denied, problem.to_string()))?;
        let name = &spec.name;
        let (registered, count) = {
            let services = self.services();
            (services.get(name).map(|known| known.registered.is_some()), services.len())
        };
        let why = match registered {
            Some(true) => return Ok(()),
            Some(false) => {
                format!("{name} is in the configuration of this node (services:); change it there")
            }
            None if count < MAX_SERVICES => return Ok(()),
            None => format!("this node has {MAX_SERVICES} services of upstreams; deregister one first"),
        };
        Err(Fault::new(Reason::Precondition, why))
    }

    /// Forgets a registration. Returns how many calls are still in flight; they finish.
    ///
    /// # Errors
    ///
    /// When there is none, or the disk refuses.
    pub async fn deregister(self: &Arc<Self>, name: &ServiceName) -> Result<u32, Fault> {
        let (this, name) = (self.clone(), name.clone());
        let commit = tokio::spawn(async move {
            let _change = this.change.lock().await;
            match this.services().get(&name) {
                None => return Err(not_hosted(&name)),
                Some(hosted) if hosted.registered.is_none() => {
                    return Err(Fault::new(
                        Reason::Precondition,
                        format!(
                            "{name} is in the configuration of this node (services:); remove it there, or disable it"
                        ),
                    ));
                }
                Some(_) => {}
            }
            let key = name.to_string();
            this.save(move |stored| drop(stored.services.remove(&key))).await?;
            let removed = this.remove(&name);
            tracing::info!(service = %name, "service deregistered");
            Ok(removed.map_or(0, |hosted| hosted.upstream.in_flight()))
        });
        commit.await.map_err(Fault::internal)?
    }

    /// Enables, drains or disables an upstream's service, across restarts.
    ///
    /// # Errors
    ///
    /// When there is none, or the disk refuses.
    pub async fn set_state(self: &Arc<Self>, name: &ServiceName, state: ServiceState) -> Result<(), Fault> {
        let (this, name) = (self.clone(), name.clone());
        let commit = tokio::spawn(async move {
            let _change = this.change.lock().await;
            let configured = match this.services().get(&name) {
                None => return Err(not_hosted(&name)),
                Some(hosted) => hosted.registered.is_none(),
            };
            let key = name.to_string();
            this.save(move |stored| {
                let service = stored.services.entry(key.clone()).or_default();
                service.state = state.word().to_owned();
                // Nothing to remember of a configured service that serves.
                if configured && state == ServiceState::Serving {
                    stored.services.remove(&key);
                }
            })
            .await?;
            if let Some(hosted) = this.services().get_mut(&name) {
                hosted.asked = state;
                this.show(hosted);
            }
            tracing::info!(service = %name, state = state.word(), "service set");
            Ok(())
        });
        commit.await.map_err(Fault::internal)?
    }

    async fn save(&self, change: impl FnOnce(&mut Stored) + Send + 'static) -> Result<(), Fault> {
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || {
            file.lock().unwrap_or_else(PoisonError::into_inner).change(change)
        });
        let kept = |error: &dyn std::fmt::Display| {
            Fault::new(Reason::Precondition, format!("nothing was changed, it could not be kept: {error}"))
        };
        saved.await.map_err(Fault::internal)?.map_err(|error| kept(&error))
    }
}

fn not_hosted(name: &ServiceName) -> Fault {
    Fault::new(
        Reason::NotFound,
        format!(
            "this node has no upstream for {name}; ask the node that has (`p2pctl services list -o wide`)"
        ),
    )
}
