//! The epoch: a number that rises at each start of a node, and is on disk before anyone sees it.

use super::{Loaded, PersistError, StateDirectory, StateFile};
use p2p_core::{Epoch, NodeId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GossipState {
    node_id: NodeId,
    epoch: Epoch,
}

/// The epoch of this start of a node, and the file that the next start will read it from.
#[derive(Debug)]
pub struct EpochFile {
    file: StateFile<GossipState>,
    state: GossipState,
    moved_aside: Option<PathBuf>,
}

impl EpochFile {
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
            Loaded::Ok(state) => (Some(state.epoch), None),
        };
        let epoch = Epoch::next(stored, unix_ms);
        if stored == Some(epoch) {
            return Err(PersistError::EpochExhausted { path: file.path() });
        }
        if epoch.is_too_far_ahead(unix_ms) {
            tracing::warn!(
                epoch = epoch.0,
                unix_ms,
                "the stored epoch is more than a day ahead of this host's clock; if the clock is right, peers \
                 will refuse this node until it catches up",
            );
        }
        let state = GossipState { node_id: node_id.clone(), epoch };
        file.save(&state)?;
        Ok(Self { file, state, moved_aside })
    }

    /// The epoch of this start.
    pub fn epoch(&self) -> Epoch {
        self.state.epoch
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
    pub fn raise(&mut self, epoch: Epoch) -> Result<(), PersistError> {
        if epoch > self.state.epoch {
            let raised = GossipState { epoch, ..self.state.clone() };
            self.file.save(&raised)?;
            self.state = raised;
        }
        Ok(())
    }
}
