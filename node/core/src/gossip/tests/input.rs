//! What one engine makes of single inputs, good and bad.

use super::super::states::REFUSED_OF_ONE;
use super::super::{
    Effect, Engine, EngineConfig, Event, FrameError, IntervalSettings, Peer, QUEUE_LIMIT, decode, fan_out,
    hello, negotiate,
};
use crate::{
    Epoch, Moment,
    membership::Identity,
    record::OwnRecords,
    testing::{START_MS, TestKeyring, at_ms, cluster, life, node, records},
};
use bytes::Bytes;
use p2p_proto::v1::{
    self, Digest, DigestEntries, DigestEntry, DigestRange, MemberState, OwnerState, OwnerStates, Record,
    StatesRequest, digest_range::Content, gossip_message::Kind,
};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use std::{sync::Arc, time::Duration};

fn engine(own: Identity) -> Engine {
    let config =
        EngineConfig { cluster: cluster(), interval: IntervalSettings::fixed(Duration::from_secs(1)) };
    let keyring = Arc::new(TestKeyring::of(&own.node));
    let name = own.node.clone();
    let mut engine = Engine::new(config, own, START_MS, keyring, StdRng::seed_from_u64(1));
    engine.publish(at_ms(0), START_MS, records(&name, &["demo.S"])).expect("good");
    engine.settle(at_ms(0), START_MS);
    engine
}

fn drain(engine: &mut Engine) -> (Vec<Effect>, Vec<Event>) {
    let effects = std::iter::from_fn(|| engine.next_effect()).collect();
    (effects, std::iter::from_fn(|| engine.next_event()).collect())
}

fn sealed(own: &OwnRecords, name: &str, epoch: u64, sequence: u64) -> OwnerState {
    let owner = node(name);
    own.seal(&cluster(), &owner, Epoch(START_MS + epoch), sequence, &TestKeyring::of(&owner))
}

/// A state of `name`, started `epoch` ms after the tests.
fn state(name: &str, epoch: u64, sequence: u64) -> OwnerState {
    sealed(&records(&node(name), &["demo.S"]), name, epoch, sequence)
}

fn states(states: Vec<OwnerState>) -> Kind {
    Kind::States(OwnerStates { states, answer: false })
}

fn receive(engine: &mut Engine, now: Moment, message: Kind) {
    engine.receive(now, START_MS, &node("n1"), message).expect("taken");
    engine.settle(now, START_MS);
}

/// What n1's hello says to n0.
fn peer(known_epoch: Option<Epoch>) -> Peer {
    let (n0, n1) = (life("n0", 0, 1000), life("n1", 0, 1001));
    negotiate(&cluster(), &n0.node, &n1.node, &hello(&cluster(), &n1, known_epoch)).expect("agrees")
}

#[test]
fn a_hello_in_the_middle_of_a_stream_is_an_error() {
    let mut engine = engine(life("n0", 0, 1000));
    let hello = Kind::Hello(hello(&cluster(), &life("n1", 0, 1001), None));
    let error = engine.receive(at_ms(0), START_MS, &node("n1"), hello).expect_err("refused");
    assert!(matches!(error, FrameError::Unexpected("hello")));
    let unknown = [0x92, 0x3f, 0x01, 0x00];
    assert_eq!(decode(&unknown).expect("well formed"), None, "a kind of a newer release is passed over");
}

#[test]
fn a_node_that_hears_much_gossip_compares_less_often() {
    let seconds = Duration::from_secs;
    let interval = IntervalSettings::new(seconds(5), seconds(10), seconds(30));
    let (own, config) = (life("n0", 0, 1000), EngineConfig { cluster: cluster(), interval });
    let keyring = Arc::new(TestKeyring::of(&own.node));
    let mut engine = Engine::new(config, own, START_MS, keyring, StdRng::seed_from_u64(1));
    engine.tick(at_ms(0));
    let n1 = node("n1");
    for ms in 1..=1_000 {
        engine.receive(at_ms(ms), START_MS, &n1, Kind::Membership(Bytes::new())).expect_err("no packet");
    }
    for ms in 1_001..=1_299 {
        engine.receive(at_ms(ms), START_MS, &n1, Kind::Digest(Digest::default())).expect("taken");
    }
    engine.received_elsewhere();
    engine.tick(at_ms(59_999));
    assert_eq!((engine.interval(), engine.load()), (seconds(10), 0.0));
    assert!(engine.next_deadline() <= at_ms(60_000));
    engine.tick(at_ms(60_000));
    assert_eq!((engine.interval(), engine.load()), (seconds(12), 5.0));
}

