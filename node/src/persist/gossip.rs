//! What gossip keeps: a number that rises at each start of a node, and is on disk before anyone sees it; and where the
//! other members were, so that a restarted node finds them when every seed is gone.

use super::{Loaded, PersistError, StateDirectory, StateFile};
use p2p_core::{Epoch, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GossipState {
    node_id: NodeId,
    epoch: Epoch,
    #[serde(default)]
    members: Vec<KnownMember>,
}

/// Where a member was. Addresses only: whether it is alive, who answers there says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMember {
    /// Who.
    pub node_id: NodeId,
    /// Its start then.
    pub epoch: Epoch,
    /// Where that start accepted connections.
    pub address: SocketAddr,
}

/// `gossip_state.json`: the epoch of this start of a node, from which the next start takes its own, and the members.
#[derive(Debug)]
pub struct GossipFile {
    file: StateFile<GossipState>,
    state: Mutex<GossipState>,
    moved_aside: Option<PathBuf>,
}

impl GossipFile {
    /// Begins a start of `node_id`: its epoch is above every earlier one, and durable once this returns.
    ///
    /// A missing or damaged file makes the clock (`unix_ms`) the epoch, which is higher unless the clock was
    /// set back; then peers that remember a higher one report it, and [`Self::raise`] takes it.
    ///
    /// # Errors
    ///
    /// [`PersistError::OtherNode`] when the directory belongs to another node, and what loading and saving
    /// may fail with. Without a stored epoch a node must not start.
    pub fn start(
        directory: &StateDirectory,
        file_name: impl AsRef<Path>,
        node_id: &NodeId,
        unix_ms: u64,
    ) -> Result<Self, PersistError> {
        let (file, loaded) = StateFile::<GossipState>::load(directory, file_name)?;
        let (stored, moved_aside) = match loaded {
            Loaded::Missing => (None, None),
            Loaded::Corrupt { moved_to } => (None, Some(moved_to)),
            Loaded::Ok(state) if state.node_id != *node_id => {
                return Err(PersistError::OtherNode {
                    path: file.path(),
                    found: state.node_id,
                    expected: node_id.clone(),
                });
            }
            Loaded::Ok(state) => (Some(state), None),
        };
        let last = stored.as_ref().map(|state| state.epoch);
        let epoch = Epoch::next(last, unix_ms);
        if last == Some(epoch) {
            return Err(PersistError::EpochExhausted { path: file.path() });
        }
        if epoch.is_too_far_ahead(unix_ms) {
            tracing::warn!(
                epoch = epoch.0,
                unix_ms,
                file = %file.path().display(),
                "the stored epoch is more than a day ahead of this host's clock, and peers refuse this node. If the clock is \
                 right, it was wrong at an earlier start: stop the node, remove the file and start it again",
            );
        }
        let members = stored.map(|state| state.members).unwrap_or_default();
        let state = GossipState { node_id: node_id.clone(), epoch, members };
        file.save(&state)?;
        Ok(Self { file, state: Mutex::new(state), moved_aside })
    }

    /// The epoch of this start.
    pub fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// Where a damaged file was moved, if the epoch starts anew from the clock because of one.
    pub fn moved_aside(&self) -> Option<&Path> {
        self.moved_aside.as_deref()
    }

    /// Adopts `epoch`, durable once this returns. A lower one than ours changes nothing.
    ///
    /// # Errors
    ///
    /// What saving may fail with; our epoch then stays as it was and `epoch` must not be used.
    pub fn raise(&self, epoch: Epoch) -> Result<(), PersistError> {
        self.replace(|state| state.epoch = state.epoch.max(epoch)).map(drop)
    }

    /// The members, as they were remembered last.
    pub fn members(&self) -> Vec<KnownMember> {
        self.lock().members.clone()
    }

    /// Remembers these members instead of those before, durably once this returns. Whether anything was written: nothing
    /// is where nothing has changed.
    ///
    /// # Errors
    ///
    /// What saving may fail with; those before are kept.
    pub fn remember(&self, members: Vec<KnownMember>) -> Result<bool, PersistError> {
        self.replace(|state| state.members = members)
    }

    /// Saves what `change` makes of the state, if it is another, and adopts it once it is durable.
    fn replace(&self, change: impl FnOnce(&mut GossipState)) -> Result<bool, PersistError> {
        let mut state = self.lock();
        let mut changed = state.clone();
        change(&mut changed);
        if changed == *state {
            return Ok(false);
        }
        self.file.save(&changed)?;
        *state = changed;
        Ok(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, GossipState> {
        // Adopted whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
