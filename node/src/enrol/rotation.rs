//! A new root without an outage, driven from the coordinator that holds the root's key.
//!
//! ```text
//! spreading   bundle n   {old, new}   until every member trusts both
//! reissuing   bundle n+1 {new, old}   the new root issues; until every member's certificate leads to it
//! done        bundle n+2 {new}        the old root is dropped; its key is kept aside
//! ```
//!
//! Each call goes as far as it can and says whom it waits for. What it has done is on disk (`ca_rotation.json`),
//! so a call that was cut off is repeated, after a restart, too. Members that were seen once are waited for
//! `REMEMBER_SECONDS` also when the view has forgotten them: unless they are named, so that a node which comes
//! back in a week still finds its cluster.

use crate::{
    auth::not_coordinator,
    error::{Fault, Reason},
    identity::{
        Anchors, IdentityStore, UnixTime, Usage,
        bundle::{Bundle, RootKey, leads_to, leads_to_for},
        pem,
        rotation::{self as files, StepError},
    },
    persist::{Loaded, PersistError, StateDirectory, StateFile},
};
use p2p_core::{
    NodeId, Role,
    gossip::{MemberView, View},
};
use p2p_proto::v1::{MemberState, RotateCaStatus, RotationStep};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// How long a member that was seen is waited for, in seconds: 30 days.
const REMEMBER_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Most members that are waited for.
const MAX_WAITED_FOR: usize = 16_384;
/// The file's name in the state directory.
const FILE: &str = "ca_rotation.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RotationState {
    running: Option<Running>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Running {
    step: Step,
    /// Of the first bundle.
    serial: u64,
    old_root: String,
    new_root: String,
    /// Who is not ready for the next step, and when it was last seen, Unix seconds.
    waiting_for: BTreeMap<NodeId, u64>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Spreading,
    Reissuing,
}

/// Why a rotation does not go on. It can be repeated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Not here.
    #[error("{0} is no coordinator; rotate the CA at the coordinator that holds the root's key")]
    NoCoordinator(NodeId),
    /// To be left behind, and not known.
    #[error("no node {0} is known here, so it cannot be left behind; `p2pctl cluster nodes` lists them")]
    Unknown(NodeId),
    /// A step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The state.
    #[error(transparent)]
    State(#[from] PersistError),
}

impl RotationError {
    /// As the caller is told.
    pub fn to_fault(&self) -> Fault {
        match self {
            Self::Unknown(_) => Fault::new(Reason::NotFound, self.to_string()),
            Self::NoCoordinator(_) | Self::Step(_) => Fault::new(Reason::Precondition, self.to_string()),
            Self::State(error) => Fault::internal(error.to_string()),
        }
    }
}

impl From<crate::identity::bundle::BundleError> for RotationError {
    fn from(error: crate::identity::bundle::BundleError) -> Self {
        Self::Step(error.into())
    }
}

/// How far a rotation is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only say how it stands.
    Look,
    /// Go on with one that was begun.
    GoOn,
    /// Go on, or begin one.
    Begin,
}

/// The rotation of this coordinator's root.
#[derive(Debug)]
pub struct Rotation {
    identity: Arc<IdentityStore>,
    anchors: Arc<Anchors>,
    view: watch::Receiver<Arc<View>>,
    kept: Mutex<(StateFile<RotationState>, RotationState)>,
}

/// `ca_rotation.json`, read at start.
#[derive(Debug)]
pub struct RotationFile(StateFile<RotationState>, RotationState);

impl RotationFile {
    /// Reads what is kept in `directory`.
    ///
    /// # Errors
    ///
    /// When a file is there and cannot be read.
    pub fn load(directory: &StateDirectory) -> Result<Self, PersistError> {
        let (file, loaded) = StateFile::load(directory, FILE)?;
        let state = match loaded {
            Loaded::Ok(state) => state,
            Loaded::Missing => RotationState::default(),
            Loaded::Corrupt { moved_to } => {
                tracing::error!(moved_to = %moved_to.display(), "how far the CA's rotation was is lost; begin it again");
                RotationState::default()
            }
        };
        Ok(Self(file, state))
    }
}

