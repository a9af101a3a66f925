//! This coordinator's own log.

use super::{
    MAX_ENTRIES, MAX_SKEW, SegmentHeading, SegmentRefusal, Segments, has_expired,
    segment::{Author, read},
    store::Held,
};
use crate::{Epoch, NodeId, record::Keyring};
use bytes::Bytes;
use p2p_proto::v1::{Revocation, RevocationSegment};
use std::sync::Arc;

/// Segments of the own log that are not full before they are folded. Each entry is then signed and sent about
/// twice, and a node keeps some hundred segments, not one for each revocation.
const FOLD_AT: usize = 64;
/// A segment with fewer entries takes part in folding.
const FULL: usize = MAX_ENTRIES / 2;

impl Segments {
    /// Signs `entries` as the next of `own`'s log and keeps them. What it returns must be on disk before anybody is
    /// told that it is in force.
    pub fn append(
        &mut self,
        own: &NodeId,
        entries: Vec<Revocation>,
        unix_ms: u64,
        keyring: &dyn Keyring,
        chain: &[Bytes],
    ) -> Result<Vec<Arc<RevocationSegment>>, SegmentRefusal> {
        let log = self.latest_log(own).unwrap_or(unix_ms);
        let cluster = self.cluster.clone();
        let author = Author { cluster: &cluster, signer: own, keyring, chain, unix_s: unix_ms / 1000 };
        // What others would have no room for, this node does not promise.
        self.check_room(own, log, &entries)?;
        let mut made = Vec::new();
        for run in entries.chunks(MAX_ENTRIES) {
            let highest =
                self.logs.get(&(own.clone(), log)).and_then(|log| log.covered.highest()).unwrap_or(0);
            let (first, last) = (highest + 1, highest + run.len() as u64);
            made.push(self.keep(&author, log, (first, last), run.to_vec())?);
        }
        Ok(made)
    }

    fn latest_log(&self, own: &NodeId) -> Option<u64> {
        self.logs.keys().filter(|(signer, _)| signer == own).map(|(_, log)| *log).max()
    }

    fn keep(
        &mut self,
        author: &Author<'_>,
        log: u64,
        (first, last): (u64, u64),
        entries: Vec<Revocation>,
    ) -> Result<Arc<RevocationSegment>, SegmentRefusal> {
        let segment = author.seal(log, first, last, entries);
        // What others would refuse, this node does not keep either.
        let (heading, entries) = read(&segment, &self.cluster)?;
        self.insert(&heading, segment.clone(), &entries);
        Ok(Arc::new(segment))
    }

    /// Folds the small segments of `own`'s log into larger ones, once there are many, leaving out what
    /// `is_void` says has expired or is settled otherwise. Returns the new segments; the ones before are gone.
    pub fn fold(
        &mut self,
        own: &NodeId,
        unix_ms: u64,
        keyring: &dyn Keyring,
        chain: &[Bytes],
        is_void: &dyn Fn(&Revocation) -> bool,
    ) -> Result<Vec<Arc<RevocationSegment>>, SegmentRefusal> {
        let cluster = self.cluster.clone();
        let author = Author { cluster: &cluster, signer: own, keyring, chain, unix_s: unix_ms / 1000 };
        let mut made = Vec::new();
        for (number, runs) in self.foldable(own, is_void) {
            for run in runs {
                made.push(self.keep(&author, number, run.range, run.entries)?);
            }
        }
        Ok(made)
    }

    /// Signs `own`'s segments anew that were signed with another certificate than `chain`: nodes that join after the CA's
    /// root was rotated could not verify them. And those that were signed while the clock was ahead, which others refuse.
    /// Returns the new ones.
    pub fn sign_anew(
        &mut self,
        own: &NodeId,
        unix_ms: u64,
        keyring: &dyn Keyring,
        chain: &[Bytes],
    ) -> Result<Vec<Arc<RevocationSegment>>, SegmentRefusal> {
        let cluster = self.cluster.clone();
        let author = Author { cluster: &cluster, signer: own, keyring, chain, unix_s: unix_ms / 1000 };
        let logs = self.logs.iter().filter(|((signer, _), _)| signer == own);
        // The whole of a log, so that it is told by its earliest signature.
        let latest = author.unix_s.saturating_add(MAX_SKEW.as_secs());
        let is_old = |held: &Held| held.segment.certificate_chain != chain || held.issued_at > latest;
        let old = logs.filter(|(_, log)| log.held.values().any(is_old));
        let old: Vec<(u64, (u64, u64), Arc<RevocationSegment>)> = old
            .flat_map(|((_, number), log)| {
                log.held.iter().map(move |(range, held)| (*number, *range, held.segment.clone()))
            })
            .collect();
        let mut made = Vec::new();
        for (number, range, segment) in old {
            let (_, entries) = read(&segment, &self.cluster)?;
            made.push(self.keep(&author, number, range, entries)?);
        }
        Ok(made)
    }

