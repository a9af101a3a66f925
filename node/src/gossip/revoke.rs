//! Revocations on their way: signed here in batches, kept on disk before they are acknowledged, enforced at once.
//!
//! While one batch is being written, what else is asked for gathers; it becomes the next segment. So one fsync serves
//! as many callers as wait for it.

use super::{
    handle::{Command, Gossip},
    task::{Task, unix_ms},
};
use crate::{
    error::{Fault, Reason},
    identity::UnixTime,
    persist::PersistError,
    revocation::{Everything, Keeper, Kept, Revocations},
};
use bytes::Bytes;
use p2p_core::{Moment, NodeId, Role, revocation::MAX_ENTRIES};
use p2p_proto::v1::{NodeEviction, Revocation, RevocationSegment, RevocationSegments, revocation::What};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Revocations that may wait for the batch before theirs to be on disk; more are refused.
const WAITING_MAX: usize = 8 * MAX_ENTRIES;

/// Pause before a save that a batch on its way to the disk is in the way of.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What gossip needs to keep revocations.
#[derive(Debug)]
pub struct Revoking {
    /// What is enforced.
    pub table: Arc<Revocations>,
    /// The disk.
    pub keeper: Keeper,
    /// What was on it.
    pub kept: Kept,
    /// Pause between saves of what has changed.
    pub autosave: Duration,
}

/// Something to revoke.
#[derive(Clone, Debug)]
pub enum Revoke {
    /// Tokens and subjects.
    Entry(Revocation),
    /// Ban a node, or lift the ban, overruling all that was said before.
    Node {
        /// Whom.
        node: NodeId,
        /// Lift it.
        readmit: bool,
    },
}

/// What became of segments that were to be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Whether all of them are in force.
    pub all: bool,
    /// How many connections that closed.
    pub connections_closed: u32,
}

pub(super) type Answer = oneshot::Sender<Result<Vec<Arc<RevocationSegment>>, Fault>>;

/// What waits, and what is being written.
#[derive(Debug, Default)]
pub(super) struct Batches {
    waiting: Vec<(Revoke, Answer)>,
    writing: bool,
    /// Something was enforced or dropped since the last save.
    dirty: bool,
    /// What becomes of the last save.
    saving: Option<oneshot::Receiver<Result<(), PersistError>>>,
    tidy_at: Option<Moment>,
    /// Connections closed since somebody last asked for a receipt.
    closed: usize,
    /// Who waits for what, and whether all of it was taken.
    receipts: Vec<(oneshot::Sender<Enforced>, bool)>,
}

impl Gossip {
    /// Revokes in this coordinator's name: on disk and enforced here when it returns, and on its way to the others.
    ///
    /// # Errors
    ///
    /// [`Reason::Precondition`] at a node that is no coordinator, [`Reason::Internal`] when the disk refuses.
    pub async fn revoke(&self, what: Revoke) -> Result<Vec<Arc<RevocationSegment>>, Fault> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::Revoke { what, done }).await;
        answer.await.unwrap_or_else(|_stopped| Err(stopped()))
    }

    /// Takes segments that a node sent to be enforced before it is answered.
    ///
    /// # Errors
    ///
    /// [`Reason::ShuttingDown`].
    pub async fn enforce(&self, peer: NodeId, segments: RevocationSegments) -> Result<Enforced, Fault> {
        let (done, answer) = oneshot::channel();
        self.tell(Command::Enforce { peer, segments, done }).await;
        answer.await.map_err(|_stopped| stopped())
    }
}

fn stopped() -> Fault {
    Fault::new(Reason::ShuttingDown, "this node is shutting down")
}