impl Rotation {
    /// A rotation as `file` left it.
    pub fn new(
        file: RotationFile,
        identity: Arc<IdentityStore>,
        anchors: Arc<Anchors>,
        view: watch::Receiver<Arc<View>>,
    ) -> Arc<Self> {
        Arc::new(Self { identity, anchors, view, kept: Mutex::new((file.0, file.1)) })
    }

    /// Goes as far as it can without those of `forced`, off the async threads.
    ///
    /// # Errors
    ///
    /// Why it does not go on; what was done stays done.
    pub async fn run(
        self: &Arc<Self>,
        action: Action,
        forced: BTreeSet<NodeId>,
    ) -> Result<RotateCaStatus, Fault> {
        let this = self.clone();
        let run = move || this.run_now(action, &forced, UnixTime::now());
        let done = tokio::task::spawn_blocking(run).await;
        let done = done.map_err(|_| Fault::new(Reason::ShuttingDown, "this node is shutting down"))?;
        done.map_err(|error| {
            tracing::warn!(%error, "the CA's rotation does not go on");
            match &error {
                RotationError::NoCoordinator(_) => {
                    not_coordinator(self.identity.current().spiffe(), "", &self.view.borrow())
                }
                RotationError::Unknown(_) | RotationError::Step(_) | RotationError::State(_) => {
                    error.to_fault()
                }
            }
        })
    }

