//! All coordinators' segments, merged.

use super::{
    MAX_LOGS, MAX_OF_SIGNER, MAX_REVOCATIONS, MAX_SEGMENTS, MAX_SIGNERS, RESERVED, Ranges, SegmentHeading,
    SegmentRefusal, has_expired,
    segment::{read, verify},
};
use crate::{ClusterId, NodeId, record::Keyring};
use p2p_proto::v1::{
    Revocation, RevocationPosition, RevocationPositions, RevocationSegment, revocation::What,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A segment that is kept.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) segment: Arc<RevocationSegment>,
    pub(super) entries: usize,
    pub(super) issued_at: u64,
    /// When the last of its entries expires; 0 for never.
    expires_at: u64,
}

/// One log of one coordinator.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    /// By first and last number. None lies within another.
    pub(super) held: BTreeMap<(u64, u64), Held>,
    /// Every number that is held or has expired.
    pub(super) covered: Ranges,
    /// Revocations in all that is held.
    entries: usize,
}

impl Log {
    /// Whether one segment that is held has all these numbers.
    fn contains(&self, first: u64, last: u64) -> bool {
        self.held.range(..=(first, u64::MAX)).any(|((_, held_last), _)| *held_last >= last)
    }

    /// The earliest signature that is kept; 0 if there is none.
    fn signed_since(&self) -> u64 {
        self.held.values().map(|held| held.issued_at).min().unwrap_or(0)
    }
}

/// Every live segment of every coordinator.
#[derive(Debug)]
pub struct Segments {
    pub(super) cluster: ClusterId,
    pub(super) logs: BTreeMap<(NodeId, u64), Log>,
}

