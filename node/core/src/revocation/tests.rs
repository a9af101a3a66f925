//! Merging, folding, and what survives a crash.

mod bans;
mod refused;

use super::{
    EXPIRY_GRACE, MAX_ENTRIES, MAX_LOGS, MAX_OF_SIGNER, Ranges, SIGNATURE_CONTEXT, SegmentRefusal, Segments,
    has_expired, segment::Author,
};
use crate::{
    ClusterId, Role, SpiffeId,
    record::Keyring as _,
    testing::{START_MS, TestKeyring, certificate, cluster, node},
};
use bytes::Bytes;
use p2p_proto::v1::{
    NodeEviction, Revocation, RevocationBody, RevocationPositions, RevocationRange, RevocationSegment,
    SubjectRevocation, revocation::What,
};
use proptest::prelude::*;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

const NOW: u64 = START_MS / 1000;

fn chain(role: Role, name: &str) -> Vec<Bytes> {
    vec![certificate(&SpiffeId::new(cluster(), role, node(name)).to_string(), &[])]
}

fn token(id: impl ToString, expires_at: u64) -> Revocation {
    Revocation { expires_at, what: Some(What::Token(id.to_string())) }
}

fn seal(name: &str, log: u64, range: (u64, u64), entries: Vec<Revocation>) -> RevocationSegment {
    let (cluster, signer) = (cluster(), node(name));
    let author = Author {
        cluster: &cluster,
        signer: &signer,
        keyring: &TestKeyring::of(&signer),
        chain: &chain(Role::Coordinator, name),
        unix_s: NOW,
    };
    author.seal(log, range.0, range.1, entries)
}

fn merge(store: &mut Segments, segment: RevocationSegment) -> Result<bool, SegmentRefusal> {
    let merged = store.merge(segment, NOW, &TestKeyring::of(&node("reader")));
    merged.map(|new| new.is_some())
}

fn store() -> Segments {
    Segments::new(cluster())
}

fn tokens(store: &Segments) -> BTreeSet<String> {
    let bodies = store.iter().map(|segment| RevocationBody::decode(&*segment.body).expect("a body"));
    let entries = bodies.flat_map(|body| body.entries);
    entries
        .filter_map(|entry| match entry.what {
            Some(What::Token(id)) => Some(id),
            Some(What::Subject(_) | What::Node(_)) | None => None,
        })
        .collect()
}

fn append(store: &mut Segments, name: &str, entries: Vec<Revocation>) {
    let own = node(name);
    let chain = chain(Role::Coordinator, name);
    store.append(&own, entries, START_MS, &TestKeyring::of(&own), &chain).expect("signed");
}

fn fold(store: &mut Segments, name: &str, unix_ms: u64) -> usize {
    let (own, chain) = (node(name), chain(Role::Coordinator, name));
    let expired = |entry: &Revocation| has_expired(entry.expires_at, unix_ms / 1000);
    store.fold(&own, unix_ms, &TestKeyring::of(&own), &chain, &expired).expect("folded").len()
}

#[test]
fn a_segment_replaces_what_lies_within_its_range_and_nothing_else() {
    let mut store = store();
    for number in 1..=4 {
        assert_eq!(merge(&mut store, seal("c", 7, (number, number), vec![token(number, 0)])), Ok(true));
    }
    assert_eq!(merge(&mut store, seal("c", 7, (2, 2), vec![token(2, 0)])), Ok(false), "known");
    assert_eq!(merge(&mut store, seal("c", 7, (1, 3), vec![token(1, 0), token(3, 0)])), Ok(true));
    assert_eq!(tokens(&store), ["1", "3", "4"].map(str::to_owned).into(), "2 was left out by its owner");
    assert_eq!(merge(&mut store, seal("c", 7, (2, 2), vec![token(2, 0)])), Ok(false), "and stays out");
    assert_eq!((store.len(), store.entries()), (2, 3));
    assert_eq!(merge(&mut store, seal("c", 8, (1, 1), vec![token(9, 0)])), Ok(true), "another log");
    assert_eq!(merge(&mut store, seal("d", 7, (1, 9), vec![])), Ok(true), "another coordinator");
    assert!(tokens(&store).contains("4"));
}