    fn foldable(&self, own: &NodeId, is_void: &dyn Fn(&Revocation) -> bool) -> Vec<(u64, Vec<Run>)> {
        let logs = self.logs.iter().filter(|((signer, _), _)| signer == own);
        let crowded =
            logs.filter(|(_, log)| log.held.values().filter(|held| held.entries < FULL).count() >= FOLD_AT);
        crowded
            .map(|((_, number), log)| {
                let mut runs: Vec<Run> = Vec::new();
                for (range, held) in &log.held {
                    let Ok((_, entries)) = read(&held.segment, &self.cluster) else { continue };
                    let live: Vec<Revocation> = entries.into_iter().filter(|entry| !is_void(entry)).collect();
                    match runs.last_mut().filter(|run| run.takes(*range, held.entries, live.len())) {
                        Some(run) => run.extend(*range, live),
                        None => runs.push(Run { range: *range, segments: 1, entries: live }),
                    }
                }
                runs.retain(|run| run.segments > 1);
                (*number, runs)
            })
            .collect()
    }

    /// Whether a segment in this coordinator's own name is not of what it has signed as far as it knows, and uses the
    /// same numbers: as after a restored backup. One that holds all that is known under its numbers is no contradiction:
    /// small segments were folded into it, and a crash came before that was on disk.
    pub fn contradicts(&self, own: &NodeId, segment: &RevocationSegment, unix_s: u64) -> bool {
        let Ok((theirs, entries)) = read(segment, &self.cluster) else { return false };
        let SegmentHeading { signer, log, first, last, .. } = &theirs;
        let Some(log) = self.logs.get(&(signer.clone(), *log)).filter(|_| signer == own) else {
            return false;
        };
        log.held.iter().any(|((held_first, held_last), held)| {
            let overlaps = held_first <= last && held_last >= first;
            let same = held_first == first && held_last == last;
            let folded_here = held_first <= first && held_last >= last && !same;
            let folded_there = held_first >= first && held_last <= last && !same;
            let other_words = || {
                read(&held.segment, &self.cluster).is_ok_and(|(_, held)| match folded_there {
                    true => held
                        .iter()
                        .any(|entry| !has_expired(entry.expires_at, unix_s) && !entries.contains(entry)),
                    false => held != entries,
                })
            };
            overlaps && !folded_here && other_words()
        })
    }

    /// Whether `own`'s log was opened while the clock was so far ahead that others refuse all that is in it.
    pub fn is_ahead(&self, own: &NodeId, unix_ms: u64) -> bool {
        self.latest_log(own).is_some_and(|log| Epoch(log).is_too_far_ahead(unix_ms))
    }

    /// Opens a new log of `own` and signs in it once more all that it holds of its present one.
    pub fn reopen(
        &mut self,
        own: &NodeId,
        unix_ms: u64,
        keyring: &dyn Keyring,
        chain: &[Bytes],
    ) -> Result<Vec<Arc<RevocationSegment>>, SegmentRefusal> {
        let Some(present) = self.latest_log(own) else { return Ok(Vec::new()) };
        let next = if self.is_ahead(own, unix_ms) { unix_ms } else { unix_ms.max(present + 1) };
        // Gone from here, so that what others hold under its numbers is news.
        let before = self.remove_log(own, present);
        let read = before.iter().filter_map(|segment| read(segment, &self.cluster).ok());
        let entries: Vec<Revocation> = read.flat_map(|(_, entries)| entries).collect();
        // An empty log of the highest number is what `append` goes on with.
        self.logs.entry((own.clone(), next)).or_default();
        let made = self.append(own, entries, unix_ms, keyring, chain);
        if made.is_err() {
            // What is known stays known.
            self.remove_log(own, next);
            for segment in before {
                self.load((*segment).clone()).ok();
            }
        }
        made
    }
}

/// Neighbouring segments that become one.
struct Run {
    range: (u64, u64),
    segments: usize,
    entries: Vec<Revocation>,
}

impl Run {
    fn takes(&self, (first, _): (u64, u64), entries: usize, live: usize) -> bool {
        let adjacent = self.range.1 + 1 == first;
        adjacent && entries < FULL && self.entries.len() + live <= MAX_ENTRIES
    }

    fn extend(&mut self, (_, last): (u64, u64), live: Vec<Revocation>) {
        self.range.1 = last;
        self.segments += 1;
        self.entries.extend(live);
    }
}
