//! Looking for the cluster: at the configured seeds, and, while nobody is known, where members were before.

use super::Task;
use crate::{
    config::SeedAddress,
    gossip::handle::Command,
    peer::{PeerConnection, PeerPool, resolve},
};
use futures_util::{StreamExt as _, stream};
use p2p_core::gossip::Peer;
use p2p_proto::v1::MemberState;
use rand::seq::IndexedRandom as _;
use std::{collections::HashSet, net::SocketAddr, sync::Arc};
use tokio::sync::mpsc;

/// Seeds that are dialled at a time: one that is silent must not keep others waiting.
const AT_ONCE: usize = 8;
/// Remembered addresses that are dialled in one round.
const REMEMBERED: usize = 16;

/// A place to look at.
enum Place {
    Seed {
        seed: SeedAddress,
        /// Whether it was not complained about yet.
        first: bool,
    },
    Remembered(SocketAddr),
}

/// One round of dials.
struct Round {
    pool: Arc<PeerPool>,
    commands: mpsc::Sender<Command>,
    /// Addresses of live members.
    reached: HashSet<SocketAddr>,
}

impl Task {
    /// Dials every seed whose address is not a live member's.
    pub(super) fn dial_seeds(&mut self) {
        let own = self.engine.own();
        let live = |view: &&p2p_core::gossip::MemberView| view.state == MemberState::Alive;
        let reached: HashSet<SocketAddr> = (self.engine.members().values().filter(live))
            .filter_map(|member| member.address)
            .chain([own.address])
            .collect();
        let alone = !self.engine.members().iter().any(|(node, member)| *node != own.node && live(&member));
        let remembered = self.setup.remembered.sample(&mut rand::rng(), if alone { REMEMBERED } else { 0 });
        let remembered: Vec<Place> = remembered.copied().map(Place::Remembered).collect();
        if self.seeds_running || self.leaving || (self.setup.seeds.is_empty() && remembered.is_empty()) {
            return;
        }
        self.seeds_running = true;
        let mut places: Vec<Place> = Vec::new();
        for seed in self.setup.seeds.clone() {
            let first = self.complaints.insert(seed.to_string());
            places.push(Place::Seed { seed, first });
        }
        places.extend(remembered);
        let round = Round { pool: self.setup.pool.clone(), commands: self.commands.clone(), reached };
        tokio::spawn(async move {
            let round = &round;
            stream::iter(places).for_each_concurrent(AT_ONCE, |place| round.look_at(place)).await;
            if round.commands.send(Command::SeedsDone).await.is_err() {
                tracing::debug!("gossip has stopped while seeds were dialled");
            }
        });
    }

    pub(super) fn seed_answered(&mut self, connection: PeerConnection) {
        let node = connection.node.clone();
        if node == self.engine.own().node {
            return;
        }
        self.complaints.clear();
        let known: Option<Peer> =
            self.links.get(&node).and_then(|entry| entry.links.back()).map(|link| link.peer.clone());
        match known {
            Some(peer) => self.engine.connected(self.now(), &peer),
            None => self.start_dial(node, connection.address),
        }
    }
}

impl Round {
    async fn look_at(&self, place: Place) {
        match place {
            Place::Seed { seed, first } => {
                for address in resolve(&seed).await {
                    if let Err(error) = self.dial(address).await {
                        if first {
                            tracing::warn!(seed = %seed, %error, "seed not reached; trying again");
                        } else {
                            tracing::debug!(seed = %seed, %error, "seed not reached");
                        }
                    }
                }
            }
            Place::Remembered(address) => {
                if let Err(error) = self.dial(address).await {
                    tracing::debug!(peer.address = %address, %error, "nobody is where a member was");
                }
            }
        }
    }

    /// Dials one address, unless a live member is there, and tells the task who answered.
    async fn dial(&self, address: SocketAddr) -> Result<(), Arc<crate::peer::DialError>> {
        if !self.reached.contains(&address) {
            let connection = self.pool.get_any(address).await?;
            if self.commands.send(Command::SeedAnswered(connection)).await.is_err() {
                tracing::debug!("gossip has stopped while seeds were dialled");
            }
        }
        Ok(())
    }
}