impl Task {
    /// Takes back what the disk holds. Nothing of it is verified again: only this user writes there.
    pub(super) fn load_revocations(&mut self) {
        let Kept { segments: kept, positions, incomplete } = std::mem::take(&mut self.setup.revoking.kept);
        self.engine.load_revocation_positions(&positions);
        let mut entries = Vec::new();
        for segment in kept {
            match self.engine.load_revocations(segment) {
                Ok(loaded) => entries.extend(loaded),
                Err(refusal) => tracing::error!(error = %refusal, "revocations on disk were passed over"),
            }
        }
        if !entries.is_empty() {
            tracing::info!(entries = entries.len(), "revocations loaded");
        }
        self.setup.revoking.table.set_incomplete(incomplete);
        self.setup.revoking.table.apply(&entries);
        self.banned(self.engine.banned().clone());
        self.batches.dirty = true;
    }

    pub(super) fn revoke(&mut self, what: Revoke, done: Answer) {
        let identity = self.setup.identity.current();
        if identity.spiffe().role != Role::Coordinator {
            let fault =
                Fault::new(Reason::Precondition, format!("{} is no coordinator", identity.spiffe().name));
            return answer(done, Err(fault));
        }
        if self.batches.waiting.len() >= WAITING_MAX {
            return answer(
                done,
                Err(Fault::new(Reason::TooLarge, "too many revocations wait for the disk; retry")),
            );
        }
        self.batches.waiting.push((what, done));
        self.write_batch();
    }

