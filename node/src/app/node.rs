//! A running node, and its shutdown in order.

use super::{
    publish::{self, Publisher, keep_rotating},
    reload::{Live, ReloadError},
    upkeep,
};
use crate::{
    audit::Audit,
    config::{Config, ConfigErrors, Report},
    enrol::{CaKeeper, RenewalMetrics, Renewer},
    gossip::{Gossip, Memory},
    limit::Limits,
    peer::PeerPool,
    registry::Registry,
    revocation::KeeperEnd,
    shutdown::{Phase, Shutdown},
    telemetry::Metrics,
    token::{self, SignerFile, Verifier},
    upstream::Upstreams,
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use p2p_core::{Role, gossip::View, record::Refusal};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// How long a leaving node still accepts connections, so that those who have not heard of it yet succeed.
const ACCEPT_WHILE_LEAVING: Duration = Duration::from_secs(1);
/// Pause between passes that forget idle clients of rate limits and idle connections to other nodes.
const EVICTION_PAUSE: Duration = Duration::from_secs(20);
/// Longest wait for the last words to the cluster.
const FAREWELL: Duration = Duration::from_secs(1);

/// The parts of a running node.
#[derive(Debug)]
pub(super) struct NodeParts {
    /// The configuration in force, and what follows it.
    pub(super) live: Live,
    pub(super) publisher: Arc<Publisher>,
    /// What renews the node's certificate; `None` for a node that stands alone.
    pub(super) renewer: Option<(Renewer, RenewalMetrics)>,
    pub(super) ca_keeper: CaKeeper,
    /// Where the members are, for the next start; `None` for a node that stands alone.
    pub(super) memory: Option<Memory>,
    pub(super) gossip: Gossip,
    pub(super) gossip_task: JoinHandle<()>,
    pub(super) keeper_ended: KeeperEnd,
    pub(super) registry: Arc<Registry>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) pool: Arc<PeerPool>,
    pub(super) limits: Arc<Limits>,
    pub(super) audit: Arc<Audit>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) server_task: JoinHandle<()>,
    pub(super) listening: SocketAddr,
}

/// A running node. Dropping it does not stop it; [`Self::shutdown`] does.
#[derive(Debug)]
pub struct Node {
    parts: NodeParts,
    background: FuturesUnordered<JoinHandle<()>>,
}

impl Node {
    /// Publishes the node and starts what runs beside it.
    pub(super) async fn start(mut parts: NodeParts) -> Result<Self, Refusal> {
        let publisher = parts.publisher.clone();
        publisher.publish().await?;
        let mut background: FuturesUnordered<_> = [
            tokio::spawn(upkeep::follow_trust(publisher.clone())),
            tokio::spawn(parts.ca_keeper.clone().run()),
            tokio::spawn(follow_cluster(parts.registry.clone(), parts.gossip.view())),
            tokio::spawn(publish::follow_services(publisher.clone())),
            tokio::spawn(forget_idle(parts.limits.clone(), parts.pool.clone())),
            tokio::spawn(upkeep::watch_files(publisher.clone())),
        ]
        .into_iter()
        .collect();
        let renewing = parts.renewer.take();
        let renewing = renewing.map(|(renewer, metrics)| upkeep::renew(publisher.clone(), renewer, metrics));
        background.extend(renewing.map(tokio::spawn));
        let autosave = parts.live.config().state_autosave_interval;
        let memory = parts.memory.clone();
        background.extend(memory.map(|memory| tokio::spawn(memory.keep(autosave))));
        Ok(Self { parts, background })
    }

    /// Where the node accepts connections.
    pub fn listening(&self) -> SocketAddr {
        self.parts.listening
    }

    /// Where it tells others to dial.
    pub fn advertised(&self) -> SocketAddr {
        self.parts.publisher.advertised().unwrap_or(self.parts.listening)
    }

