//! THE method registry: every method that this node can serve or route, in one structure with one owner.
//!
//! It is fed from two sides: services of this node ([`Registry::install`], and [`Registry::host`] for those of
//! upstreams, which come and go) and the view of the cluster ([`Registry::update`]). Both make one immutable [`Table`],
//! swapped whole; routing, health, reflection, `/rpc`, metrics labels and limits all read it. Nothing else keeps a list of
//! methods.

mod provider;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod traffic;

pub use provider::{Provider, Snapshot};
pub use service::{Handler, LocalService, Refused, ServiceError};
pub use table::{LocalHandler, Method, Table, code_word};
pub use traffic::CallCounts;

use crate::{
    error::{Fault, Reason},
    schema::SchemaCache,
    telemetry::Metrics,
};
use arc_swap::ArcSwap;
use p2p_core::{MethodPath, NodeId, ServiceName, gossip::View, method::MethodInfo, suggest};
use p2p_proto::v1::ServiceRecord;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use table::{RequestMetrics, rate_class};
use tokio::sync::watch;

/// Services of a node, by name.
pub type LocalServices = BTreeMap<ServiceName, LocalService>;

/// The registry of one node.
#[derive(Debug)]
pub struct Registry {
    node: NodeId,
    local: ArcSwap<LocalServices>,
    metrics: RequestMetrics,
    table: ArcSwap<Table>,
    /// The cluster as the table shows it. Held while the table is made anew.
    view: Mutex<Arc<View>>,
    updated: watch::Sender<()>,
    local_changed: watch::Sender<()>,
    schemas: SchemaCache,
}

impl Registry {
    /// The registry of `node`, empty so far.
    pub fn new(node: NodeId, metrics: &Metrics) -> Self {
        Self {
            node,
            local: ArcSwap::default(),
            metrics: metrics.register(RequestMetrics::register),
            table: ArcSwap::default(),
            view: Mutex::default(),
            updated: watch::Sender::new(()),
            local_changed: watch::Sender::new(()),
            schemas: SchemaCache::default(),
        }
    }

    /// Installs the services that this node implements itself, once, before anything is served: services
    /// may need the router, and the router the registry.
    ///
    /// # Errors
    ///
    /// When two services have one name.
    pub fn install(&self, services: Vec<LocalService>) -> Result<(), DuplicateService> {
        let view = self.view();
        let mut local = LocalServices::clone(&self.local());
        for service in services {
            let name = service.name.clone();
            if local.insert(name.clone(), service).is_some() {
                return Err(DuplicateService(name));
            }
        }
        self.local.store(Arc::new(local));
        self.rebuild(&view);
        Ok(())
    }

    /// Provides an upstream's service from now on, in place of an earlier one of its name, and has it published.
    ///
    /// # Errors
    ///
    /// When this node implements a service of that name itself.
    pub fn host(&self, service: LocalService) -> Result<(), DuplicateService> {
        let view = self.view();
        let mut local = LocalServices::clone(&self.local());
        if local.get(&service.name).is_some_and(|known| !known.upstream) {
            return Err(DuplicateService(service.name));
        }
        local.insert(service.name.clone(), service);
        self.local.store(Arc::new(local));
        self.rebuild(&view);
        self.local_changed.send_replace(());
        Ok(())
    }

    /// Provides an upstream's service no more.
    pub fn withdraw(&self, name: &ServiceName) {
        let view = self.view();
        let mut local = LocalServices::clone(&self.local());
        if local.get(name).is_some_and(|known| known.upstream) {
            local.remove(name);
            self.local.store(Arc::new(local));
            self.rebuild(&view);
            self.local_changed.send_replace(());
        }
    }

    /// Tells of changes of what this node provides, which the cluster must hear.
    pub fn local_changes(&self) -> watch::Receiver<()> {
        self.local_changed.subscribe()
    }

    /// Why this node cannot provide `methods`: another one provides a method of the same path that streams otherwise.
    pub fn conflict(&self, methods: &[MethodInfo]) -> Option<String> {
        let table = self.table();
        methods.iter().find_map(|ours| {
            let known = table.methods.get(ours.path.as_wire())?;
            let other = known.providers.first()?;
            (known.info.streaming != ours.streaming).then(|| {
                format!(
                    "{} is {} here and {} at node {}; callers could not use both",
                    ours.path,
                    ours.streaming.word(),
                    known.info.streaming.word(),
                    other.node
                )
            })
        })
    }

    /// The methods and providers as of now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// The cluster as of now, with its members.
    pub fn cluster(&self) -> Arc<View> {
        self.view().clone()
    }

    /// Brings the providers in line with the cluster.
    pub fn update(&self, view: Arc<View>) {
        let mut present = self.view();
        *present = view;
        self.rebuild(&present);
    }

    fn view(&self) -> MutexGuard<'_, Arc<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rebuild(&self, view: &View) {
        let table = Table::build(&self.node, &self.local(), view, &self.table.load(), &self.metrics);
        self.table.store(Arc::new(table));
        self.updated.send_replace(());
    }

    /// Tells of each update, once the table shows it.
    pub fn updates(&self) -> watch::Receiver<()> {
        self.updated.subscribe()
    }

    /// The node whose registry this is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Services of this node as of now, by name.
    pub fn local(&self) -> Arc<LocalServices> {
        self.local.load_full()
    }

    /// Schemas fetched from other nodes.
    pub fn schemas(&self) -> &SchemaCache {
        &self.schemas
    }

    /// Finds a method by its wire path, `/package.Service/Method`.
    pub fn resolve(&self, path: &str) -> Result<Arc<Method>, Fault> {
        let table = self.table.load();
        table.methods.get(path).cloned().ok_or_else(|| self.unknown(&table, path))
    }

    #[cold]
    fn unknown(&self, table: &Table, path: &str) -> Fault {
        self.metrics.unknown.inc();
        // What strangers send is only repeated when it is a name.
        let Ok(path) = path.parse::<MethodPath>() else {
            return Fault::new(Reason::Unknown, "the path is not of the form /package.Service/Method");
        };
        let known = table.methods.values().map(|method| method.info.path.as_str());
        let hint = match suggest::nearest(path.as_str(), known) {
            Some(nearest) => format!("; did you mean {nearest}?"),
            None => "; `p2pctl rpc list` shows what is known".to_owned(),
        };
        Fault::new(Reason::Unknown, format!("no node of this cluster provides {path}{hint}"))
    }

    /// What services of users had to do here since the node started.
    pub fn calls(&self) -> CallCounts {
        self.metrics.traffic.counts_now()
    }

    /// What this node publishes of its services: those of users. The built-in ones every node has.
    pub fn records(&self) -> Vec<ServiceRecord> {
        self.local()
            .values()
            .filter(|service| !service.name.is_reserved())
            .map(LocalService::record)
            .collect()
    }
}

/// Two services of this node have one name.
#[derive(Debug, thiserror::Error)]
#[error("service {0} is added twice")]
pub struct DuplicateService(pub ServiceName);
