//! THE method registry: every method that this node can serve or route, in one structure with one owner.
//!
//! It is fed from two sides: services of this node ([`Registry::new`]) and the view of the cluster
//! ([`Registry::update`]). Both make one immutable [`Table`], swapped whole; routing, health, reflection,
//! `/rpc`, metrics labels and limits all read it. Nothing else keeps a list of methods.

mod service;
mod table;
#[cfg(test)]
mod tests;

pub use service::{Handler, LocalService, ServiceError};
pub use table::{Method, Provider, Table, code_word};

use crate::{
    error::{Fault, Reason},
    schema::SchemaCache,
    telemetry::Metrics,
};
use arc_swap::ArcSwap;
use p2p_core::{MethodPath, NodeId, ServiceName, gossip::View, suggest};
use p2p_proto::v1::ServiceRecord;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use table::RequestMetrics;
use tokio::sync::watch;

/// The registry of one node.
#[derive(Debug)]
pub struct Registry {
    node: NodeId,
    local: OnceLock<BTreeMap<ServiceName, LocalService>>,
    metrics: RequestMetrics,
    table: ArcSwap<Table>,
    updated: watch::Sender<()>,
    schemas: SchemaCache,
}

impl Registry {
    /// The registry of `node`, empty so far.
    pub fn new(node: NodeId, metrics: &Metrics) -> Self {
        Self {
            node,
            local: OnceLock::new(),
            metrics: metrics.register(RequestMetrics::register),
            table: ArcSwap::default(),
            updated: watch::Sender::new(()),
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
        let mut local = BTreeMap::new();
        for service in services {
            let name = service.name.clone();
            if local.insert(name.clone(), service).is_some() {
                return Err(DuplicateService(name));
            }
        }
        if self.local.set(local).is_err() {
            tracing::error!("services were installed twice; the first set stays");
        }
        self.update(&View::default());
        Ok(())
    }

    /// The methods and providers as of now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Brings the providers in line with the cluster. One task calls this.
    pub fn update(&self, view: &View) {
        let table = Table::build(&self.node, self.local(), view, &self.table.load(), &self.metrics);
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

    /// Services of this node, by name.
    pub fn local(&self) -> &BTreeMap<ServiceName, LocalService> {
        static NONE: BTreeMap<ServiceName, LocalService> = BTreeMap::new();
        self.local.get().unwrap_or(&NONE)
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