#[test]
fn records_of_one_who_is_no_member_show_up_as_down_after_a_while() {
    let mut engine = engine(life("n0", 0, 1000));
    receive(&mut engine, at_ms(0), states(vec![state("n9", 0, 1)]));
    assert!(!engine.members().contains_key(&node("n9")));
    engine.tick(at_ms(11_000));
    engine.settle(at_ms(11_000), START_MS + 11_000);
    let member = &engine.members()[&node("n9")];
    assert_eq!((member.state, member.address), (MemberState::Down, None));
    assert!(!member.serves());
    assert_eq!(engine.view().count(MemberState::Alive), 1, "this node itself");
}

#[test]
fn records_of_a_later_start_are_not_paired_with_the_address_of_the_one_before() {
    let mut net = super::Net::joined(3, 1);
    let newer = state("n1", 900, 1);
    net.with(0, |engine, now, unix_ms| {
        engine.receive(now, unix_ms, &node("n2"), states(vec![newer])).expect("taken");
    });
    let member = &net.processes[0].engine.members()[&node("n1")];
    assert_eq!((member.epoch, member.address), (Epoch(START_MS + 900), None));
}

#[test]
fn refused_states_are_reported_with_their_sender_and_the_good_ones_kept() {
    let mut engine = engine(life("n0", 0, 1000));
    drain(&mut engine);
    let mut forged = state("n5", 0, 1);
    forged.signature = b"x".as_slice().into();
    let reserved = sealed(&records(&node("n6"), &["p2p.v1.Admin"]), "n6", 0, 1);
    receive(&mut engine, at_ms(0), states(vec![forged, reserved, state("n7", 0, 1)]));
    let (_, events) = drain(&mut engine);
    assert!(matches!(&events[0], Event::Refused { from, .. } if *from == node("n1")));
    let services = vec!["p2p.v1.Admin".to_owned()];
    assert_eq!(events[1], Event::NotGranted { owner: node("n6"), services });
    assert_eq!(engine.known_epoch(&node("n7")), Some(Epoch(START_MS)));
    assert_eq!(engine.known_epoch(&node("n5")), None);
}

#[test]
fn records_that_cannot_be_published_leave_the_ones_before_in_place() {
    let mut engine = engine(life("n0", 0, 1000));
    let mut huge = records(&node("n0"), &["demo.S"]);
    huge.node.zone = "z".repeat(crate::record::MAX_RECORD_BYTES + 1);
    engine.tick(at_ms(5));
    assert!(engine.publish(at_ms(5), START_MS, huge).is_err());
    // Taking a higher epoch publishes again what was good.
    engine.connected(at_ms(6), &peer(Some(Epoch(START_MS + 50))));
    engine.settle(at_ms(6), START_MS);
    let (effects, events) = drain(&mut engine);
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::PersistEpoch(Epoch(e)) if *e == START_MS + 51))
    );
    assert!(!events.iter().any(|event| matches!(event, Event::Refused { .. })), "{events:?}");
    let own = &engine.members()[&node("n0")];
    assert!(own.current && own.records.node.zone.is_empty());
    engine.tick(at_ms(6));
    let redials = drain(&mut engine).0.into_iter().any(|effect| matches!(effect, Effect::DialSeeds));
    assert!(redials, "whoever heard the announce of the earlier life ignored it");
}

#[test]
fn a_told_epoch_is_ignored_if_it_is_ours_older_or_absurd() {
    for told in [None, Some(0), Some(START_MS), Some(u64::MAX), Some(START_MS + Epoch::MAX_AHEAD_MS + 1)] {
        let mut engine = engine(life("n0", 0, 1000));
        engine.connected(at_ms(1), &peer(told.map(Epoch)));
        engine.settle(at_ms(1), START_MS);
        assert_eq!(engine.own().epoch, Epoch(START_MS), "told {told:?}");
    }
}

