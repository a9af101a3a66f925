//! Packets that must change nothing, and the encoding that all releases of one protocol version share.

use super::super::{CodecError, Identity, Life, Liveness, MAX_PACKET, Membership, PacketError};
use super::group::{Group, alone};
use crate::{
    Epoch, Moment,
    testing::{START_MS, life, node},
};
use bytes::BufMut;
use foca::{Codec, Header, Member, Message, PostcardCodec, State};
use proptest::prelude::*;
use std::time::Duration;

fn packet(
    from: Identity,
    to: &Membership,
    message: Message<Identity>,
    members: &[Member<Identity>],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header { src: from, src_incarnation: 0, dst: to.own().clone(), message };
    PostcardCodec.encode_header(&header, &mut bytes).expect("encodes");
    if !members.is_empty() {
        bytes.put_u16(u16::try_from(members.len()).expect("few"));
    }
    for member in members {
        PostcardCodec.encode_member(member, &mut bytes).expect("encodes");
    }
    bytes
}

/// Gives `packet` from n1 to a node that must refuse it, unchanged and without an answer.
fn refused(target: &mut Membership, packet: &[u8]) -> PacketError {
    let before: Vec<(Identity, Liveness)> = target.lives().map(|(life, l)| (life.clone(), l)).collect();
    let error = target.receive(Moment::default(), START_MS, &node("n1"), packet).expect_err("refused");
    let after: Vec<(Identity, Liveness)> = target.lives().map(|(life, l)| (life.clone(), l)).collect();
    assert_eq!(before, after);
    assert!(target.next_packet().is_none());
    error
}

fn ahead() -> Identity {
    Life { epoch: Epoch(START_MS + Epoch::MAX_AHEAD_MS + 1), ..life("n1", 0, 1001).into() }.into()
}

#[test]
fn a_packet_in_another_name_than_the_connections_is_refused() {
    let mut n0 = alone(life("n0", 0, 1000));
    let packet = packet(life("n2", 0, 1002), &n0, Message::Announce, &[]);
    let error = refused(&mut n0, &packet);
    assert!(matches!(error, PacketError::ForeignSource { .. }));
    assert_eq!(error.to_string(), "n1 sent a membership packet in the name of n2");
}

#[test]
fn an_epoch_more_than_a_day_ahead_is_refused_wherever_it_stands() {
    let mut n0 = alone(life("n0", 0, 1000));
    let source = packet(ahead(), &n0, Message::Announce, &[]);
    let error = refused(&mut n0, &source);
    assert!(matches!(error, PacketError::Codec(CodecError::EpochAhead { .. })));
    assert!(error.to_string().ends_with("of node n1 lies more than 24 h ahead of this node's clock"));

    let good = Member::alive(life("n3", 0, 1003));
    let bad = Member::alive(Life { node: node("n2"), ..ahead().into() }.into());
    let piggyback = packet(life("n1", 0, 1001), &n0, Message::Gossip, &[good, bad]);
    assert!(matches!(refused(&mut n0, &piggyback), PacketError::Codec(CodecError::EpochAhead { .. })));

    // A day later the same epoch is no longer ahead.
    let (later, peer) = (START_MS + 1, node("n1"));
    n0.receive(Moment::default(), later, &peer, &piggyback).expect("taken");
    assert_eq!(n0.active_count(), 3);
}

#[test]
fn a_packet_with_anything_behind_its_members_is_refused_whole() {
    let mut n0 = alone(life("n0", 0, 1000));
    let mut long = packet(life("n1", 0, 1001), &n0, Message::Gossip, &[Member::alive(life("n2", 0, 1002))]);
    long.push(0);
    assert_eq!(refused(&mut n0, &long).to_string(), "membership packet refused: 1 trailing bytes");
    long.resize(MAX_PACKET + 1, 0);
    let error = refused(&mut n0, &long).to_string();
    assert_eq!(error, "membership packet refused: 1401 bytes, at most 1400");
}

#[test]
fn later_lives_of_this_node_are_shown_and_not_declared_down() {
    let mut n0 = alone(life("n0", 5, 1000));
    let news = [
        Member::alive(life("n0", 9, 2000)),
        Member::alive(life("n2", 0, 1002)),
        Member::alive(life("n0", 7, 2001)),
        Member::alive(life("n0", 3, 2002)),
    ];
    let packet = packet(life("n1", 0, 1001), &n0, Message::Gossip, &news);
    n0.receive(Moment::default(), START_MS, &node("n1"), &packet).expect("taken");
    assert_eq!(n0.usurper(), Some(&life("n0", 9, 2000)));
    assert_eq!(n0.active_count(), 2, "n1 and n2");
    assert_eq!(n0.own(), &life("n0", 5, 1000));
}

#[test]
fn a_full_member_list_takes_no_strangers_but_still_hears_its_members() {
    let mut n0 = alone(life("n0", 0, 1000));
    n0.max_lives = 3;
    let many: Vec<_> = (2..9).map(|i| Member::alive(life(&format!("n{i}"), 0, 1000 + i))).collect();
    let from_n1 = |n0: &Membership, members: &[_]| packet(life("n1", 0, 1001), n0, Message::Gossip, members);
    let (now, n1) = (Moment::default(), node("n1"));
    let first = from_n1(&n0, &many[..2]);
    n0.receive(now, START_MS, &n1, &first).expect("there is room");
    let rest = from_n1(&n0, &[&many[2..], &[Member::new(life("n2", 0, 1002), 0, State::Down)]].concat());
    n0.receive(now, START_MS, &n1, &rest).expect("taken without the strangers");
    assert_eq!((n0.lives().count(), n0.active_count()), (3, 2), "n2 is down, nobody was added");
    let stranger = packet(life("n9", 0, 1009), &n0, Message::Announce, &[]);
    let error = n0.receive(now, START_MS, &node("n9"), &stranger).expect_err("no room");
    assert_eq!(error.to_string(), "membership packet refused: the member list is full");
}

