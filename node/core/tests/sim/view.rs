//! What a run shows: what each process sees, what must never happen, and what is counted.

use crate::{
    links::Traffic,
    tail::Happening,
    world::{Process, World},
};
use p2p_core::{Epoch, NodeId, gossip::Event};
use p2p_proto::v1::MemberState;
use std::collections::BTreeMap;

/// What a run has shown so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Members shown as down although they ran and could be reached.
    pub false_downs: u64,
    /// Identities renewed because others had declared them down.
    pub renewals: u64,
    pub refused: u64,
    pub dials: u64,
    pub events: u64,
}

/// Which process bears the name.
pub fn number(node: &NodeId) -> usize {
    node.as_str()[1..].parse().expect("n and a number")
}

impl World {
    /// A number that depends on everything that has happened.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub fn running(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.processes.iter().enumerate().filter(|(_, process)| process.running)
    }

    /// What process `index` sees of process `of`.
    pub fn state(&self, index: usize, of: usize) -> Option<MemberState> {
        self.processes[index].engine.members().get(&self.processes[of].node).map(|member| member.state)
    }

    /// How many running processes see `of` in `state`.
    pub fn seen(&self, of: usize, state: MemberState) -> usize {
        self.running().filter(|(index, _)| *index != of && self.state(*index, of) == Some(state)).count()
    }

    /// How many members a process sees alive with their present records.
    pub fn alive(&self, index: usize) -> usize {
        self.processes[index].engine.members().values().filter(|member| member.serves()).count()
    }

    pub fn running_count(&self) -> usize {
        self.running().count()
    }

    /// Whether every running process sees exactly the running ones alive, and all hold the same records.
    pub fn agrees(&mut self) -> Result<(), String> {
        let count = self.running_count();
        let mut first = None;
        for index in 0..self.processes.len() {
            if !self.processes[index].running {
                continue;
            }
            let alive = self.alive(index);
            if alive != count {
                return Err(format!("n{index} sees {alive} of {count} alive"));
            }
            let hash = self.processes[index].engine.records_hash();
            if *first.get_or_insert(hash) != hash {
                return Err(format!("n{index} holds other records"));
            }
        }
        Ok(())
    }

    /// What all have sent so far.
    pub fn traffic(&self) -> Traffic {
        let mut all = Traffic::default();
        for process in &self.processes {
            all.frames += process.sent.frames;
            all.bytes += process.sent.bytes;
        }
        all
    }

    /// The epochs that each process shows, to be compared with later ones.
    pub fn epochs(&self) -> Vec<BTreeMap<NodeId, Epoch>> {
        let of = |process: &Process| {
            process.engine.members().iter().map(|(node, member)| (node.clone(), member.epoch)).collect()
        };
        self.processes.iter().map(of).collect()
    }
    pub(super) fn happened(&mut self, index: usize, event: Event) {
        self.tally.events += 1;
        self.mark(30, index, 0);
        match &event {
            Event::Member { node, to: MemberState::Down, .. } => {
                let own = &self.processes[index];
                let other = &self.processes[number(node)];
                let unjust = other.running && other.island == own.island && other.stalled <= self.now;
                self.tally.false_downs += u64::from(unjust);
            }
            Event::Renewed => self.tally.renewals += 1,
            Event::Overflow => panic!("n{index} has dropped effects or events"),
            Event::DuplicateNode => panic!("n{index} sees another holder of its id, and there is none"),
            Event::Refused { refusal, .. } => panic!("n{index} refuses what honest nodes sent: {refusal}"),
            Event::Member { .. }
            | Event::RevocationsRefused { .. }
            | Event::RevocationsReissued
            | Event::Evicted
            | Event::Readmitted
            | Event::NotGranted { .. }
            | Event::Evidence(_)
            | Event::EpochRaised { .. } => {}
        }
        self.note(Happening::Event { own: index, event: Box::new(event) });
    }

    pub(super) fn mark(&mut self, code: u64, from: usize, to: usize) {
        let time = u64::try_from(self.now.elapsed().as_nanos()).expect("a short run");
        for word in [time, code, from as u64, to as u64] {
            self.fingerprint = (self.fingerprint ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    /// Keeps it for the case that the run fails.
    pub fn note(&mut self, what: Happening) {
        self.tail.push(self.now.elapsed(), what);
    }
}