/// Three conflicts within a minute silence a node for a minute; words alone must not.
#[test]
fn claims_of_a_later_life_that_nobody_proves_do_not_silence_a_node() {
    let mut engine = engine(life("n0", 0, 1000));
    drain(&mut engine);
    let mut raised = 0;
    for round in 1..=100_u64 {
        let now = at_ms(round * 100);
        let told = Epoch(engine.own().epoch.0 + 1);
        engine.connected(now, &peer(Some(told)));
        engine.settle(now, START_MS);
        let (effects, events) = drain(&mut engine);
        assert!(!events.contains(&Event::DuplicateNode));
        raised += events.iter().filter(|event| matches!(event, Event::EpochRaised { .. })).count();
        let answered = |effect: &Effect| matches!(effect, Effect::Send { message: Kind::Membership(_), .. });
        assert!(effects.iter().any(answered), "round {round}");
    }
    assert_eq!(raised, 1, "once in ten seconds");
    // Its own signature is proof, and three times enough.
    let mut alarms = 0;
    for ahead in [1_000, 2_000, 3_000] {
        receive(&mut engine, at_ms(11_000), states(vec![state("n0", ahead, 1)]));
        alarms += usize::from(drain(&mut engine).1.contains(&Event::DuplicateNode));
    }
    assert_eq!(alarms, 1);
}

#[test]
fn a_state_that_is_refused_is_told_of_once_and_verified_again_after_a_while() {
    let mut engine = engine(life("n0", 0, 1000));
    drain(&mut engine);
    let mut forged = state("n5", 0, 1);
    forged.signature = b"x".as_slice().into();
    let mut told = Vec::new();
    for ms in (0..=5_000).step_by(500) {
        receive(&mut engine, at_ms(ms), states(vec![forged.clone()]));
        for event in drain(&mut engine).1 {
            if let Event::Refused { again, .. } = event {
                told.push((ms, again));
            }
        }
    }
    assert_eq!(told, [(0, false), (5_000, true)]);
    // The genuine one is another.
    receive(&mut engine, at_ms(5_000), states(vec![state("n5", 0, 1)]));
    assert_eq!(engine.known_epoch(&node("n5")), Some(Epoch(START_MS)));
}

#[test]
fn who_floods_with_bad_records_is_not_listened_to_and_the_others_are() {
    let mut engine = engine(life("n0", 0, 1000));
    let mut refused = 0;
    for sequence in 1..=600 {
        let mut forged = state("n5", 0, sequence);
        forged.signature = b"x".as_slice().into();
        if let Err(error) = engine.receive(at_ms(0), START_MS, &node("n1"), states(vec![forged])) {
            assert_eq!((error.reason(), error.to_string().as_str()), ("flood", FLOOD));
            refused += 1;
        }
    }
    assert_eq!(refused, 99, "five hundred are looked at");
    engine.receive(at_ms(0), START_MS, &node("n2"), states(vec![state("n5", 0, 1)])).expect("heard");
    assert_eq!(engine.known_epoch(&node("n5")), Some(Epoch(START_MS)));
    let late = states(vec![state("n6", 0, 1)]);
    engine.receive(at_ms(1_000), START_MS, &node("n1"), late).expect("heard again after a while");
    assert_eq!(engine.known_epoch(&node("n6")), Some(Epoch(START_MS)));
}

const FLOOD: &str = "n1 sends more bad records than this node listens to";

#[test]
fn our_own_signature_on_a_later_state_raises_our_epoch() {
    for (epoch, sequence, raised) in [(70, 1, 71), (0, 9, 1)] {
        let mut engine = engine(life("n0", 0, 1000));
        receive(&mut engine, at_ms(1), states(vec![state("n0", epoch, sequence)]));
        let to = Epoch(START_MS + raised);
        assert_eq!(engine.own().epoch, to);
        assert!(drain(&mut engine).1.contains(&Event::EpochRaised { to }));
        assert_eq!(engine.known_epoch(&node("n0")), Some(to), "published anew");
    }
}

