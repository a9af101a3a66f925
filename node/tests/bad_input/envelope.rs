//! Compressed frames of a node with a valid certificate that lie about what they hold.

use super::gossip::{Liar, framed, refused, states};
use crate::support::{Binary, Certificates, TestNode, sample};
use bytes::Bytes;
use p2p_core::wire::{MAX_FRAME, seal};
use p2p_proto::v1::{
    GossipFrame, GossipMessage, MemberState, OwnerState, OwnerStates, StatesRequest, gossip_message::Kind,
};
use prost::Message as _;

/// A frame with `block` as what it holds and `said` as how long that is said to be.
fn compressed(block: Vec<u8>, said: usize) -> GossipFrame {
    let uncompressed_length = u32::try_from(said).expect("small");
    GossipFrame { payload: Bytes::new(), lz4: block.into(), uncompressed_length }
}

/// A block that holds a little more than 255 bytes for each one of `length`.
fn bomb(length: usize) -> Vec<u8> {
    // One literal, and a match one byte back that goes on and on; then the five literals that end a block.
    [&b"\x1fa\x01\x00"[..], &vec![255; length], b"\x00\x50bytes"].concat()
}

/// Two million states with nothing in them, which compress to 16 KiB.
fn nothings() -> Vec<u8> {
    let states = vec![OwnerState::default(); MAX_FRAME / 2 - 8];
    GossipMessage { kind: Some(Kind::States(OwnerStates { states, answer: false })) }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_or_a_lying_length_ends_the_stream_and_nothing_else() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "w9:worker"]);
    let mut node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let worker = certificates.config("w1").seeds(&[&node.address.to_string()]);
    let worker = TestNode::start(Binary::Node, worker).await;
    let observer = certificates.observer(&node).await;
    observer.awaits_state("w1", MemberState::Alive).await;
    let liar = Liar::new(&certificates, "w9");

    let hello = framed(Kind::Digest(p2p_proto::v1::Digest::default()));
    let both = GossipFrame { payload: hello.payload, ..compressed(b"\x50hello".to_vec(), 5) };
    let lies = [
        // 16 MiB in 64 KiB, said to be more than any message, and to be as much as one may be.
        (compressed(bomb(65_793), 16 * 1024 * 1024), "bomb", 1.0),
        (compressed(bomb(65_793), MAX_FRAME), "length", 1.0),
        // More than so few bytes can hold; more than they hold; less.
        (compressed(bomb(100), MAX_FRAME), "bomb", 2.0),
        (compressed(bomb(100), 26_000), "length", 2.0),
        (compressed(bomb(100), 100), "length", 3.0),
        (both, "envelope", 1.0),
        (compressed(b"\x50hell".to_vec(), 5), "lz4", 1.0),
        (compressed(b"\x10a\xff\xff\x00".to_vec(), 5), "lz4", 2.0),
        // As large as may be, all of it as it was said; but no message.
        (seal(vec![0xff; MAX_FRAME].into(), Some(0)), "malformed", 1.0),
        // As it says, and a message; but made to take 50 times its length in memory.
        (seal(nothings().into(), Some(0)), "bomb", 3.0),
    ];
    for (frame, reason, count) in lies {
        let (sender, mut answers) = liar.gossip(&node, vec![liar.hello()]).await.expect("a stream");
        sender.send(frame).await.expect("sent");
        observer.awaits_sample(&refused(reason), count).await;
        // The liar keeps its side open: it is the node that ends the stream.
        while let Ok(Some(_)) = answers.message().await {}
    }
    node.logs("16777216 bytes, at most 4194304 are taken").await;
    assert_eq!(sample(&observer.metrics().await, &refused("bomb")), Some(3.0));

    // The cluster goes on, also with the liar, once it tells the truth: compressed, though nobody asked for it.
    let truth = liar.state_of("w9");
    let message = GossipMessage { kind: Some(states(truth.clone())) }.encode_to_vec();
    let frame = seal(message.into(), Some(0));
    assert!(!frame.lz4.is_empty());
    let (sender, _answers) = liar.gossip(&node, vec![liar.hello()]).await.expect("a stream");
    sender.send(frame).await.expect("sent");
    // Probes may have ended that the liar did not answer: what it has published, not its state.
    let others = certificates.observer(&worker).await;
    for (at, observer) in [(&node, &observer), (&worker, &others)] {
        let (sender, mut answers) = liar.gossip(at, vec![liar.hello()]).await.expect("a stream");
        crate::support::eventually("the records of w9", async || {
            let question = Kind::StatesRequest(StatesRequest { owners: vec!["w9".to_owned()] });
            sender.send(framed(question)).await.expect("sent");
            let frame = answers.message().await.expect("no error").expect("more");
            let message = p2p_core::wire::open(frame).expect("honest");
            match GossipMessage::decode(&*message).expect("a message").kind {
                Some(Kind::States(told)) if told.states.contains(&truth) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        observer.awaits_state("w1", MemberState::Alive).await;
        observer.awaits_state("c1", MemberState::Alive).await;
    }
}
