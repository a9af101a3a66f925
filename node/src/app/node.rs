//! A running node, and its shutdown in order.

use crate::{
    config::Config,
    enrol::CaKeeper,
    gossip::Gossip,
    identity::{Anchors, IdentityError, IdentityStore, Reloaded, UnixTime},
    limit::Limits,
    peer::PeerPool,
    registry::Registry,
    shutdown::{Phase, Shutdown},
    telemetry::Metrics,
};
use bytes::Bytes;
use p2p_core::{
    gossip::View,
    record::{OwnRecords, Refusal},
};
use p2p_proto::v1::NodeRecord;
use prometheus_client::metrics::gauge::Gauge;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// How long a leaving node still accepts connections, so that those who have not heard of it yet succeed.
const ACCEPT_WHILE_LEAVING: Duration = Duration::from_secs(1);
/// Pause between passes that forget idle clients of rate limits.
const EVICTION_PAUSE: Duration = Duration::from_secs(60);
/// Longest wait for the last words to the cluster.
const FAREWELL: Duration = Duration::from_secs(1);

/// The parts of a running node.
#[derive(Debug)]
pub(super) struct NodeParts {
    pub(super) config: Config,
    pub(super) identity: Arc<IdentityStore>,
    pub(super) anchors: Arc<Anchors>,
    pub(super) ca_keeper: CaKeeper,
    pub(super) gossip: Gossip,
    pub(super) gossip_task: JoinHandle<()>,
    pub(super) registry: Arc<Registry>,
    pub(super) pool: Arc<PeerPool>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) server_task: JoinHandle<()>,
    pub(super) listening: SocketAddr,
    pub(super) advertised: Vec<SocketAddr>,
}

/// A running node. Dropping it does not stop it; [`Self::shutdown`] does.
#[derive(Debug)]
pub struct Node {
    parts: NodeParts,
    background: Vec<JoinHandle<()>>,
    publisher: Arc<Publisher>,
}

/// What it takes to publish this node, also from the background.
#[derive(Debug)]
struct Publisher {
    identity: Arc<IdentityStore>,
    anchors: Arc<Anchors>,
    gossip: Gossip,
    registry: Arc<Registry>,
    advertised: Vec<SocketAddr>,
    zone: String,
    labels: BTreeMap<String, String>,
    certificate_expiry: Gauge,
}

impl Node {
    pub(super) fn new(parts: NodeParts) -> Self {
        let certificate_expiry = Gauge::default();
        parts.metrics.register(|registry| {
            registry.register(
                "certificate_expiry_timestamp_seconds",
                "End of this node's certificate, Unix time",
                certificate_expiry.clone(),
            );
        });
        let publisher = Arc::new(Publisher {
            identity: parts.identity.clone(),
            anchors: parts.anchors.clone(),
            gossip: parts.gossip.clone(),
            registry: parts.registry.clone(),
            advertised: parts.advertised.clone(),
            zone: parts.config.zone.clone(),
            labels: parts.config.labels.as_map().clone(),
            certificate_expiry,
        });
        let background = vec![
            tokio::spawn(follow_trust(publisher.clone())),
            tokio::spawn(parts.ca_keeper.clone().run()),
            tokio::spawn(follow_cluster(parts.registry.clone(), parts.gossip.view())),
            tokio::spawn(evict_idle_clients(parts.limits.clone())),
        ];
        Self { parts, background, publisher }
    }

    /// Where the node accepts connections.
    pub fn listening(&self) -> SocketAddr {
        self.parts.listening
    }

    /// Where it tells others to dial.
    pub fn advertised(&self) -> SocketAddr {
        self.parts.advertised.first().copied().unwrap_or(self.parts.listening)
    }

    /// The cluster as the node sees it, and its changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.parts.gossip.view()
    }

    /// The node's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Publishes what this node is and serves, with the identity in force.
    pub(super) async fn publish(&self) -> Result<(), Refusal> {
        self.publisher.publish().await
    }

    /// Reads the certificate files anew. New handshakes use them; open connections stay.
    ///
    /// # Errors
    ///
    /// When the files do not hold together; the identity in force stays.
    pub async fn reload_certificates(&self) -> Result<Reloaded, IdentityError> {
        let reloaded = self.parts.identity.reload(UnixTime::now())?;
        if reloaded == Reloaded::Replaced
            && let Err(refusal) = self.publish().await
        {
            tracing::error!(error = %refusal, "the new certificate could not be published");
        }
        Ok(reloaded)
    }

    /// Waits until a part that must never end has ended: a defect. The node is then better restarted.
    pub async fn broken(&mut self) -> &'static str {
        tokio::select! {
            _ended = &mut self.parts.gossip_task => "gossip",
            _ended = &mut self.parts.server_task => "server",
        }
    }

    /// Stops the node without losing what is in flight, within about `shutdown_grace` + 2 s:
    /// shown as left → 1 s more of new connections → GOAWAY, calls in flight finish → leaves the cluster.
    pub async fn shutdown(mut self) {
        // 1. Not ready, and shown as left: nobody sends new calls.
        self.parts.shutdown.advance(Phase::Leaving);
        if let Err(refusal) = self.parts.gossip.announce_leaving().await {
            tracing::warn!(error = %refusal, "could not tell the cluster that this node leaves");
        }
        tokio::time::sleep(ACCEPT_WHILE_LEAVING).await;

        // 2. Calls in flight finish. Gossip streams never would, so gossip leaves at the same time.
        self.parts.shutdown.advance(Phase::Draining);
        if tokio::time::timeout(FAREWELL, self.parts.gossip.leave()).await.is_err() {
            tracing::warn!("gossip did not finish its leave in time");
        }
        let grace = self.parts.config.shutdown_grace;
        if !self.parts.server_task.is_finished()
            && tokio::time::timeout(grace, &mut self.parts.server_task).await.is_err()
        {
            tracing::warn!(grace_seconds = grace.as_secs(), "calls in flight did not finish; ending them");
        }

        // 3. Everything ends.
        self.parts.shutdown.advance(Phase::Stopped);
        for task in &self.background {
            task.abort();
        }
        self.parts.pool.close();
        tracing::info!("stopped");
    }
}

impl Publisher {
    async fn publish(&self) -> Result<(), Refusal> {
        let identity = self.identity.current();
        let expiry = identity.not_after().as_secs();
        self.certificate_expiry.set(i64::try_from(expiry).unwrap_or(i64::MAX));
        let node = NodeRecord {
            certificate_chain: identity.chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            addresses: self.advertised.iter().map(ToString::to_string).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone: self.zone.clone(),
            labels: self.labels.clone(),
            leaving: false,
            bundle_serial: self.anchors.serial(),
        };
        self.gossip.publish(OwnRecords { node, services: self.registry.records() }).await
    }
}

/// Tells the cluster which roots are trusted here, and shows it a certificate that was issued anew.
async fn follow_trust(publisher: Arc<Publisher>) {
    let mut changes = publisher.anchors.subscribe();
    while changes.changed().await.is_ok() {
        if let Err(refusal) = publisher.publish().await {
            tracing::error!(error = %refusal, "the new trust bundle could not be published");
        }
    }
}

/// Keeps the registry's providers in line with the cluster.
async fn follow_cluster(registry: Arc<Registry>, mut view: watch::Receiver<Arc<View>>) {
    loop {
        let now = view.borrow_and_update().clone();
        registry.update(&now);
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn evict_idle_clients(limits: Arc<Limits>) {
    loop {
        tokio::time::sleep(EVICTION_PAUSE).await;
        limits.evict_idle();
    }
}