impl Segments {
    /// None yet, of `cluster`.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, logs: BTreeMap::new() }
    }

    /// Merges one segment; `Some` with what it revokes if it was new, and should then be passed on.
    pub fn merge(
        &mut self,
        segment: RevocationSegment,
        unix_s: u64,
        keyring: &dyn Keyring,
    ) -> Result<Option<(SegmentHeading, Vec<Revocation>)>, SegmentRefusal> {
        let (heading, entries) = read(&segment, &self.cluster)?;
        if self.knows(&heading) {
            return Ok(None);
        }
        verify(&segment, &heading, unix_s, keyring)?;
        self.check_room(&heading.signer, heading.log, &entries)?;
        self.insert(&heading, segment, &entries);
        Ok(Some((heading, entries)))
    }

    /// Whether the coordinator that the segment names has signed it.
    pub fn is_genuine(&self, segment: &RevocationSegment, unix_s: u64, keyring: &dyn Keyring) -> bool {
        let heading = read(segment, &self.cluster).map(|(heading, _)| heading);
        heading.is_ok_and(|heading| verify(segment, &heading, unix_s, keyring).is_ok())
    }

    /// Takes back the numbers that this node had seen: what has expired is on no disk, and must not be numbered again.
    pub fn load_positions(&mut self, positions: &RevocationPositions) {
        for log in &positions.logs {
            let Ok(signer) = log.signer.parse::<NodeId>() else { continue };
            let covered = &mut self.logs.entry((signer, log.log)).or_default().covered;
            for range in log.held.iter().filter(|range| range.first <= range.last) {
                covered.add(range.first, range.last);
            }
        }
    }

    /// Takes back what this node has verified before and kept on its disk. All of it: the room for more was looked at when
    /// it came, and what a crash has left beside each other may be above that.
    pub fn load(&mut self, segment: RevocationSegment) -> Result<Option<Vec<Revocation>>, SegmentRefusal> {
        let (heading, entries) = read(&segment, &self.cluster)?;
        // After a crash what was folded may stand beside what it was folded into.
        let log = self.logs.get(&(heading.signer.clone(), heading.log));
        if log.is_some_and(|log| log.contains(heading.first, heading.last)) {
            return Ok(None);
        }
        self.insert(&heading, segment, &entries);
        Ok(Some(entries))
    }

    /// Whether the segment lies within one that is kept, has not been signed later than the very same one that is, or has
    /// expired here.
    fn knows(&self, heading: &SegmentHeading) -> bool {
        let Some(log) = self.logs.get(&(heading.signer.clone(), heading.log)) else { return false };
        if let Some(same) = log.held.get(&(heading.first, heading.last)) {
            return same.issued_at >= heading.issued_at;
        }
        if log.contains(heading.first, heading.last) {
            return true;
        }
        let overlapped =
            log.held.keys().any(|(first, last)| *first <= heading.last && *last >= heading.first);
        !overlapped && log.covered.covers(heading.first, heading.last)
    }

    pub(super) fn check_room(
        &self,
        signer: &NodeId,
        log: u64,
        entries: &[Revocation],
    ) -> Result<(), SegmentRefusal> {
        let full = |what| Err(SegmentRefusal::Full { named: signer.clone(), what });
        let of_signer = || self.logs.iter().filter(|((other, _), _)| other == signer);
        let held: usize = of_signer().map(|(_, log)| log.entries).sum();
        // Evictions have room when nothing else has: what a thief fills, an eviction must empty.
        let evicts = entries.iter().all(|entry| matches!(entry.what, Some(What::Node(_))));
        let (at_most, in_all) = match evicts {
            true => (MAX_OF_SIGNER + RESERVED, usize::MAX),
            false => (MAX_OF_SIGNER, MAX_REVOCATIONS),
        };
        if held + entries.len() > at_most || self.entries() + entries.len() > in_all {
            return full("number of revocations");
        }
        match self.logs.get(&(signer.clone(), log)) {
            Some(log) if log.held.len() >= MAX_SEGMENTS => full("number of segments"),
            Some(_) => Ok(()),
            None => {
                let signers: BTreeSet<&NodeId> = self.logs.keys().map(|(signer, _)| signer).collect();
                let logs = of_signer().count();
                if logs >= MAX_LOGS || (logs == 0 && signers.len() >= MAX_SIGNERS) {
                    return full("number of logs");
                }
                Ok(())
            }
        }
    }

    pub(super) fn insert(
        &mut self,
        heading: &SegmentHeading,
        segment: RevocationSegment,
        entries: &[Revocation],
    ) {
        let log = self.logs.entry((heading.signer.clone(), heading.log)).or_default();
        log.covered.add(heading.first, heading.last);
        let within: Vec<(u64, u64)> = log
            .held
            .range((heading.first, 0)..=(heading.last, u64::MAX))
            .map(|(range, _)| *range)
            .filter(|(_, last)| *last <= heading.last)
            .collect();
        for range in within {
            log.entries -= log.held.remove(&range).map_or(0, |held| held.entries);
        }
        let expires_at = match entries.iter().any(|entry| entry.expires_at == 0) {
            true => 0,
            false => entries.iter().map(|entry| entry.expires_at).max().unwrap_or(1),
        };
        log.entries += entries.len();
        let issued_at = heading.issued_at;
        let held = Held { segment: Arc::new(segment), entries: entries.len(), issued_at, expires_at };
        log.held.insert((heading.first, heading.last), held);
    }

    pub(super) fn remove_log(&mut self, signer: &NodeId, log: u64) -> Vec<Arc<RevocationSegment>> {
        let removed = self.logs.remove(&(signer.clone(), log)).unwrap_or_default();
        removed.held.into_values().map(|held| held.segment).collect()
    }

    /// What is kept under the numbers of `segment` instead of it.
    pub fn instead_of(&self, segment: &RevocationSegment) -> Vec<Arc<RevocationSegment>> {
        let Ok((heading, entries)) = read(segment, &self.cluster) else { return Vec::new() };
        let log = self.logs.get(&(heading.signer, heading.log));
        let held = log.into_iter().flat_map(|log| log.held.iter());
        held.filter(|((first, last), _)| *first <= heading.last && *last >= heading.first)
            .filter(|(_, held)| read(&held.segment, &self.cluster).is_ok_and(|(_, held)| held != entries))
            .map(|(_, held)| held.segment.clone())
            .collect()
    }

    /// Drops segments of which nothing forbids anything any more; nothing else does. Returns whether there were any.
    pub fn expire(&mut self, unix_s: u64) -> bool {
        let before = self.len();
        for log in self.logs.values_mut() {
            let entries = &mut log.entries;
            log.held.retain(|_, held| {
                let gone = has_expired(held.expires_at, unix_s);
                *entries -= if gone { held.entries } else { 0 };
                !gone
            });
        }
        self.len() != before
    }

    /// Number of segments.
    pub fn len(&self) -> usize {
        self.logs.values().map(|log| log.held.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of revocations in all segments.
    pub fn entries(&self) -> usize {
        self.logs.values().map(|log| log.entries).sum()
    }

    /// All segments, by coordinator, log and number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RevocationSegment>> {
        self.logs.values().flat_map(|log| log.held.values().map(|held| &held.segment))
    }

    /// What this node holds.
    pub fn positions(&self, reply_wanted: bool) -> RevocationPositions {
        let logs = self.logs.iter().map(|((signer, number), log)| RevocationPosition {
            signer: signer.to_string(),
            log: *number,
            held: log.covered.to_wire(),
            signed_since: log.signed_since(),
        });
        RevocationPositions { logs: logs.collect(), reply_wanted }
    }

    /// The segments that the sender of `theirs` lacks.
    pub fn lacking(&self, theirs: &RevocationPositions) -> Vec<Arc<RevocationSegment>> {
        let theirs: BTreeMap<(NodeId, u64), (Ranges, u64)> = theirs
            .logs
            .iter()
            .take(MAX_SIGNERS * MAX_LOGS)
            .filter_map(|log| {
                let held = Ranges::from_wire(&log.held);
                Some(((log.signer.parse().ok()?, log.log), (held, log.signed_since)))
            })
            .collect();
        let mut lacking = Vec::new();
        for (id, log) in &self.logs {
            let known = theirs.get(id);
            // All of ours was signed after some of theirs: by a certificate that they may have to show to others.
            let anew = known.is_some_and(|(_, since)| *since != 0 && log.signed_since() > *since);
            let lacks =
                |range: &(u64, u64)| anew || known.is_none_or(|(known, _)| !known.covers(range.0, range.1));
            let segments = log.held.iter().filter(|(range, _)| lacks(range));
            lacking.extend(segments.map(|(_, held)| held.segment.clone()));
        }
        lacking
    }
}
