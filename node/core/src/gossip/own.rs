//! What concerns this very node: publishing, leaving, and defending its id.

use super::{Effect, Engine, Event};
use crate::{
    Epoch, Moment,
    membership::{Life, epoch_above},
    record::{Merge, OwnRecords, Refusal},
};
use std::time::Duration;

/// Conflicts over this node's id within [`CONFLICT_WINDOW`] before it slows down.
const CONFLICT_LIMIT: usize = 3;
const CONFLICT_WINDOW: Duration = Duration::from_secs(60);
/// A later life that nobody has proved makes this node take a higher epoch at most this often.
const CLAIM_PAUSE: Duration = Duration::from_secs(10);
/// Beyond the end of any process that has left its cluster.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Engine {
    /// Publishes what this node is and serves, as a new state that replaces the one before. A node that leaves goes on
    /// leaving, whatever changes meanwhile.
    pub fn publish(&mut self, now: Moment, unix_ms: u64, mut records: OwnRecords) -> Result<(), Refusal> {
        records.node.leaving |= self.own.node.leaving;
        self.sequence += 1;
        let own = self.membership.own();
        let state =
            records.seal(&self.config.cluster, &own.node, own.epoch, self.sequence, self.keyring.as_ref());
        let merged = self.store.merge(state, unix_ms, self.keyring.as_ref())?;
        self.own = records;
        if let Merge::New(owner) = merged {
            self.own_state = self.store.full_version(&owner);
            self.dirty.insert(owner.clone());
            self.unpushed.insert(owner, None);
            self.push_at.get_or_insert(now);
        }
        Ok(())
    }

    /// Tells the cluster that this node is shutting down: it is shown as left and given no new calls.
    pub fn announce_leaving(&mut self, now: Moment, unix_ms: u64) -> Result<(), Refusal> {
        let mut records = self.own.clone();
        records.node.leaving = true;
        self.publish(now, unix_ms, records)
    }

    /// Ends this node's membership. Call it last; nothing is answered afterwards.
    pub fn leave(&mut self, now: Moment) {
        if self.push_at.is_some() {
            self.push();
        }
        self.membership.leave(now);
        self.exchange_at = now + NEVER;
        self.seeds_at = now + NEVER;
        self.lacking.clear();
    }

    /// The epoch of a later life of this node that records prove: its key signed them.
    fn proved_life(&self) -> Option<Epoch> {
        let own = self.own();
        // Also another state of the number that ours has: somebody with our key signed it.
        let records = self.own_heard.filter(|known| Some(*known) > self.own_state);
        records.map(|(epoch, ..)| epoch).filter(|epoch| *epoch >= own.epoch)
    }

    /// The same as failure detection or a hello has it: anybody may say that.
    fn claimed_life(&self) -> Option<Epoch> {
        let told = self.told_epoch.filter(|told| *told > self.own().epoch);
        told.max(self.membership.usurper().map(|life| life.epoch))
    }

    /// When somebody knows a later life of this node, takes a higher epoch. When that keeps happening, and each time its
    /// own key has signed for that life, another process holds the same id: both raise the alarm and stop competing for
    /// a while, and the one that is behind keeps quiet, so that the cluster stays calm. What is only claimed is believed
    /// once in [`CLAIM_PAUSE`], and is no reason to keep quiet: a liar could silence anybody. In a real conflict the
    /// other's records come within that time.
    pub(super) fn defend_own_id(&mut self, now: Moment, unix_ms: u64) {
        if self.membership.has_left() {
            return;
        }
        let plausible = |epoch: &Epoch| !epoch.is_too_far_ahead(unix_ms);
        let proved = self.proved_life().filter(plausible);
        let claimed = self.claimed_life().filter(plausible).filter(|_| now >= self.believes_at);
        let Some(known) = proved.max(claimed) else { return };
        if now < self.slowed_until {
            self.membership.hold(self.slowed_until);
            return;
        }
        let epoch = epoch_above(known);
        let own = Life { epoch, generation: 0, ..Life::clone(self.own()) }.into();
        self.membership.supersede(now, own);
        self.act(Effect::PersistEpoch(epoch));
        self.note(Event::EpochRaised { to: epoch });
        self.sequence = 0;
        if let Err(refusal) = self.publish(now, unix_ms, self.own.clone()) {
            let from = self.own().node.clone();
            self.note(Event::Refused { from, refusal, again: false });
        }
        if self.membership.active_count() == 0 {
            // What was announced before was an earlier life, which nobody accepts.
            self.seeds_at = now;
        }
        if proved.is_some() {
            self.count_conflict(now);
        } else {
            self.believes_at = now + CLAIM_PAUSE;
        }
    }

    fn count_conflict(&mut self, now: Moment) {
        while self.conflicts.front().is_some_and(|at| now.since(*at) > CONFLICT_WINDOW) {
            self.conflicts.pop_front();
        }
        self.conflicts.push_back(now);
        if self.conflicts.len() >= CONFLICT_LIMIT {
            self.conflicts.clear();
            self.slowed_until = now + CONFLICT_WINDOW;
            self.note(Event::DuplicateNode);
        }
    }
}