#[test]
fn what_has_expired_is_dropped_after_a_grace_and_an_old_copy_is_no_news() {
    let mut store = store();
    let segment = seal("c", 7, (1, 1), vec![token("t", NOW + 5)]);
    assert_eq!(merge(&mut store, segment.clone()), Ok(true));
    assert!(!store.expire(NOW + 5 + EXPIRY_GRACE.as_secs() - 1));
    assert!(store.expire(NOW + 5 + EXPIRY_GRACE.as_secs()));
    assert!(store.is_empty() && store.entries() == 0);
    assert_eq!(merge(&mut store, segment), Ok(false));
    // Nobody who still holds it sends it again.
    assert_eq!(store.positions(true).logs[0].held, [RevocationRange { first: 1, last: 1 }]);
    let forever = seal("c", 7, (2, 2), vec![token("t", NOW + 5), token("u", 0)]);
    assert_eq!(merge(&mut store, forever), Ok(true));
    assert!(!store.expire(u64::MAX), "one entry holds for ever");
}

#[test]
fn others_are_sent_what_they_lack() {
    let mut store = store();
    append(&mut store, "c", vec![token("a", 0)]);
    let first = store.positions(false);
    append(&mut store, "c", vec![token("b", 0), token("c", 0)]);
    let lacking = |store: &Segments, theirs: &RevocationPositions| {
        let sent = store.lacking(theirs).into_iter().map(|segment| (*segment).clone());
        let mut theirs = self::store();
        sent.for_each(|segment| assert_eq!(merge(&mut theirs, segment), Ok(true)));
        tokens(&theirs)
    };
    assert_eq!(lacking(&store, &first), ["b", "c"].map(str::to_owned).into());
    assert_eq!(lacking(&store, &RevocationPositions::default()).len(), 3);
    assert!(store.lacking(&store.positions(true)).is_empty());
    // Nonsense of a peer is passed over.
    let mut nonsense = store.positions(true);
    nonsense.logs[0].held =
        vec![RevocationRange { first: 9, last: 1 }, RevocationRange { first: 0, last: 1 }];
    nonsense.logs.push(p2p_proto::v1::RevocationPosition {
        signer: "///".into(),
        log: 1,
        held: vec![],
        signed_since: 0,
    });
    assert_eq!(lacking(&store, &nonsense), ["b", "c"].map(str::to_owned).into());
}

#[test]
fn many_at_once_become_full_segments_and_many_small_ones_are_folded() {
    let mut store = store();
    append(&mut store, "c", (0..2500).map(|number| token(number, 0)).collect());
    assert_eq!((store.len(), store.entries()), (3, 2500));
    for number in 0..100 {
        append(&mut store, "c", vec![token(format!("s{number}"), if number < 50 { NOW + 1 } else { 0 })]);
    }
    append(&mut store, "d", vec![token("other", 0)]);
    let later = START_MS + 1000 * (2 + EXPIRY_GRACE.as_secs());
    assert_eq!(
        fold(&mut store, "c", later),
        1,
        "the last of the first three, and all small ones, become one"
    );
    assert_eq!((store.len(), store.entries()), (4, 2551), "without those that had expired");
    assert!(tokens(&store).contains("s99") && !tokens(&store).contains("s1"));
    assert_eq!(fold(&mut store, "c", later), 0);
    // A reader that had some of it, in any order, ends with the same.
    let mut reader = self::store();
    for segment in store.iter() {
        let merged = reader.merge((**segment).clone(), later / 1000, &TestKeyring::of(&node("reader")));
        assert!(merged.expect("good").is_some());
    }
    assert_eq!(tokens(&reader), tokens(&store));
}

