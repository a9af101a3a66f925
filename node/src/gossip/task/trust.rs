//! The trust bundle on its way: to everybody with a stream when it changes, and to who was seen to lag.
//!
//! It stays outside the engine: it is one small message that only a root's key makes, and whoever has verified it
//! passes it on.

use super::{BundleTaken, Command, Outgoing, Task};
use p2p_core::NodeId;
use p2p_proto::v1::{TrustBundle, gossip_message::Kind};
use rustls_pki_types::UnixTime;
use std::time::{Duration, Instant};

/// Pause between two looks at who has not got the bundle.
pub(super) const REPAIR_PAUSE: Duration = Duration::from_secs(2);
/// Most members that are sent the bundle again at one look.
const REPAIR_AT_ONCE: usize = 16;

impl Task {
    /// Sends the bundle in force to everybody with an open stream.
    pub(super) fn push_bundle(&mut self) {
        let linked: Vec<NodeId> = self.links.keys().cloned().collect();
        self.send_bundle(&linked);
    }

    /// Sends it to those with an open stream who publish an older serial: a frame was lost, or they joined late.
    pub(super) fn repair_bundle(&mut self) {
        if self.repair_at > Instant::now() {
            return;
        }
        self.repair_at = Instant::now() + REPAIR_PAUSE;
        let serial = self.setup.anchors.serial();
        let view = self.engine.view().clone();
        let lags = |node: &&NodeId| {
            view.members.get(*node).is_some_and(|member| member.records.node.bundle_serial < serial)
        };
        let lagging: Vec<NodeId> = self.links.keys().filter(lags).take(REPAIR_AT_ONCE).cloned().collect();
        self.send_bundle(&lagging);
    }

    fn send_bundle(&mut self, to: &[NodeId]) {
        let Some(bundle) = self.setup.anchors.bundle() else { return };
        for node in to {
            let message = Kind::TrustBundle(bundle.wire().clone());
            self.send_linked(node, Outgoing::of(message));
        }
    }

    /// Looks at a bundle that `peer` sent, off this task: it may have to be written to disk. One at a time; what
    /// comes meanwhile is sent again.
    pub(super) fn bundle_received(&mut self, peer: NodeId, bundle: TrustBundle) {
        if self.taking_bundle {
            return;
        }
        self.taking_bundle = true;
        let (anchors, commands) = (self.setup.anchors.clone(), self.commands.clone());
        tokio::spawn(async move {
            let taken = tokio::task::spawn_blocking(move || anchors.accept(&bundle, UnixTime::now())).await;
            let error = match taken {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("this node is shutting down".to_owned()),
            };
            if commands.send(Command::BundleTaken(BundleTaken { peer, error })).await.is_err() {
                tracing::debug!("gossip has stopped while a trust bundle was taken");
            }
        });
    }

    pub(super) fn bundle_taken(&mut self, taken: &BundleTaken) {
        self.taking_bundle = false;
        if let Some(error) = &taken.error {
            self.metrics.refused("trust_bundle");
            // It comes again and again until it is taken: one line is enough.
            if self.bundle_refused.as_ref() != Some(error) {
                tracing::warn!(peer.id = %taken.peer, error, "trust bundle refused");
            }
        }
        self.bundle_refused.clone_from(&taken.error);
    }
}
