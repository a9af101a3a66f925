//! One function for each thing that reads foreign bytes.

use crate::cluster::{START_MS, at_ms, drain, engine, introduced, node};
use p2p_core::{gossip, wire};
use p2p_proto::v1::{
    GossipFrame, GossipMessage, OwnerState, OwnerStates, RevocationSegment, RevocationSegments,
    gossip_message::Kind,
};
use prost::Message as _;

/// What is fed, and its name.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: [Target; 5] = [
    Target { name: "frame", run: frame },
    Target { name: "message", run: message },
    Target { name: "packet", run: |bytes| feed(Kind::Membership(bytes.to_vec().into())) },
    Target { name: "state", run: state },
    Target { name: "segment", run: segment },
];

/// A frame and its envelope. What it holds is bounded, and comes back when it is framed again.
fn frame(bytes: &[u8]) {
    let Ok(frame) = GossipFrame::decode(bytes) else { return };
    let most = frame.payload.len().max(frame.lz4.len() * wire::MAX_RATIO);
    let Ok(message) = wire::open(frame) else { return };
    assert!(message.len() <= most, "{} bytes from {}", message.len(), bytes.len());
    let again = wire::open(wire::seal(message.clone(), Some(0)));
    assert_eq!(again, Ok(message));
}

/// A message of any kind.
fn message(bytes: &[u8]) {
    if let Ok(Some(kind)) = gossip::decode(bytes) {
        let again = GossipMessage { kind: Some(kind.clone()) }.encode_to_vec();
        assert_eq!(
            gossip::decode(&again).as_ref(),
            Ok(&Some(kind.clone())),
            "encoded again, another message"
        );
        feed(kind);
    }
}

/// A manifest with its records.
fn state(bytes: &[u8]) {
    if let Ok(state) = OwnerState::decode(bytes) {
        feed(Kind::States(OwnerStates { states: vec![state], answer: false }));
    }
}

/// A segment of revocations.
fn segment(bytes: &[u8]) {
    if let Ok(segment) = RevocationSegment::decode(bytes) {
        feed(Kind::Revocations(RevocationSegments { segments: vec![segment] }));
    }
}

/// Feeds `kind` to an engine with one member, twice, and lets it go on for a while. An error is an answer, too.
fn feed(kind: Kind) {
    let (mut ours, theirs) = (engine("n0", 1000), engine("n1", 1001));
    ours.connected(at_ms(0), &introduced(&theirs, &ours));
    for ms in [1, 100] {
        let taken = ours.receive(at_ms(ms), START_MS + ms, &node("n1"), kind.clone());
        ours.settle(at_ms(ms), START_MS + ms);
        if let Err(error) = taken {
            assert!(!error.to_string().is_empty());
        }
        drain(&mut ours);
    }
    for ms in [200, 1_000, 20_000, 70_000] {
        ours.tick(at_ms(ms));
        ours.settle(at_ms(ms), START_MS + ms);
        assert!(ours.next_deadline() > at_ms(ms), "it would spin");
        drain(&mut ours);
    }
}