#[test]
fn numbers_used_twice_are_noticed_and_signed_anew() {
    let (own, keyring) = (node("c"), TestKeyring::of(&node("c")));
    let mut store = store();
    append(&mut store, "c", vec![token("a", 0)]);
    let log = store.positions(false).logs[0].log;
    assert!(!store.contradicts(&own, &seal("c", log, (2, 2), vec![token("x", 0)]), NOW), "merely news");
    assert!(!store.contradicts(&own, &seal("d", log, (1, 1), vec![token("x", 0)]), NOW), "another's");
    assert!(store.contradicts(&own, &seal("c", log, (1, 1), vec![token("x", 0)]), NOW));
    assert!(store.contradicts(&own, &seal("c", log, (1, 2), vec![token("x", 0)]), NOW));
    let made = store.reopen(&own, START_MS, &keyring, &chain(Role::Coordinator, "c")).expect("signed");
    assert_eq!(made.len(), 1);
    assert_eq!(merge(&mut store, seal("c", log, (1, 2), vec![token("x", 0)])), Ok(true));
    assert_eq!(tokens(&store), ["a", "x"].map(str::to_owned).into());
    append(&mut store, "c", vec![token("b", 0)]);
    assert_eq!(
        store.positions(false).logs[1].held,
        [RevocationRange { first: 1, last: 2 }],
        "it goes on in the new log"
    );
}

#[test]
fn what_was_folded_before_a_crash_is_no_contradiction() {
    let own = node("c");
    let mut store = store();
    for number in 0..64 {
        append(&mut store, "c", vec![token(number, 0)]);
    }
    let on_disk: Vec<_> = store.iter().cloned().collect();
    assert_eq!(fold(&mut store, "c", START_MS), 1);
    let folded = store.iter().next().expect("one").clone();
    // The crash: others hold what was folded, this disk what it was made of.
    let mut restarted = self::store();
    for segment in &on_disk {
        restarted.load((**segment).clone()).expect("its own").expect("kept");
    }
    assert!(!restarted.contradicts(&own, &folded, NOW));
    let held = tokens(&restarted);
    assert_eq!(merge(&mut restarted, (*folded).clone()), Ok(true));
    assert_eq!((tokens(&restarted), restarted.len()), (held, 1));
    // The crash came later: both are on this disk.
    for segment in on_disk {
        assert_eq!(restarted.load((*segment).clone()), Ok(None));
    }
    assert_eq!((restarted.len(), restarted.entries()), (1, 64));
}

#[test]
fn all_that_is_on_disk_is_taken_back() {
    let mut restarted = store();
    for log in 1..=MAX_LOGS as u64 + 1 {
        let kept = restarted.load(seal("c", log, (1, 1), vec![token(log, 0)]));
        assert!(kept.expect("its own").is_some());
    }
    assert_eq!(restarted.entries(), MAX_LOGS + 1);
}

#[test]
fn numbers_of_what_has_expired_are_not_used_again_after_a_restart() {
    let mut store = store();
    append(&mut store, "c", vec![token("long", 0)]);
    append(&mut store, "c", vec![token("short", NOW + 5)]);
    store.expire(NOW + 3600);
    let (kept, positions) = (store.iter().cloned().collect::<Vec<_>>(), store.positions(false));
    let mut restarted = self::store();
    restarted.load_positions(&positions);
    for segment in kept {
        restarted.load((*segment).clone()).expect("its own").expect("kept");
    }
    append(&mut restarted, "c", vec![token("next", 0)]);
    assert_eq!(restarted.positions(false).logs[0].held, [RevocationRange { first: 1, last: 3 }]);
}