#[test]
fn after_leaving_an_engine_sends_nothing_and_has_nothing_to_do() {
    let mut net = super::Net::joined(3, 2);
    net.with(1, |engine, now, unix_ms| engine.announce_leaving(now, unix_ms).expect("good"));
    let now = net.now;
    let engine = &mut net.processes[1].engine;
    engine.leave(now);
    engine.settle(now, START_MS);
    let sent = drain(engine).0;
    let pushed = |effect: &&Effect| matches!(effect, Effect::Send { message: Kind::States(_), .. });
    assert_eq!(sent.iter().filter(pushed).count(), 2, "the farewell that was still waiting goes out");

    let digest = Kind::Digest(Digest::default());
    engine.receive(now, START_MS, &node("n0"), digest).expect("ignored");
    engine.connected(now, &peer(None));
    engine.refused(now, &node("n0"));
    engine.tick(now + Duration::from_secs(3600));
    engine.settle(now + Duration::from_secs(3600), START_MS);
    assert!(drain(engine).0.is_empty());
    assert!(engine.next_deadline() > now + Duration::from_secs(86_400));
}

#[test]
fn what_nobody_drains_is_bounded_and_the_loss_is_reported() {
    let mut engine = engine(life("n0", 0, 1000));
    let asked = Kind::StatesRequest(StatesRequest { owners: vec!["n0".into()] });
    for _ in 0..QUEUE_LIMIT + 100 {
        engine.receive(at_ms(0), START_MS, &node("n1"), asked.clone()).expect("taken");
    }
    let (effects, events) = drain(&mut engine);
    assert_eq!(effects.len(), QUEUE_LIMIT);
    assert_eq!(events.iter().filter(|event| **event == Event::Overflow).count(), 1);

    // Of so many peers that none of them is too much.
    let bad = |number: usize| OwnerState {
        manifest: number.to_be_bytes().to_vec().into(),
        ..OwnerState::default()
    };
    for message in 0..QUEUE_LIMIT / REFUSED_OF_ONE + 5 {
        let some = (0..100).map(|number| bad(message * 100 + number)).collect();
        let peer = node(&format!("p{}", message / 5));
        engine.receive(at_ms(0), START_MS, &peer, states(some)).expect("taken");
    }
    let events = drain(&mut engine).1;
    assert_eq!((events.len(), events.last()), (QUEUE_LIMIT, Some(&Event::Overflow)));
}

/// Digests repair what pushes miss, but only at the gossip interval.
#[test]
fn pushes_alone_reach_all_in_nearly_all_cases() {
    assert_eq!((fan_out(0), fan_out(1), fan_out(15), fan_out(1_000)), (4, 4, 7, 13));
    let mut net = super::Net::new(8);
    net.interval = Duration::from_secs(3_600);
    for index in 0..16 {
        net.start(life(&format!("n{index}"), 0, 1000 + index));
    }
    net.until(super::secs(5), "join", super::Net::all_alive);
    let (updates, mut missed) = (100, 0);
    for update in 0..updates {
        let zone = update.to_string();
        let mut own = records(&node("n3"), &["demo.S"]);
        own.node.zone.clone_from(&zone);
        net.with(3, |engine, now, unix_ms| engine.publish(now, unix_ms, own).expect("good"));
        net.run(Duration::from_millis(500));
        let has = |p: &super::net::Process| p.engine.members()[&node("n3")].records.node.zone == zone;
        missed += usize::from(!net.running().all(|(_, process)| has(process)));
    }
    println!("{missed} of {updates} pushes missed somebody");
    assert!(missed <= 5, "{missed} of {updates}");
}

#[test]
fn the_deadline_lies_ahead_after_every_tick() {
    let mut engine = engine(life("n0", 0, 1000));
    engine.connected(at_ms(1), &peer(None));
    receive(&mut engine, at_ms(2), states(vec![state("n1", 0, 1), state("n2", 0, 1)]));
    let mut now = at_ms(2);
    for _ in 0..200 {
        now = now.max(engine.next_deadline());
        engine.tick(now);
        engine.settle(now, START_MS);
        assert!(engine.next_deadline() > now, "a tick does all that is due");
    }
}

