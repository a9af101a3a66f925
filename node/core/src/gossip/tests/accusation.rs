//! Accusations as they come over the wire.

use super::{super::FrameError, net::Net, secs};
use crate::testing::node;
use p2p_proto::v1::{Accusation, MemberState, gossip_message::Kind};

fn accuse(net: &mut Net, message: Accusation) -> Result<(), FrameError> {
    net.with(0, |engine, now, unix_ms| engine.receive(now, unix_ms, &node("n1"), Kind::Accusation(message)))
}

#[test]
fn an_accusation_counts_for_the_life_that_it_names() {
    let mut net = Net::joined(4, 30);
    let life = net.processes[3].engine.own().clone();
    let good = Accusation {
        node_id: life.node.to_string(),
        epoch: life.epoch.0,
        generation: life.generation,
        instance: life.instance,
        incarnation: 0,
    };
    for bad in [
        Accusation { epoch: good.epoch + 1, ..good.clone() },
        Accusation { instance: good.instance + 1, ..good.clone() },
        Accusation { incarnation: u32::MAX, ..good.clone() },
        Accusation { node_id: "nobody".into(), ..good.clone() },
    ] {
        accuse(&mut net, bad).expect("passed over");
        assert_eq!(net.state(0, &node("n3")), Some(MemberState::Alive));
    }
    let unnamed = accuse(&mut net, Accusation::default()).expect_err("refused");
    assert_eq!(unnamed.to_string(), "an accusation of no node: it is empty");
    accuse(&mut net, good).expect("taken");
    assert_eq!(net.state(0, &node("n3")), Some(MemberState::Suspect));
    net.run(secs(2));
    assert_eq!(net.state(0, &node("n3")), Some(MemberState::Alive), "it has refuted it");
}

#[test]
fn who_accuses_without_end_is_heard_once_in_a_while() {
    let mut net = Net::joined(4, 31);
    let good = |net: &Net, incarnation| {
        let life = net.processes[3].engine.own().clone();
        Accusation {
            node_id: life.node.to_string(),
            epoch: life.epoch.0,
            generation: life.generation,
            instance: life.instance,
            incarnation,
        }
    };
    let mut suspected = 0;
    for _ in 0..80 {
        // Of whatever incarnation it is in by now.
        for incarnation in 0..10 {
            let accusation = good(&net, incarnation);
            accuse(&mut net, accusation).expect("taken or passed over");
        }
        suspected += usize::from(net.state(0, &node("n3")) == Some(MemberState::Suspect));
        net.run(std::time::Duration::from_millis(100));
    }
    assert!((1..=20).contains(&suspected), "suspect in {suspected} of 80 looks within 8 s");
    assert_eq!(net.state(0, &node("n3")), Some(MemberState::Alive));
}
