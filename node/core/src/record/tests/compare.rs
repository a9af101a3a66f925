//! Two stores find what either lacks.

use super::{merge, state, store};
use crate::{
    NodeId,
    record::{Merge, Store},
    testing::{TestKeyring, node},
};
use p2p_proto::v1::{
    Digest, DigestEntries, DigestEntry, DigestRange, OwnerState, OwnerStates, digest_range::Content,
};
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeSet;

fn keyring() -> TestKeyring {
    TestKeyring::of(&node("reader"))
}

fn digest(store: &mut Store) -> Digest {
    store.digest(&keyring())
}

/// What an exchange cost.
#[derive(Debug, Default)]
struct Cost {
    /// Digests, both ways.
    messages: usize,
    digest_bytes: usize,
    state_bytes: usize,
    states: usize,
}

/// Lets `b` answer `first` of `a`, and both go on until nothing is left to say.
fn exchange(a: &mut Store, b: &mut Store, first: Digest) -> Cost {
    let mut cost = Cost::default();
    let (mut stores, mut digest) = ([b, a], first);
    while !digest.ranges.is_empty() {
        cost.messages += 1;
        cost.digest_bytes += digest.encoded_len();
        let [reader, sender] = &mut stores;
        let found = reader.compare(&digest, &keyring());
        let to_sender = states_of(reader, &found.newer_here);
        let to_reader = states_of(sender, &found.newer_there);
        for (store, states) in [(sender, to_sender), (reader, to_reader)] {
            cost.states += states.len();
            cost.state_bytes += OwnerStates { states: states.clone(), answer: true }.encoded_len();
            for state in states {
                assert!(matches!(merge(store, state), Ok(Merge::New(_))), "nothing is sent in vain");
            }
        }
        digest = Digest { ranges: found.ranges, ..Digest::default() };
        stores.reverse();
    }
    cost
}

fn states_of(store: &Store, owners: &BTreeSet<NodeId>) -> Vec<OwnerState> {
    owners.iter().map(|owner| (*store.get(owner).expect("offered").state).clone()).collect()
}

fn versions(store: &Store) -> Vec<(String, u64, u64, Vec<u8>)> {
    let owners = store.owners();
    owners
        .map(|(name, owner)| (name.to_string(), owner.epoch.0, owner.sequence, owner.hash.to_vec()))
        .collect()
}

fn many(count: usize) -> Store {
    let mut store = store();
    for number in 0..count {
        merge(&mut store, state(&format!("n{number}"), 1, 1, &["demo.S"])).expect("good");
    }
    store
}

#[test]
fn equal_stores_exchange_one_hash() {
    let (mut a, mut b) = (many(1000), many(1000));
    let first = digest(&mut a);
    let cost = exchange(&mut a, &mut b, first);
    assert_eq!((cost.messages, cost.states), (1, 0));
    assert!(cost.digest_bytes <= 32, "{cost:?}");
}

#[test]
fn one_record_among_ten_thousand_is_repaired_within_4_kib() {
    let (mut a, mut b) = (many(10_000), many(10_000));
    merge(&mut a, state("n77", 1, 2, &["demo.S", "demo.T"])).expect("good");
    let first = digest(&mut a);
    let cost = exchange(&mut a, &mut b, first);
    println!("{cost:?}");
    assert_eq!(cost.states, 1);
    assert!(cost.digest_bytes + cost.state_bytes <= 4096, "{cost:?}");
    assert_eq!(versions(&a), versions(&b));
}

#[test]
fn whoever_has_few_is_sent_everything_at_once() {
    let (mut new, mut old) = (store(), many(300));
    merge(&mut new, state("newcomer", 1, 1, &[])).expect("good");
    let first = new.opening(&keyring());
    let found = old.compare(&first, &keyring());
    assert_eq!((found.newer_here.len(), found.newer_there.len()), (300, 1));
    assert!(found.ranges.is_empty());
    assert!(matches!(old.opening(&keyring()).ranges[0].content, Some(Content::Hash(_))), "it has many");
}

#[test]
fn what_was_purged_is_not_sent() {
    let (mut a, mut b) = (many(40), many(40));
    let n5 = node("n5");
    a.purge(&n5, &keyring());
    let first = digest(&mut a);
    let cost = exchange(&mut a, &mut b, first);
    assert_eq!(cost.states, 0, "{cost:?}");
    let first = digest(&mut b);
    assert_eq!(exchange(&mut b, &mut a, first).states, 0);
    assert!(a.get(&n5).is_none());
    // What is newer than what was purged is news.
    merge(&mut b, state("n5", 1, 2, &[])).expect("good");
    let first = digest(&mut a);
    assert_eq!(exchange(&mut a, &mut b, first).states, 1);
}

