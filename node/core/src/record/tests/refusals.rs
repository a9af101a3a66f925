use super::{merge, seal, state, store};
use crate::{
    ClusterId, Epoch,
    record::{
        Keyring, MAX_OWNER_BYTES, MAX_OWNERS, MAX_RECORD_BYTES, MAX_RECORDS, MAX_STORE_BYTES, Merge, Refusal,
        SIGNATURE_CONTEXT,
    },
    testing::{START_MS, TestKeyring, certificate, node, records},
};
use p2p_proto::v1::{self, OwnerState, Record, RecordKind};
use proptest::prelude::*;
use prost::Message;

/// Gives `state` to a store that must refuse it and stay as it was; its message and its word for metrics.
fn refused(state: OwnerState) -> (String, &'static str) {
    let mut store = store();
    let refusal = merge(&mut store, state).expect_err("refused");
    assert_eq!(store.owners().count(), 0);
    assert_eq!(store.version(&node("a")), None);
    (refusal.to_string(), refusal.reason())
}

/// Changes the manifest of `state` and signs it again as `name`, as a faulty or lying owner could.
fn resigned(mut state: OwnerState, name: &str, change: impl FnOnce(&mut v1::Manifest)) -> OwnerState {
    let mut manifest = v1::Manifest::decode(&*state.manifest).expect("a manifest");
    change(&mut manifest);
    let manifest = manifest.encode_to_vec();
    let signed = [SIGNATURE_CONTEXT, &manifest].concat();
    state.signature = TestKeyring::of(&node(name)).sign(&signed).into();
    state.manifest = manifest.into();
    state
}

/// Adds a record to a good state, listed and signed.
fn with_record(kind: i32, name: &str, body: Vec<u8>) -> OwnerState {
    let mut state = state("a", 1, 1, &["x.A"]);
    let hash = TestKeyring::of(&node("a")).digest(&body).to_vec().into();
    state.records.push(Record { kind, name: name.into(), body: body.into() });
    resigned(state, "a", |manifest| {
        manifest.entries.push(v1::ManifestEntry { kind, name: name.into(), hash });
    })
}

#[test]
fn what_another_than_the_owner_signed_is_refused() {
    let by_b = resigned(state("b", 1, 1, &[]), "b", |manifest| manifest.owner = "a".into());
    let mut stolen = by_b;
    stolen.records[0].name = "a".into();
    let stolen = resigned(stolen, "b", |manifest| manifest.entries[0].name = "a".into());
    let expected = "the manifest of a is signed by spiffe://test/worker/b";
    assert_eq!(refused(stolen), (expected.into(), "owner"));

    let owner = node("a");
    let mut own = records(&owner, &[]);
    own.node.certificate_chain = vec![certificate("spiffe://test/admin/a", &[])];
    let expected = "the manifest of a is signed by spiffe://test/admin/a";
    assert_eq!(refused(seal(&own, &owner, 1, 1)), (expected.into(), "owner"), "an operator is no node");
}

#[test]
fn a_signature_or_certificate_that_does_not_hold_is_refused() {
    let mut state = state("a", 1, 1, &[]);
    state.signature = b"forged".as_slice().into();
    let expected = "the manifest of a is not to be trusted: the signature does not match";
    assert_eq!(refused(state), (expected.into(), "untrusted"));

    let owner = node("a");
    let mut own = records(&owner, &[]);
    own.node.certificate_chain.clear();
    let expected = "the manifest of a is not to be trusted: no certificate";
    assert_eq!(refused(seal(&own, &owner, 1, 1)), (expected.into(), "untrusted"));
}

#[test]
fn another_clusters_manifest_is_refused() {
    let (owner, other): (_, ClusterId) = (node("a"), "other".parse().expect("id"));
    let keyring = TestKeyring::of(&owner);
    let state = records(&owner, &[]).seal(&other, &owner, Epoch(1), 1, &keyring);
    let expected = "the manifest of \"a\" belongs to cluster \"other\", this is test";
    assert_eq!(refused(state), (expected.into(), "cluster"));
}

#[test]
fn records_that_are_not_those_of_the_manifest_are_refused() {
    let good = state("a", 1, 1, &["x.A", "x.B"]);
    let expected = ("the records of a are not those of its manifest".to_owned(), "records");
    let changes: [fn(&mut OwnerState); 6] = [
        |state| state.records[1].body = b"changed".as_slice().into(),
        |state| state.records[1].name = "x.C".into(),
        |state| state.records[1].kind = 7,
        |state| drop(state.records.pop()),
        |state| state.records.push(state.records[0].clone()),
        |state| state.records.swap(1, 2),
    ];
    for change in changes {
        let mut state = good.clone();
        change(&mut state);
        assert_eq!(refused(state), expected);
    }
}