    /// Signs and writes what waits, unless a batch is being written.
    fn write_batch(&mut self) {
        if self.batches.writing || self.batches.waiting.is_empty() {
            return;
        }
        let count = self.batches.waiting.len().min(MAX_ENTRIES);
        let (asked, waiters): (Vec<Revoke>, Vec<Answer>) = self.batches.waiting.drain(..count).unzip();
        let now = unix_ms();
        let entries: Vec<Revocation> = asked.into_iter().map(|what| self.entry(what, now)).collect();
        let chain = self.chain();
        let made = match self.engine.revoke(now, entries.clone(), &chain) {
            Ok(made) => made,
            Err(refusal) => {
                let fault = Fault::new(Reason::InvalidArgument, refusal.to_string());
                waiters.into_iter().for_each(|done| answer(done, Err(fault.clone())));
                return self.write_batch();
            }
        };
        self.batches.closed += self.setup.revoking.table.apply(&entries);
        self.batches.writing = true;
        let kept = self.setup.revoking.keeper.keep(made.clone());
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let result = match kept.await {
                Ok(result) => result.map_err(|error| not_kept(&error)),
                Err(_dropped) => Err(Fault::new(Reason::Internal, "the disk does not keep up; retry")),
            };
            if commands.send(Command::Kept { made, waiters, result }).await.is_err() {
                tracing::debug!("gossip has stopped while a revocation was written");
            }
        });
    }

    fn entry(&self, what: Revoke, now: u64) -> Revocation {
        match what {
            Revoke::Entry(entry) => entry,
            Revoke::Node { node, readmit } => {
                let counter = self.engine.next_ban_counter(&node);
                let eviction =
                    NodeEviction { node_id: node.to_string(), counter, readmitted: readmit, at: now / 1000 };
                Revocation { expires_at: 0, what: Some(What::Node(eviction)) }
            }
        }
    }

    /// A batch is on disk, or is not: then it is in force here all the same, but nobody was told so.
    pub(super) fn kept(
        &mut self,
        made: Vec<Arc<RevocationSegment>>,
        waiters: Vec<Answer>,
        result: Result<(), Fault>,
    ) {
        self.batches.writing = false;
        self.batches.dirty = true;
        let now = self.now();
        self.engine.push_revocations(now, made.clone());
        let result = result.map(|()| made);
        waiters.into_iter().for_each(|done| answer(done, result.clone()));
        self.write_batch();
    }

    pub(super) fn enforce(
        &mut self,
        peer: &NodeId,
        segments: RevocationSegments,
        done: oneshot::Sender<Enforced>,
    ) {
        let all = self.engine.enforce(self.now(), unix_ms(), peer, segments);
        self.batches.receipts.push((done, all));
    }

    /// Others' revocations: in force at once, on disk soon.
    pub(super) fn revoked(&mut self, segment: Arc<RevocationSegment>, entries: &[Revocation]) {
        self.batches.closed += self.setup.revoking.table.apply(entries);
        self.batches.dirty = true;
        self.setup.revoking.keeper.keep_later(vec![segment]);
    }

    pub(super) fn banned(&mut self, banned: BTreeSet<NodeId>) {
        for node in &banned {
            self.hang_up(node);
            self.setup.pool.let_go(node);
        }
        // Handshakes and chains first, so that what is closed below cannot come back.
        self.setup.identity.bans().set(banned.clone());
        self.batches.closed += self.setup.revoking.table.set_banned(banned);
    }

    /// Answers those who wait for what they sent to be in force.
    pub(super) fn give_receipts(&mut self) {
        if self.batches.receipts.is_empty() {
            return;
        }
        let connections_closed = u32::try_from(std::mem::take(&mut self.batches.closed)).unwrap_or(u32::MAX);
        for (done, all) in self.batches.receipts.drain(..) {
            if done.send(Enforced { all, connections_closed }).is_err() {
                tracing::debug!("nobody waits for the receipt any more");
            }
        }
    }

    /// Drops what has expired, folds, and saves, each now and then.
    pub(super) fn tidy_revocations(&mut self) {
        let now = self.now();
        if self.batches.tidy_at.is_some_and(|at| now < at) {
            return;
        }
        if self.batches.writing {
            self.batches.tidy_at = Some(now + BUSY_PAUSE);
            return;
        }
        self.batches.tidy_at = Some(now + self.setup.revoking.autosave);
        let (unix_ms, identity) = (unix_ms(), self.setup.identity.current());
        // A clock outside the life of the node's own certificate is likely wrong, and what it calls expired is not.
        let in_time = identity.certificate().is_in_time(UnixTime::now());
        let chain = (identity.spiffe().role == Role::Coordinator).then(|| self.chain());
        let changed = in_time && self.engine.tidy_revocations(now, unix_ms, chain.as_deref());
        // What the disk refused is tried again, also if nothing has changed since.
        let failed = match self.batches.saving.as_mut().map(oneshot::Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => false,
            Some(Ok(saved)) => saved.is_err(),
            Some(Err(TryRecvError::Closed)) => true,
        };
        if changed || self.batches.dirty || failed {
            if in_time {
                self.setup.revoking.table.expire(self.engine.lived_until(now, unix_ms / 1000));
            }
            self.batches.dirty = false;
            self.batches.saving = Some(self.setup.revoking.keeper.save(self.everything()));
        }
    }

    /// When [`Self::tidy_revocations`] has something to do.
    pub(super) fn tidy_deadline(&self) -> Option<Moment> {
        self.batches.tidy_at
    }

    /// All of it, on disk, before the end.
    pub(super) async fn save_revocations(&mut self) {
        if self.setup.revoking.keeper.save(self.everything()).await.is_err() {
            tracing::warn!("revocations stay in the journal; the next start reads them there");
        }
    }

    fn everything(&self) -> Everything {
        Everything {
            segments: self.engine.revocation_segments(),
            positions: self.engine.revocation_positions(),
            incomplete: self.setup.revoking.table.is_incomplete(),
        }
    }

    /// What was lost on disk is there again once a peer has told all that it holds.
    pub(super) fn make_good(&mut self) {
        let table = &self.setup.revoking.table;
        if table.is_incomplete() && self.engine.has_compared_revocations() {
            table.set_incomplete(false);
            self.batches.dirty = true;
            tracing::info!("another node has told all that is revoked; access tokens are accepted again");
        }
    }

    fn chain(&self) -> Vec<Bytes> {
        let identity = self.setup.identity.current();
        identity.chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect()
    }
}

fn not_kept(error: &PersistError) -> Fault {
    Fault::new(
        Reason::Internal,
        format!(
            "in force on this node, but it would not survive a restart: {error}; retry once that is mended"
        ),
    )
}

fn answer<T>(done: oneshot::Sender<T>, result: T) {
    if done.send(result).is_err() {
        tracing::debug!("nobody waits for the revocation any more");
    }
}