#[test]
fn a_flood_of_turn_undead_renews_once_per_pause() {
    let mut group = Group::joined(2);
    for _ in 0..300 {
        let packet = packet(life("n1", 0, 1001), &group.nodes[0], Message::TurnUndead, &[]);
        let now = group.now;
        group.nodes[0].receive(now, START_MS, &node("n1"), &packet).expect("taken");
        group.run(Duration::from_millis(10));
    }
    assert!(group.nodes[0].renewals() <= 4, "{} renewals in 3 s", group.nodes[0].renewals());
}

/// A foca upgrade that changes these bytes splits a cluster during a rolling upgrade: it needs a new protocol
/// version, not new golden bytes.
#[test]
fn the_encoding_is_the_one_that_released_nodes_speak() {
    let mut n0 = alone(life("n0", 1, 1000));
    n0.announce(Moment::default(), life("n1", 2, 1001));
    let (_, announce) = n0.next_packet().expect("an announce");
    assert_eq!(hex(&announce), ANNOUNCE);

    let announced = packet(life("n1", 2, 1001), &n0, Message::Announce, &[]);
    n0.receive(Moment::default(), START_MS, &node("n1"), &announced).expect("taken");
    n0.next_packet().expect("the feed to n1");
    let announced = packet(life("n2", 3, 1002), &n0, Message::Announce, &[]);
    n0.receive(Moment::default(), START_MS, &node("n2"), &announced).expect("taken");
    let (_, feed) = n0.next_packet().expect("the feed to n2, with n1 in it");
    assert_eq!(hex(&feed), FEED);

    let ping = packet(life("n1", 2, 1001), &n0, Message::Ping(7), &[]);
    assert_eq!(hex(&ping), PING);
    n0.receive(Moment::default(), START_MS, &node("n1"), &ping).expect("taken");
    let (_, ack) = n0.next_packet().expect("an ack");
    assert_eq!(hex(&ack), ACK);
}

const ANNOUNCE: &str = "026e3081a0f1c2b13400e807007f000001e80700026e3182a0f1c2b13400e907007f000001e90706";
const FEED: &str = "026e3081a0f1c2b13400e807007f000001e80700026e3283a0f1c2b13400ea07007f000001ea07070001026e3182a0f1c2b13400e907007f000001e9070000";
const PING: &str = "026e3182a0f1c2b13400e907007f000001e90700026e3081a0f1c2b13400e807007f000001e8070007";
const ACK: &str = "026e3081a0f1c2b13400e807007f000001e80700026e3182a0f1c2b13400e907007f000001e90701070002026e3182a0f1c2b13400e907007f000001e9070000026e3283a0f1c2b13400ea07007f000001ea070000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut n0 = alone(life("n0", 0, 1000));
        if let Err(error) = n0.receive(Moment::default(), START_MS, &node("n1"), &bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_good_packet_with_any_bytes_changed_never_panics(
        message in 0..11_u8,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut group = Group::joined(2);
        let (n1, other) = (life("n1", 0, 1001), life("n2", 0, 1002));
        let message = match message {
            0 => Message::Ping(1),
            1 => Message::Ack(1),
            2 => Message::PingReq { target: other, probe_number: 1 },
            3 => Message::IndirectPing { origin: other, probe_number: 1 },
            4 => Message::IndirectAck { target: other, probe_number: 1 },
            5 => Message::ForwardedAck { origin: other, probe_number: 1 },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        };
        let members = [
            Member::new(group.nodes[0].own().clone(), 0, State::Suspect),
            Member::down(life("n3", 0, 1003)),
        ];
        let mut bytes = packet(n1, &group.nodes[0], message, &members);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(2 * bytes.len()).max(1));
        let now = group.now;
        // Refused or taken: the detector goes on either way.
        if let Err(error) = group.nodes[0].receive(now, START_MS, &node("n1"), &bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
        group.run(Duration::from_secs(3));
    }
}

#[test]
fn who_lists_a_life_that_has_ended_is_told_so() {
    let (n0, n1, n2) = (life("n0", 0, 1000), life("n1", 0, 1001), life("n2", 0, 1002));
    let (mut n0, mut n1) = (alone(n0), alone(n1));
    let now = Moment::default();
    // n0 has missed that n2 is down.
    let alive = packet(n1.own().clone(), &n0, Message::Gossip, &[Member::alive(n2.clone())]);
    n0.receive(now, START_MS, &node("n1"), &alive).expect("taken");
    let down = packet(n0.own().clone(), &n1, Message::Gossip, &[Member::new(n2, 3, State::Down)]);
    n1.receive(now, START_MS, &node("n0"), &down).expect("taken");
    while n0.next_packet().or_else(|| n1.next_packet()).is_some() {}
    for part in n0.list_for(&n1.own().clone()) {
        n1.take_list(now, START_MS, &node("n0"), &part).expect("taken");
    }
    let (to, told) = n1.next_packet().expect("a contradiction");
    assert_eq!(to, *n0.own());
    assert!(n0.is_active(&node("n2")));
    n0.receive(now, START_MS, &node("n1"), &told).expect("taken");
    assert!(!n0.is_active(&node("n2")));
    assert_eq!(n0.roll(), n1.roll());
}
