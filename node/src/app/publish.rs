//! What this node tells the cluster of itself, put together from the parts that know it.

use crate::{
    gossip::Gossip,
    identity::{IdentityStore, UnixTime},
    registry::Registry,
    token::Issuer,
};
use bytes::Bytes;
use p2p_core::record::{OwnRecords, Refusal};
use p2p_proto::v1::{NodeRecord, TokenSigner};
use prometheus_client::metrics::gauge::Gauge;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Pause between two looks at whether a token signer is due.
const ROTATION_PAUSE: Duration = Duration::from_secs(60);

/// Puts the node's records together and hands them to gossip.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) zone: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) identity: Arc<IdentityStore>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) gossip: Gossip,
    pub(super) registry: Arc<Registry>,
    pub(super) advertised: Vec<SocketAddr>,
    pub(super) certificate_expiry: Gauge,
}

impl Publisher {
    /// Publishes with the identity in force.
    pub(super) async fn publish(&self) -> Result<(), Refusal> {
        let identity = self.identity.current();
        let expiry = identity.not_after().as_secs();
        self.certificate_expiry.set(i64::try_from(expiry).unwrap_or(i64::MAX));
        let signers = self
            .issuer
            .chains()
            .into_iter()
            .map(|chain| TokenSigner { certificate_chain: chain.into_iter().map(Bytes::from).collect() });
        let node = NodeRecord {
            certificate_chain: identity.chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            addresses: self.advertised.iter().map(ToString::to_string).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone: self.zone.clone(),
            labels: self.labels.clone(),
            leaving: false,
            token_signers: signers.collect(),
        };
        self.gossip.publish(OwnRecords { node, services: self.registry.records() }).await
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

/// Replaces token signers in time, and tells the cluster.
pub(super) async fn keep_rotating(publisher: Arc<Publisher>) {
    loop {
        tokio::time::sleep(ROTATION_PAUSE).await;
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