    fn run_now(
        &self,
        action: Action,
        forced: &BTreeSet<NodeId>,
        now: UnixTime,
    ) -> Result<RotateCaStatus, RotationError> {
        let identity = self.identity.current();
        if identity.spiffe().role != Role::Coordinator {
            return Err(RotationError::NoCoordinator(identity.spiffe().name.clone()));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |node: &&NodeId| {
            let waits =
                kept.1.running.as_ref().is_some_and(|running| running.waiting_for.contains_key(*node));
            waits || self.view.borrow().members.contains_key(*node)
        };
        if action == Action::Begin
            && let Some(node) = forced.iter().find(|node| !is_known(node))
        {
            return Err(RotationError::Unknown(node.clone()));
        }
        if kept.1.running.is_none() && action == Action::Begin {
            let staged = files::stage(self.identity.files(), identity.cluster_id(), now)?;
            let running = Running {
                step: Step::Spreading,
                serial: self.anchors.serial() + 1,
                old_root: staged.old,
                new_root: staged.new,
                waiting_for: BTreeMap::new(),
                unknown: Map::new(),
            };
            save(&mut kept, Some(running))?;
            tracing::info!(serial = self.anchors.serial() + 1, "rotation of the CA begun");
        }
        let Some(mut running) = kept.1.running.clone() else { return Ok(self.status(None, forced)) };
        if action == Action::Look {
            return Ok(self.status(Some(&running), forced));
        }
        if running.step == Step::Spreading {
            self.spread(&mut running, now)?;
            if waits(&running, forced) {
                save(&mut kept, Some(running.clone()))?;
                return Ok(self.status(Some(&running), forced));
            }
            running.step = Step::Reissuing;
            running.waiting_for.clear();
            save(&mut kept, Some(running.clone()))?;
            tracing::info!("every member trusts the new root; it issues from now on");
        }
        self.reissue(&mut running, now)?;
        if waits(&running, forced) {
            save(&mut kept, Some(running.clone()))?;
            return Ok(self.status(Some(&running), forced));
        }
        self.put_in_force(&running, 2, now)?;
        save(&mut kept, None)?;
        tracing::info!(serial = self.anchors.serial(), "rotation of the CA done; the old root is dropped");
        Ok(RotateCaStatus { step: RotationStep::Done.into(), ..self.status(None, forced) })
    }

    /// Both roots are trusted here, and it is known who else does.
    fn spread(&self, running: &mut Running, now: UnixTime) -> Result<(), RotationError> {
        self.put_in_force(running, 0, now)?;
        let serial = running.serial;
        let own = self.identity.current().spiffe().name.clone();
        self.look(running, now, |node, member| *node == own || member.records.node.bundle_serial >= serial);
        Ok(())
    }

    /// The new root issues, this coordinator's certificate leads to it, and it is known whose else does.
    fn reissue(&self, running: &mut Running, now: UnixTime) -> Result<(), RotationError> {
        files::switch(self.identity.files(), running.serial)?;
        self.put_in_force(running, 1, now)?;
        let identity = self.identity.current();
        if let Some(bundle) = self.anchors.bundle()
            && files::reissue_own(self.identity.files(), &identity, &bundle, now)?
        {
            self.identity.reload(now).map_err(|error| {
                StepError::from(crate::identity::bundle::BundleError::from(Box::new(error)))
            })?;
            self.anchors.touch();
        }
        let root = der(&running.new_root)?;
        let cluster = identity.cluster_id().clone();
        let own = &identity.spiffe().name;
        self.look(running, now, |node, member| {
            let record = &member.records.node;
            // With the old root, the keys of tokens that are out would go, too.
            let signers = record.token_signers.iter().all(|signer| {
                leads_to_for(&signer.certificate_chain, &cluster, &root, Usage::TokenSigning, now)
            });
            signers && (node == own || leads_to(&record.certificate_chain, &cluster, &root, now))
        });
        Ok(())
    }

    /// Signs and takes the bundle `serial + ahead` of this rotation, unless it is in force.
    fn put_in_force(&self, running: &Running, ahead: u64, now: UnixTime) -> Result<(), RotationError> {
        let serial = running.serial + ahead;
        if self.anchors.serial() >= serial {
            return Ok(());
        }
        let root = |pem: &str| files::root(self.identity.files(), pem, running.serial);
        let (old, new) = (RootKey::of(&root(&running.old_root)?)?, RootKey::of(&root(&running.new_root)?)?);
        let (first, second) = (old.root().clone(), new.root().clone());
        let roots = match ahead {
            0 => vec![first, second],
            1 => vec![second, first],
            _ => vec![second],
        };
        let identity = self.identity.current();
        let bundle = Bundle::sign(identity.cluster_id(), serial, &roots, &[&old, &new])?;
        self.anchors.accept(bundle.wire(), now)?;
        Ok(())
    }

    /// Notes who of the members is `ready`, and who was seen and is not.
    fn look(&self, running: &mut Running, now: UnixTime, ready: impl Fn(&NodeId, &MemberView) -> bool) {
        let view = self.view.borrow().clone();
        for (node, member) in &view.members {
            // Nobody waits for a node that must not come back.
            if member.evicted || ready(node, member) {
                running.waiting_for.remove(node);
            } else if running.waiting_for.len() < MAX_WAITED_FOR {
                let seen = match member.state {
                    MemberState::Alive | MemberState::Suspect => now.as_secs(),
                    MemberState::Down | MemberState::Left | MemberState::Unspecified => {
                        member.since_unix_ms / 1000
                    }
                };
                running.waiting_for.insert(node.clone(), seen);
            }
        }
        running.waiting_for.retain(|_, seen| seen.saturating_add(REMEMBER_SECONDS) >= now.as_secs());
    }

    fn status(&self, running: Option<&Running>, forced: &BTreeSet<NodeId>) -> RotateCaStatus {
        let step = match running.map(|running| running.step) {
            None => RotationStep::Idle,
            Some(Step::Spreading) => RotationStep::Spreading,
            Some(Step::Reissuing) => RotationStep::Reissuing,
        };
        let waiting = running.map(|running| &running.waiting_for).into_iter().flatten();
        let waiting = waiting.filter(|(node, _)| !forced.contains(*node));
        RotateCaStatus {
            step: step.into(),
            waiting_for: waiting.map(|(node, _)| node.to_string()).collect(),
            serial: self.anchors.serial(),
        }
    }
}

fn waits(running: &Running, forced: &BTreeSet<NodeId>) -> bool {
    running.waiting_for.keys().any(|node| !forced.contains(node))
}

fn der(cert_pem: &str) -> Result<CertificateDer<'static>, RotationError> {
    let all = pem::certificates(cert_pem.as_bytes()).map_err(crate::identity::CaError::from);
    Ok(all.map_err(StepError::from)?.swap_remove(0))
}

fn save(
    kept: &mut (StateFile<RotationState>, RotationState),
    running: Option<Running>,
) -> Result<(), PersistError> {
    let state = RotationState { running };
    kept.0.save(&state)?;
    kept.1 = state;
    Ok(())
}

#[cfg(test)]
mod tests;