#[test]
fn banned_owners_are_not_compared() {
    let (mut a, mut b) = (many(40), many(40));
    merge(&mut a, state("evil", 1, 1, &[])).expect("good");
    assert_ne!(digest(&mut a), digest(&mut b));
    let banned: BTreeSet<NodeId> = [node("evil")].into();
    a.set_banned(banned.clone(), &keyring());
    b.set_banned(banned, &keyring());
    assert_eq!(digest(&mut a), digest(&mut b));
    merge(&mut a, state("evil", 1, 2, &[])).expect("the caller's to refuse");
    assert_eq!(digest(&mut a), digest(&mut b));
    a.set_banned(BTreeSet::new(), &keyring());
    assert_ne!(digest(&mut a), digest(&mut b), "readmitted");
}

#[test]
fn nonsense_is_passed_over() {
    let mut store = many(40);
    let range = |depth, digits, content| DigestRange { depth, digits, content: Some(content) };
    let entry = |owner: &str, hash: &[u8]| DigestEntry {
        owner: owner.into(),
        epoch: 9,
        sequence: 9,
        hash: hash.to_vec().into(),
    };
    let entries = |entries| Content::Entries(DigestEntries { entries });
    for odd in [
        range(16, 0, Content::Hash(vec![1; 16].into())),
        range(u32::MAX, u64::MAX, Content::Hash(vec![].into())),
        range(1, 1, Content::Hash(vec![1; 16].into())),
        range(0, 0, Content::Parts(vec![1; 255].into())),
        range(0, 0, Content::Parts(vec![1; 16].into())),
        DigestRange { depth: 0, digits: 0, content: None },
    ] {
        let found = store.compare(&Digest { ranges: vec![odd.clone()], ..Digest::default() }, &keyring());
        assert_eq!(
            (found.ranges.len(), found.newer_here.len(), found.newer_there.len()),
            (0, 0, 0),
            "{odd:?}"
        );
    }
    let odd = vec![entry("NOT AN ID", &[1; 16]), entry("n1", &[1; 15])];
    let found =
        store.compare(&Digest { ranges: vec![range(0, 0, entries(odd))], ..Digest::default() }, &keyring());
    assert_eq!((found.newer_here.len(), found.newer_there.len()), (40, 0));
    // What is asked again and again is answered once, whole or in part.
    for content in [Content::Hash(vec![1; 16].into()), Content::Parts(vec![1; 256].into()), entries(vec![])] {
        let mut ranges = vec![range(0, 0, content.clone()); 100];
        ranges.push(range(1, 0, content.clone()));
        let one = store.compare(&Digest { ranges: ranges[..1].to_vec(), ..Digest::default() }, &keyring());
        assert_eq!(store.compare(&Digest { ranges, ..Digest::default() }, &keyring()), one, "{content:?}");
    }
    // And what lies beyond one message of ours is not looked at.
    let ranges = (0..4096_u64).map(|part| range(3, part << 52, Content::Parts(vec![1; 256].into())));
    let found = store.compare(&Digest { ranges: ranges.collect(), ..Digest::default() }, &keyring());
    assert!(found.ranges.len() <= 1024 + 16, "{}", found.ranges.len());
}

/// Some owners' states, with a few that differ under one number.
fn any_states() -> impl Strategy<Value = Vec<OwnerState>> {
    let one = (0..200_usize, 1..3_u64, 1..3_u64, 0..2_u8).prop_map(|(owner, epoch, sequence, variant)| {
        state(&format!("n{owner}"), epoch, sequence, &[&format!("s.V{variant}")])
    });
    proptest::collection::vec(one, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_stores_that_answer_each_other_become_equal(a in any_states(), b in any_states(), opening: bool) {
        let (mut one, mut other) = (store(), store());
        for (store, states) in [(&mut one, a), (&mut other, b)] {
            for state in states {
                merge(store, state).expect("good");
            }
        }
        let first = if opening { one.opening(&keyring()) } else { one.digest(&keyring()) };
        let cost = exchange(&mut one, &mut other, first);
        prop_assert!(cost.messages <= 5, "{:?}", cost);
        prop_assert_eq!(versions(&one), versions(&other));
        prop_assert_eq!(one.digest(&keyring()), other.digest(&keyring()));
    }

    #[test]
    fn the_tree_is_of_what_is_held_in_whatever_order_it_came(
        (states, shuffled) in any_states().prop_flat_map(|states| (Just(states.clone()), Just(states).prop_shuffle())),
    ) {
        let (mut one, mut other) = (store(), store());
        for state in states {
            merge(&mut one, state).expect("good");
            // Hashes that are asked for in between are forgotten where they change.
            one.digest(&keyring());
        }
        for state in shuffled {
            merge(&mut other, state).expect("good");
        }
        prop_assert_eq!(one.digest(&keyring()), other.digest(&keyring()));
    }
}
