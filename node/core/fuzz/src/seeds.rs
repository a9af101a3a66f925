//! Makes the corpus: what two engines say to each other when they meet, publish and revoke.

use crate::cluster::{START_MS, at_ms, certificate, drain, engine, introduced};
use p2p_core::wire;
use p2p_proto::v1::{
    Accusation, GossipMessage, Hello, NodeEviction, Revocation, SubjectRevocation, TrustBundle,
    gossip_message::Kind, revocation::What,
};
use prost::Message as _;
use std::{collections::BTreeSet, fs, io, path::Path};

/// Most inputs of one target.
const MOST: usize = 24;

/// Writes the corpus below `directory`, which is made anew.
pub(crate) fn write(directory: &Path) -> io::Result<()> {
    let said = conversation();
    let messages = said.iter().map(|kind| GossipMessage { kind: Some(kind.clone()) }.encode_to_vec());
    let messages: Vec<Vec<u8>> = messages.collect();
    let frames = |threshold| {
        let framed = messages.iter().map(move |message| wire::seal(message.clone().into(), threshold));
        framed.map(|frame| frame.encode_to_vec()).collect::<Vec<_>>()
    };
    let (mut packets, mut states, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for kind in said {
        match kind {
            Kind::Membership(packet) => packets.push(packet.to_vec()),
            Kind::States(all) => states.extend(all.states.iter().map(|state| state.encode_to_vec())),
            Kind::Revocations(all) => segments.extend(all.segments.iter().map(|one| one.encode_to_vec())),
            Kind::Hello(_)
            | Kind::Digest(_)
            | Kind::StatesRequest(_)
            | Kind::RevocationPositions(_)
            | Kind::TrustBundle(_)
            | Kind::Accusation(_)
            | Kind::MemberList(_) => {}
        }
    }
    let frames = [frames(None), frames(Some(16))].concat();
    for (name, inputs) in [
        ("frame", frames),
        ("message", messages),
        ("packet", packets),
        ("state", states),
        ("segment", segments),
    ] {
        let inputs: BTreeSet<Vec<u8>> = inputs.into_iter().collect();
        let target = directory.join(name);
        fs::create_dir_all(&target)?;
        // Spread over all lengths.
        let mut inputs: Vec<_> = inputs.into_iter().collect();
        inputs.sort_by_key(Vec::len);
        let step = inputs.len().div_ceil(MOST).max(1);
        for (index, input) in inputs.iter().step_by(step).enumerate() {
            fs::write(target.join(format!("{index:02}")), input)?;
        }
    }
    Ok(())
}

/// Every message that two engines exchange within some seconds.
fn conversation() -> Vec<Kind> {
    let mut engines = [engine("n0", 1000), engine("n1", 1001)];
    let peers = [introduced(&engines[1], &engines[0]), introduced(&engines[0], &engines[1])];
    let mut said = vec![
        Kind::Hello(Hello { features: vec!["lz4".to_owned()], ..Hello::default() }),
        Kind::TrustBundle(TrustBundle { body: vec![1; 40].into(), ..TrustBundle::default() }),
        Kind::Accusation(Accusation { node_id: "n1".to_owned(), epoch: START_MS, ..Accusation::default() }),
    ];
    engines[0].connected(at_ms(0), &peers[0]);
    engines[1].connected(at_ms(0), &peers[1]);
    for ms in (1..12_000).step_by(20) {
        if ms == 3_001 {
            revoke(&mut engines[0], ms);
        }
        for index in 0..2 {
            engines[index].tick(at_ms(ms));
            engines[index].settle(at_ms(ms), START_MS + ms);
            for kind in drain(&mut engines[index]) {
                said.push(kind.clone());
                let (from, to) = (engines[index].own().node.clone(), &mut engines[1 - index]);
                to.receive(at_ms(ms), START_MS + ms, &from, kind).expect("honest");
            }
        }
    }
    said
}

fn revoke(engine: &mut p2p_core::gossip::Engine, ms: u64) {
    let expires_at = START_MS / 1_000 + 100_000;
    let subject = SubjectRevocation { subject: "ci".to_owned(), ..SubjectRevocation::default() };
    let node = NodeEviction { node_id: "n9".to_owned(), counter: 1, ..NodeEviction::default() };
    for what in [What::Token("0b5c".to_owned()), What::Subject(subject), What::Node(node)] {
        let entry = Revocation { what: Some(what), expires_at, ..Revocation::default() };
        let made = engine.revoke(START_MS + ms, vec![entry], &[certificate("n0")]).expect("signed");
        engine.push_revocations(at_ms(ms), made);
    }
}
