//! Where the members are, kept for the next start of this node.

use crate::persist::{GossipFile, KnownMember, PersistError};
use p2p_core::{NodeId, gossip::View};
use p2p_proto::v1::MemberState;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Most members kept: more than a node needs to find one that answers.
const MEMBERS_MAX: usize = 4096;

/// Keeps the members of a cluster on disk.
#[derive(Clone, Debug)]
pub struct Memory {
    file: Arc<GossipFile>,
    own: NodeId,
    view: watch::Receiver<Arc<View>>,
}

impl Memory {
    /// Keeps the members of `view` but `own` in `file`.
    pub fn new(file: Arc<GossipFile>, own: NodeId, view: watch::Receiver<Arc<View>>) -> Self {
        Self { file, own, view }
    }

    /// Saves them each `every`, if they are others than before; for ever.
    pub async fn keep(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.save().await;
        }
    }

    /// Saves them now. A failure is logged: the next save tries again, and a node without them still has its seeds.
    pub async fn save(&self) {
        let members = known(&self.view.borrow(), &self.own);
        // Whoever meets nobody keeps in mind whom it had met.
        if members.is_empty() {
            return;
        }
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || file.remember(members)).await;
        if let Some(error) = failure(saved) {
            tracing::error!(error, "the members could not be saved; trying again");
        }
    }
}

fn failure(saved: Result<Result<bool, PersistError>, tokio::task::JoinError>) -> Option<String> {
    match saved {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// The members that may be found again, by id; none while this node knows no live one, since its own view says nothing
/// of the cluster then.
fn known(view: &View, own: &NodeId) -> Vec<KnownMember> {
    let others = || view.members.iter().filter(|(node, _)| *node != own);
    if !others().any(|(_, member)| member.state == MemberState::Alive) {
        return Vec::new();
    }
    others()
        .filter(|(_, member)| member.state != MemberState::Left && !member.evicted)
        .filter_map(|(node, member)| {
            let address = member.address?;
            Some(KnownMember { node_id: node.clone(), epoch: member.epoch, address })
        })
        .take(MEMBERS_MAX)
        .collect()
}
