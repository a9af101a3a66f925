//! What a node tells the cluster of itself, and the certificates that it tells it with.

use crate::{
    config::Labels,
    gossip::Gossip,
    identity::{Anchors, IdentityError, IdentityStore, Reloaded, UnixTime},
    registry::Registry,
    telemetry::Metrics,
    token::Issuer,
};
use bytes::Bytes;
use p2p_core::record::{OwnRecords, Refusal};
use p2p_proto::v1::{NodeRecord, TokenSigner};
use prometheus_client::metrics::gauge::Gauge;
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex, task::JoinError};

/// Pause between two looks at whether a token signer is due.
const ROTATION_PAUSE: Duration = Duration::from_secs(60);

/// Pause between two publications of changed services: an upstream that comes and goes does not flood the cluster.
const SERVICES_PAUSE: Duration = Duration::from_millis(100);

/// When the certificates in force end.
#[derive(Debug, Default)]
struct Expiry {
    certificate: Gauge,
    ca: Gauge,
}

/// What a node publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) identity: Arc<IdentityStore>,
    issuer: Arc<Issuer>,
    pub(super) anchors: Arc<Anchors>,
    gossip: Gossip,
    registry: Arc<Registry>,
    advertised: Vec<SocketAddr>,
    /// Where the node stands, and what others select it by.
    spoken_of: std::sync::Mutex<(String, Labels)>,
    expiry: Expiry,
    /// Held while certificates change, so that what is in force is what was published last.
    change: Mutex<()>,
}

impl Publisher {
    pub(super) fn new(
        (identity, issuer, anchors): (Arc<IdentityStore>, Arc<Issuer>, Arc<Anchors>),
        gossip: Gossip,
        registry: Arc<Registry>,
        advertised: Vec<SocketAddr>,
        spoken_of: (String, Labels),
        metrics: &Metrics,
    ) -> Self {
        let expiry = Expiry::default();
        metrics.register(|registry| {
            registry.register(
                "certificate_expiry_timestamp_seconds",
                "End of this node's certificate, Unix time",
                expiry.certificate.clone(),
            );
            registry.register(
                "ca_certificate_expiry_timestamp_seconds",
                "End of the CA certificate that this node's certificate rests on, Unix time; 0 without a CA",
                expiry.ca.clone(),
            );
        });
        Self {
            identity,
            issuer,
            anchors,
            gossip,
            registry,
            advertised,
            spoken_of: spoken_of.into(),
            expiry,
            change: Mutex::new(()),
        }
    }

    pub(super) fn advertised(&self) -> Option<SocketAddr> {
        self.advertised.first().copied()
    }

    /// Publishes what this node is and serves, with the identity in force.
    pub(super) async fn publish(&self) -> Result<(), Refusal> {
        let identity = self.identity.current();
        let seconds = |at: UnixTime| i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
        self.expiry.certificate.set(seconds(identity.not_after()));
        self.expiry.ca.set(identity.ca_not_after().map_or(0, seconds));
        let signers = self.issuer.chains().into_iter();
        let signers = signers
            .map(|chain| TokenSigner { certificate_chain: chain.into_iter().map(Bytes::from).collect() });
        let (zone, labels) = self.spoken_of.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let node = NodeRecord {
            certificate_chain: identity.chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            addresses: self.advertised.iter().map(ToString::to_string).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone,
            labels: labels.as_map().clone(),
            leaving: false,
            token_signers: signers.collect(),
            bundle_serial: self.anchors.serial(),
        };
        self.gossip.publish(OwnRecords { node, services: self.registry.records() }).await
    }

    /// Tells the cluster that this node stands elsewhere, or is to be selected by other labels.
    pub(super) async fn speak_of(&self, zone: String, labels: Labels) -> Result<(), Refusal> {
        *self.spoken_of.lock().unwrap_or_else(PoisonError::into_inner) = (zone, labels);
        self.publish().await
    }

    /// Reads the certificate files anew, and publishes what has changed. New handshakes use it; open
    /// connections stay.
    ///
    /// # Errors
    ///
    /// A defect; within it, what is wrong with the files. Either way nothing has changed.
    pub(super) async fn reload(&self) -> Result<Result<Reloaded, IdentityError>, JoinError> {
        self.change(|store| store.reload(UnixTime::now())).await
    }

    /// What [`Self::reload`] would do.
    ///
    /// # Errors
    ///
    /// A defect; within it, what is wrong with the files.
    pub(super) async fn preview(&self) -> Result<Result<Reloaded, IdentityError>, JoinError> {
        let identity = self.identity.clone();
        tokio::task::spawn_blocking(move || identity.preview(UnixTime::now())).await
    }

    /// Lets `work`, which may block, change the identity in force, one at a time, and publishes it if it has.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&IdentityStore) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let _change = self.change.lock().await;
        let (before, identity) = (self.identity.current(), self.identity.clone());
        let done = tokio::task::spawn_blocking(move || work(&identity)).await?;
        if !Arc::ptr_eq(&before, &self.identity.current())
            && let Err(refusal) = self.publish().await
        {
            tracing::error!(error = %refusal, "the new certificate could not be published");
        }
        Ok(done)
    }

    /// Makes and replaces the keys that sign access tokens; tells whether there are new ones, or why this
    /// node has none.
    pub(super) async fn rotate_signers(&self) -> Result<bool, String> {
        let issuer = self.issuer.clone();
        match tokio::task::spawn_blocking(move || issuer.rotate(UnixTime::now())).await {
            Ok(rotated) => rotated.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Tells the cluster whenever this node provides other services than before.
pub(super) async fn follow_services(publisher: Arc<Publisher>) {
    // Marked as changed: what was hosted before the first publication may have missed it.
    let mut changes = publisher.registry.local_changes();
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        if let Err(refusal) = publisher.publish().await {
            tracing::error!(error = %refusal, "the services of this node could not be published");
        }
        tokio::time::sleep(SERVICES_PAUSE).await;
    }
}

/// Replaces token signers in time, and tells the cluster.
pub(super) async fn keep_rotating(publisher: Arc<Publisher>) {
    let mut trust = publisher.anchors.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROTATION_PAUSE) => {}
            // Another root, or another CA of our own: the keys need its certificates at once.
            _changed = trust.changed() => {}
        }
        match publisher.rotate_signers().await {
            Ok(false) => {}
            Ok(true) => {
                if let Err(refusal) = publisher.publish().await {
                    tracing::error!(error = %refusal, "the new token signer could not be published");
                }
            }
            // Told as a warning at start; `token issue` tells it, too.
            Err(error) => tracing::debug!(error, "this coordinator cannot issue access tokens"),
        }
    }
}