#[test]
fn a_member_gone_for_a_day_is_forgotten_and_welcome_again() {
    let mut net = super::Net::joined(3, 3);
    net.crash(1);
    net.until(super::secs(10), "failure", |net| net.all_see(&node("n1"), MemberState::Down));
    // Only n0 is looked at: a day passes for it in steps of a minute, without anything from others.
    let engine = &mut net.processes[0].engine;
    let (start, mut now) = (net.now, net.now);
    while now.since(start) < Duration::from_secs(24 * 3600 + 120) {
        now = now + Duration::from_secs(60);
        engine.tick(now);
        engine.settle(now, START_MS);
        drain(engine);
    }
    assert!(!engine.members().contains_key(&node("n1")), "forgotten");
    assert!(!engine.membership.measures(&node("n1")), "also how far it was");
    let old = state("n1", 0, 1);
    receive(engine, now, states(vec![old.clone()]));
    assert!(!engine.members().contains_key(&node("n1")), "others' copies do not bring it back");

    // It was only cut off: the same life, with the same records, knocks.
    let mut n1 = super::super::Membership::new(life("n1", 0, 1001), START_MS, StdRng::seed_from_u64(1));
    n1.announce(now, engine.own().clone());
    let (_, announce) = n1.next_packet().expect("an announce");
    receive(engine, now, Kind::Membership(announce));
    engine.settle(now, START_MS);
    now = now + Duration::from_secs(1);
    engine.tick(now);
    engine.settle(now, START_MS);
    let asks = drain(engine).0.into_iter().any(|effect| {
        matches!(effect, Effect::Send { to, message: Kind::StatesRequest(_), .. } if to == node("n1"))
    });
    assert!(asks, "its records are asked for");
    receive(engine, now, states(vec![old]));
    assert_eq!(engine.members()[&node("n1")].state, MemberState::Alive);
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let name = prop_oneof!["n[0-3]", ".{0,5}"];
    let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
    let record = (-1..4_i32, name.clone(), bytes()).prop_map(|(kind, name, body)| Record {
        kind,
        name,
        body: body.into(),
    });
    let nonsense = (bytes(), bytes(), proptest::collection::vec(record, 0..3))
        .prop_map(|(m, s, records)| OwnerState { manifest: m.into(), signature: s.into(), records });
    let good = (0..4_u8, 0..3_u64, 0..3_u64)
        .prop_map(|(owner, epoch, sequence)| state(&format!("n{owner}"), epoch, sequence));
    let entry = (name.clone(), any::<u64>(), any::<u64>(), bytes())
        .prop_map(|(owner, epoch, sequence, hash)| DigestEntry { owner, epoch, sequence, hash: hash.into() });
    let content = prop_oneof![
        bytes().prop_map(|hash| Content::Hash(hash.into())),
        proptest::collection::vec(any::<u8>(), 256).prop_map(|parts| Content::Parts(parts.into())),
        proptest::collection::vec(entry, 0..5)
            .prop_map(|entries| Content::Entries(DigestEntries { entries })),
    ];
    let range = (0..18_u32, prop_oneof![Just(0), any::<u64>()], proptest::option::of(content))
        .prop_map(|(depth, digits, content)| DigestRange { depth, digits, content });
    prop_oneof![
        bytes().prop_map(|packet| Kind::Membership(packet.into())),
        proptest::collection::vec(prop_oneof![nonsense, good], 0..4).prop_map(states),
        (proptest::collection::vec(range, 0..5), bytes(), any::<bool>()).prop_map(
            |(ranges, members, answer)| { Kind::Digest(Digest { ranges, members: members.into(), answer }) }
        ),
        bytes().prop_map(|part| Kind::MemberList(part.into())),
        proptest::collection::vec(name, 0..5)
            .prop_map(|owners| Kind::StatesRequest(StatesRequest { owners })),
        Just(Kind::Hello(v1::Hello::default())),
    ]
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut engine = engine(life("n0", 0, 1000));
        if let Ok(Some(kind)) = decode(&bytes) && engine.receive(at_ms(1), START_MS, &node("n1"), kind).is_ok() {
            engine.settle(at_ms(1), START_MS);
        }
    }

    #[test]
    fn arbitrary_messages_never_panic_nor_stop_the_engine(messages in proptest::collection::vec(any_kind(), 0..12)) {
        let mut engine = engine(life("n0", 1, 1000));
        for (at, message) in (1..).zip(messages) {
            let now = at_ms(at * 700);
            if let Err(error) = engine.receive(now, START_MS, &node("n1"), message) {
                prop_assert!(!error.to_string().is_empty());
            }
            engine.settle(now, START_MS);
            engine.tick(now);
            engine.settle(now, START_MS);
            prop_assert!(engine.next_deadline() > now);
            prop_assert_eq!(engine.members()[&node("n0")].state, MemberState::Alive);
        }
    }
}
