//! What is refused, and how much of it all one coordinator may have.

use super::*;

#[test]
fn nobody_fills_the_room_of_the_others() {
    let mut store = store();
    let runs = u64::try_from(MAX_OF_SIGNER / MAX_ENTRIES).expect("small");
    let run = vec![token("t", 0); MAX_ENTRIES];
    for number in 0..runs {
        let first = number * 1024 + 1;
        let segment = seal("stolen", 1 + number % 2, (first, first + 1023), run.clone());
        assert_eq!(merge(&mut store, segment), Ok(true));
    }
    let over = seal("stolen", 3, (1, 1024), run.clone());
    assert!(matches!(merge(&mut store, over), Err(SegmentRefusal::Full { .. })));
    let (own, chain) = (node("stolen"), chain(Role::Coordinator, "stolen"));
    let refused = store.append(&own, run, START_MS, &TestKeyring::of(&own), &chain);
    assert!(matches!(refused, Err(SegmentRefusal::Full { .. })), "its own promise would be empty");
    assert_eq!(merge(&mut store, seal("c", 7, (1, 1), vec![token(1, 0)])), Ok(true));
    append(&mut store, "d", vec![token(2, 0)]);
    // An eviction always finds room.
    let eviction = NodeEviction { node_id: "w".into(), counter: 1, ..NodeEviction::default() };
    append(&mut store, "stolen", vec![Revocation { expires_at: 0, what: Some(What::Node(eviction)) }]);
}

#[test]
fn only_a_coordinator_revokes_and_only_for_itself() {
    let refused = |segment: RevocationSegment| merge(&mut store(), segment).expect_err("refused").reason();
    let good = || seal("c", 7, (1, 1), vec![token("t", 0)]);
    let with_chain = |role, name: &str| RevocationSegment { certificate_chain: chain(role, name), ..good() };
    assert_eq!(refused(with_chain(Role::Worker, "c")), "signer");
    assert_eq!(refused(with_chain(Role::Admin, "c")), "signer");
    assert_eq!(refused(with_chain(Role::TokenSigner, "c")), "signer");
    assert_eq!(refused(with_chain(Role::Coordinator, "d")), "untrusted", "the signature is c's");
    assert_eq!(refused(RevocationSegment { certificate_chain: vec![], ..good() }), "untrusted");
    assert_eq!(refused(RevocationSegment { signature: vec![0; 70].into(), ..good() }), "untrusted");
    // In the name of another coordinator, by one that may sign for itself.
    let body =
        RevocationBody { signer: "c".into(), ..RevocationBody::decode(&*good().body).expect("a body") };
    let body = body.encode_to_vec();
    let signature = TestKeyring::of(&node("d")).sign(&[SIGNATURE_CONTEXT, &body].concat());
    let forged = RevocationSegment {
        body: body.into(),
        signature: signature.into(),
        certificate_chain: chain(Role::Coordinator, "d"),
    };
    assert_eq!(refused(forged), "signer");
}

#[test]
fn malformed_segments_are_refused_and_change_nothing() {
    let good = RevocationBody {
        cluster_id: cluster().to_string(),
        signer: "c".into(),
        log: 7,
        first: 1,
        last: 1,
        issued_at: NOW,
        entries: vec![token("t", 0)],
    };
    let signed = |body: &RevocationBody| {
        let body = body.encode_to_vec();
        let signature = TestKeyring::of(&node("c")).sign(&[SIGNATURE_CONTEXT, &body].concat());
        let certificate_chain = chain(Role::Coordinator, "c");
        RevocationSegment { body: body.into(), signature: signature.into(), certificate_chain }
    };
    assert_eq!(merge(&mut store(), signed(&good)), Ok(true));
    let entry = |what| RevocationBody {
        entries: vec![Revocation { expires_at: 0, what: Some(what) }],
        ..good.clone()
    };
    let subject = SubjectRevocation { subject: String::new(), before: 1 };
    let bad: Vec<(RevocationBody, &str)> = vec![
        (RevocationBody { cluster_id: "elsewhere".into(), ..good.clone() }, "cluster"),
        (RevocationBody { signer: "not an id!".into(), ..good.clone() }, "malformed"),
        (RevocationBody { first: 0, ..good.clone() }, "malformed"),
        (RevocationBody { first: 2, ..good.clone() }, "malformed"),
        (RevocationBody { last: u64::MAX, ..good.clone() }, "malformed"),
        (RevocationBody { issued_at: NOW + 3600, ..good.clone() }, "ahead"),
        (RevocationBody { log: START_MS + 2 * 86_400_000, ..good.clone() }, "ahead"),
        (RevocationBody { entries: vec![token("t", 0); MAX_ENTRIES + 1], ..good.clone() }, "malformed"),
        (entry(What::Token(String::new())), "malformed"),
        (entry(What::Token("x".repeat(129))), "malformed"),
        (entry(What::Subject(subject)), "malformed"),
        (
            entry(What::Node(NodeEviction {
                node_id: "x".into(),
                counter: u64::MAX,
                readmitted: true,
                at: 0,
            })),
            "malformed",
        ),
        (entry(What::Node(NodeEviction { node_id: "../x".into(), ..NodeEviction::default() })), "malformed"),
    ];
    for (body, reason) in bad {
        let mut store = store();
        assert_eq!(merge(&mut store, signed(&body)).expect_err("refused").reason(), reason, "{body:?}");
        assert!(store.is_empty() && store.positions(false).logs.is_empty());
    }
    let garbage = RevocationSegment { body: vec![0xff; 40].into(), ..signed(&good) };
    assert_eq!(merge(&mut store(), garbage).expect_err("refused").reason(), "malformed");
    // Two minutes between the clocks are survived.
    assert_eq!(merge(&mut store(), signed(&RevocationBody { issued_at: NOW + 120, ..good })), Ok(true));
}

#[test]
fn a_coordinator_cannot_fill_the_store_with_logs() {
    let mut store = store();
    for log in 1..=MAX_LOGS as u64 {
        assert_eq!(merge(&mut store, seal("c", log, (1, 1), vec![token(log, 0)])), Ok(true));
    }
    let refused = merge(&mut store, seal("c", 99, (1, 1), vec![token("t", 0)]));
    assert_eq!(refused.expect_err("refused").reason(), "full");
    assert_eq!(merge(&mut store, seal("d", 99, (1, 1), vec![token("t", 0)])), Ok(true), "others have theirs");
}