    /// The cluster as the node sees it, and its changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.parts.gossip.view()
    }

    /// The node's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Learns the keys that verify access tokens from the cluster, from now on.
    pub(super) fn follow_signers(&mut self, verifier: Arc<Verifier>, file: SignerFile) {
        let (identity, view) = (self.parts.publisher.identity.clone(), self.parts.gossip.view());
        self.background.push(tokio::spawn(token::follow(verifier, identity, view, file)));
    }

    /// At a coordinator: makes the keys that sign access tokens, tells the cluster, and replaces them in time from
    /// now on.
    pub(super) async fn rotate_signers(&mut self) -> Result<(), Refusal> {
        let publisher = self.parts.publisher.clone();
        if publisher.identity.current().spiffe().role != Role::Coordinator {
            return Ok(());
        }
        match publisher.rotate_signers().await {
            Ok(false) => {}
            Ok(true) => publisher.publish().await?,
            Err(error) => tracing::warn!(error, "this coordinator cannot issue access tokens"),
        }
        self.background.push(tokio::spawn(keep_rotating(publisher)));
        Ok(())
    }

    /// Takes over the configuration that `load` reads, and the certificate files as they are now: all that a running node
    /// can, at once. New connections and calls go by it; those that are open go on.
    ///
    /// # Errors
    ///
    /// When anything is wrong with any of it. Nothing has changed then.
    pub async fn reload(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<Report, ReloadError> {
        self.parts.live.reload(load).await
    }

    /// What [`Self::reload`] would do.
    ///
    /// # Errors
    ///
    /// As those of [`Self::reload`].
    pub async fn preview_reload(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static,
    ) -> Result<Report, ReloadError> {
        self.parts.live.preview(load).await
    }

    /// The configuration in force: what it was at the start, with what reloads have changed.
    pub fn config(&self) -> Config {
        self.parts.live.config()
    }

    /// Whether gossip, through which everything that the node knows of others comes, answers within `patience`.
    pub(super) async fn answers(&self, patience: Duration) -> bool {
        let gossip = &self.parts.gossip;
        let own = self.parts.publisher.identity.current().spiffe().name.clone();
        tokio::time::timeout(patience, gossip.why(own)).await.is_ok()
    }

    /// Waits until a part without which the node would be half dead has ended: a defect. The node is then better restarted.
    pub async fn broken(&mut self) -> &'static str {
        tokio::select! {
            // Others end with gossip: what ended first is named.
            biased;
            _ended = &mut self.parts.gossip_task => "gossip",
            _ended = &mut self.parts.server_task => "server",
            () = self.parts.keeper_ended.ended() => "what keeps revocations on disk",
            () = one_ended(&mut self.background) => "upkeep",
        }
    }

    /// Stops the node without losing what is in flight, within about `shutdown_grace` + 2 s:
    /// shown as left → 1 s more of new connections → GOAWAY, calls in flight finish → leaves the cluster.
    pub async fn shutdown(mut self) {
        // 1. Not ready, and shown as left: nobody sends new calls. Who is here now is who may be found next time.
        if let Some(memory) = &self.parts.memory {
            memory.save().await;
        }
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
        let (grace, pool) = (self.parts.live.config().shutdown_grace, self.parts.pool.clone());
        let server_task = &mut self.parts.server_task;
        let finished = async {
            if !server_task.is_finished() && server_task.await.is_err() {
                tracing::warn!("the server ended by a defect");
            }
            // Calls that came over connections which this node has dialled.
            pool.streams().ended().await;
        };
        if tokio::time::timeout(grace, finished).await.is_err() {
            tracing::warn!(grace_seconds = grace.as_secs(), "calls in flight did not finish; ending them");
        }

        // 3. Everything ends.
        self.parts.shutdown.advance(Phase::Stopped);
        for task in &self.background {
            task.abort();
        }
        self.parts.upstreams.close();
        self.parts.pool.close();
        self.parts.audit.flush().await;
        tracing::info!("stopped");
    }
}

/// Waits until one of `tasks` has ended, by a panic or without one: each of them runs as long as the node does.
async fn one_ended(tasks: &mut FuturesUnordered<JoinHandle<()>>) {
    match tasks.next().await {
        Some(_ended) => {}
        None => std::future::pending().await,
    }
}

/// Keeps the registry's providers in line with the cluster.
async fn follow_cluster(registry: Arc<Registry>, mut view: watch::Receiver<Arc<View>>) {
    loop {
        let now = view.borrow_and_update().clone();
        registry.update(now);
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn forget_idle(limits: Arc<Limits>, pool: Arc<PeerPool>) {
    loop {
        tokio::time::sleep(EVICTION_PAUSE).await;
        limits.evict_idle().await;
        pool.close_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{app::NodeBuilder, config::Config};

    /// A coordinator that has made its own certificates.
    async fn node(home: &tempfile::TempDir) -> Node {
        let home = home.path().display();
        let yaml = format!(
            "node_id: n1\ncoordinator_mode: true\nport: 0\nbind_address: 127.0.0.1\n\
             ssl_cert_file: {home}/cert.pem\nssl_key_file: {home}/key.pem\n\
             state_directory: {home}/state\n"
        );
        let config = Config::from_yaml(&yaml, "test").expect("valid");
        NodeBuilder::new(config).start().await.expect("started")
    }

    #[tokio::test]
    async fn a_part_that_ends_while_the_node_runs_is_noticed_whichever_it_is() {
        for part in ["gossip", "server", "upkeep"] {
            let home = tempfile::tempdir().expect("a directory");
            let mut node = node(&home).await;
            let idle = tokio::time::timeout(Duration::from_millis(50), node.broken()).await;
            assert!(idle.is_err(), "{idle:?} has ended");
            let task = match part {
                "gossip" => &node.parts.gossip_task,
                "server" => &node.parts.server_task,
                _ => node.background.iter().last().expect("upkeep"),
            };
            task.abort();
            let broken = tokio::time::timeout(Duration::from_secs(10), node.broken()).await;
            assert_eq!(broken.expect("noticed"), part);
            node.shutdown().await;
        }
    }
}