#[test]
fn every_cap_of_an_owner_holds() {
    let owner = node("a");
    let too_large = |what: &str| (format!("the state of \"a\" is too large: {what}"), "too_large");

    let names: Vec<String> = (0..MAX_RECORDS).map(|index| format!("s.S{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(refused(state("a", 1, 1, &names)), too_large("number of records"));
    assert!(merge(&mut store(), state("a", 1, 1, &names[1..])).is_ok(), "as many as allowed");

    let mut own = records(&owner, &[]);
    own.node.zone = "z".repeat(MAX_RECORD_BYTES);
    assert_eq!(refused(seal(&own, &owner, 1, 1)), too_large("one record"));

    let mut own = records(&owner, &names[..9]);
    for service in &mut own.services {
        service.labels.insert("l".into(), "x".repeat(MAX_OWNER_BYTES / 9));
    }
    assert_eq!(refused(seal(&own, &owner, 1, 1)), too_large("all records together"));

    let mut state = state("a", 1, 1, &[]);
    state.manifest = vec![0; MAX_OWNER_BYTES + 1].into();
    assert_eq!(refused(state).0, "the state of \"\" is too large: manifest");
}

#[test]
fn a_full_store_takes_no_more_owners_but_still_updates() {
    let mut store = store();
    let owners = (0..MAX_OWNERS).map(|index| format!("n{index}"));
    for name in owners {
        merge(&mut store, state(&name, 1, 1, &[])).expect("there is room");
    }
    let refusal = merge(&mut store, state("a", 1, 1, &[])).expect_err("full");
    assert_eq!(refusal.to_string(), "the record store is full (number of owners); a cannot be added");
    assert_eq!(refusal.reason(), "full");
    assert_eq!(merge(&mut store, state("n5", 1, 2, &[])), Ok(Merge::New(node("n5"))));

    store.bytes = MAX_STORE_BYTES - 10;
    let refusal = merge(&mut store, state("n5", 1, 3, &["x.A"])).expect_err("full");
    assert_eq!(refusal.to_string(), "the record store is full (bytes); n5 cannot be added");
    assert_eq!(store.version(&node("n5")), Some((Epoch(1), 2)), "what was there stays");
}

#[test]
fn an_epoch_more_than_a_day_ahead_is_refused() {
    let highest = START_MS + Epoch::MAX_AHEAD_MS;
    let expected = "the epoch of a lies more than 24 h ahead of this node's clock";
    assert_eq!(refused(state("a", highest + 1, 1, &[])), (expected.into(), "epoch_ahead"));
    assert!(merge(&mut store(), state("a", highest, 1, &[])).is_ok());
}

#[test]
fn malformed_states_are_refused() {
    let (node_kind, service_kind) = (RecordKind::Node as i32, RecordKind::Service as i32);
    let garbage = || vec![0xff; 9];
    let mut no_manifest = state("a", 1, 1, &[]);
    no_manifest.manifest = garbage().into();
    let mut no_node = state("a", 1, 1, &["x.A"]);
    no_node.records.remove(0);
    let no_node = resigned(no_node, "a", |manifest| drop(manifest.entries.remove(0)));
    let other_name = v1::ServiceRecord { name: "x.Other".into(), ..Default::default() }.encode_to_vec();
    let twice = v1::ServiceRecord { name: "x.A".into(), ..Default::default() }.encode_to_vec();
    let bad_name = v1::ServiceRecord { name: "no name".into(), ..Default::default() }.encode_to_vec();
    for (state, why) in [
        (no_manifest, "manifest"),
        (resigned(state("a", 1, 1, &[]), "a", |manifest| manifest.owner = "A/B".into()), "owner"),
        (no_node, "no node record"),
        (with_record(node_kind, "a", garbage()), "node record"),
        (with_record(node_kind, "a", Vec::new()), "node record"),
        (with_record(node_kind, "b", Vec::new()), "node record"),
        (with_record(service_kind, "x.B", garbage()), "service record"),
        (with_record(service_kind, "x.B", other_name), "service record"),
        (with_record(service_kind, "x.A", twice), "service record"),
        (with_record(service_kind, "no name", bad_name), "service name"),
    ] {
        assert_eq!(refused(state), (format!("malformed: {why}"), "malformed"));
    }
}

#[test]
fn records_of_unknown_kinds_are_carried_along_unread() {
    let mut store = store();
    for (sequence, kind) in [(1, 0), (2, 77)] {
        let state = with_record(kind, "whatever this is", vec![0xff; 9]);
        let state = resigned(state, "a", |manifest| manifest.sequence = sequence);
        assert_eq!(merge(&mut store, state.clone()), Ok(Merge::New(node("a"))));
        let owner = store.get(&node("a")).expect("known");
        assert_eq!(*owner.state, state, "passed on as it came");
        assert_eq!(owner.view.services.len(), 1);
    }
}

proptest! {
    #[test]
    fn arbitrary_states_never_panic(
        manifest in proptest::collection::vec(any::<u8>(), 0..80),
        signature in proptest::collection::vec(any::<u8>(), 0..40),
        records in proptest::collection::vec((-1..4_i32, ".{0,8}", proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
    ) {
        let records = records
            .into_iter()
            .map(|(kind, name, body)| Record { kind, name, body: body.into() })
            .collect();
        let state = OwnerState { manifest: manifest.into(), signature: signature.into(), records };
        prop_assert!(merge(&mut store(), state).is_err());
    }

    #[test]
    fn a_good_state_with_any_byte_changed_is_refused(
        field in 0..3_usize,
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut state = state("a", 1, 1, &["x.A"]);
        let bytes = match field {
            0 => &mut state.manifest,
            1 => &mut state.signature,
            _ => &mut state.records[1].body,
        };
        let mut changed = bytes.to_vec();
        let at = at.index(changed.len());
        changed[at] ^= flip;
        *bytes = changed.into();
        let refusal: Refusal = merge(&mut store(), state).expect_err("refused");
        prop_assert!(!refusal.to_string().is_empty());
    }

    #[test]
    fn signed_nonsense_never_panics(body in proptest::collection::vec(any::<u8>(), 0..60), kind in -1..4_i32) {
        match merge(&mut store(), with_record(kind, "x.B", body)) {
            Ok(merged) => prop_assert_eq!(merged, Merge::New(node("a"))),
            Err(refusal) => prop_assert_eq!(refusal.reason(), "malformed"),
        }
    }
}