#[test]
fn another_certificate_signs_the_whole_log_anew_and_the_later_signature_wins_everywhere() {
    let own = node("c");
    let mut store = store();
    append(&mut store, "c", vec![token("a", 0)]);
    append(&mut store, "c", vec![token("b", 0)]);
    let mut reader = self::store();
    for segment in store.iter() {
        assert_eq!(merge(&mut reader, (**segment).clone()), Ok(true));
    }
    let old: Vec<RevocationSegment> = reader.iter().map(|segment| (**segment).clone()).collect();
    let (keyring, later) = (TestKeyring::of(&own), START_MS + 60_000);
    let same = store.sign_anew(&own, later, &keyring, &chain(Role::Coordinator, "c")).expect("signed");
    assert!(same.is_empty(), "nothing has changed");
    let renewed = [chain(Role::Coordinator, "c"), vec![Bytes::from_static(b"another CA")]].concat();
    let made = store.sign_anew(&own, later, &keyring, &renewed).expect("signed");
    assert_eq!((made.len(), store.len(), store.entries()), (2, 2, 2));
    // A reader that missed the push is sent all of it once, and then nothing.
    let sent = store.lacking(&reader.positions(false));
    assert_eq!(sent.len(), 2);
    for segment in sent {
        assert_eq!(merge(&mut reader, (*segment).clone()), Ok(true));
    }
    assert!(store.lacking(&reader.positions(false)).is_empty());
    for segment in old {
        assert_eq!(merge(&mut reader, segment), Ok(false), "the earlier signature does not come back");
    }
    assert!(reader.iter().all(|segment| segment.certificate_chain == renewed));
    assert!(!store.contradicts(&own, &made[0], NOW), "the same words are no contradiction");
}

/// A history of one coordinator: what it appended, and when it folded.
fn history() -> impl Strategy<Value = Vec<RevocationSegment>> {
    proptest::collection::vec((1_usize..4, any::<bool>()), 1..80).prop_map(|steps| {
        let (mut store, mut all, mut number) = (store(), Vec::new(), 0);
        for (count, folds) in steps {
            let entries = (0..count).map(|offset| token(number + offset, 0)).collect();
            number += count;
            append(&mut store, "c", entries);
            if folds {
                fold(&mut store, "c", START_MS);
            }
            all.extend(store.iter().map(|segment| (**segment).clone()));
        }
        all
    })
}

proptest! {
    #[test]
    fn merging_is_commutative_and_idempotent(segments in history(), seed in any::<u64>()) {
        use rand::{SeedableRng as _, seq::SliceRandom as _};
        let merged = |segments: &[RevocationSegment]| {
            let mut store = store();
            for segment in segments {
                merge(&mut store, segment.clone()).expect("good");
            }
            let kept: Vec<RevocationSegment> = store.iter().map(|segment| (**segment).clone()).collect();
            (kept, store.entries(), store.positions(false))
        };
        let mut shuffled = [segments.clone(), segments.clone()].concat();
        shuffled.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
        prop_assert_eq!(merged(&segments), merged(&shuffled));
    }

    #[test]
    fn ranges_are_the_sets_that_they_stand_for(runs in proptest::collection::vec((0_u64..60, 0_u64..12), 0..20)) {
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for (first, length) in runs {
            ranges.add(first, first + length);
            set.extend(first..=first + length);
        }
        for first in 0..75 {
            for last in first..75 {
                prop_assert_eq!(ranges.covers(first, last), (first..=last).all(|number| set.contains(&number)));
            }
        }
        prop_assert_eq!(ranges.highest(), set.last().copied());
        prop_assert_eq!(Ranges::from_wire(&ranges.to_wire()), ranges);
    }

    /// Whatever bytes come in place of a segment, nothing panics and nothing is kept.
    #[test]
    fn arbitrary_bytes_are_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut store = store();
        let certificate_chain = chain(Role::Coordinator, "c");
        let segment = RevocationSegment { body: body.into(), signature: Bytes::new(), certificate_chain };
        prop_assert!(merge(&mut store, segment).is_err() && store.is_empty());
    }
}

#[test]
fn unknown_kinds_of_a_newer_release_are_carried_along() {
    let mut store = store();
    assert_eq!(
        merge(&mut store, seal("c", 7, (1, 1), vec![Revocation { expires_at: 0, what: None }])),
        Ok(true)
    );
    let map: BTreeMap<ClusterId, usize> = [(cluster(), store.len())].into();
    assert_eq!(map.values().sum::<usize>(), 1);
}
