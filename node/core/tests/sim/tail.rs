//! The last events of a run, kept as they are and put in words only when the run fails.

use p2p_core::{NodeId, gossip::Event};
use std::{collections::VecDeque, fmt, time::Duration};

/// Events shown when a run fails.
const SHOWN: usize = 60;

/// What a node met. Nodes are meant by their number.
pub enum Happening {
    Message {
        kind: &'static str,
        from: usize,
        to: usize,
    },
    Met {
        own: usize,
        other: usize,
    },
    Refused {
        own: usize,
        by: NodeId,
    },
    Event {
        own: usize,
        event: Box<Event>,
    },
    /// What the world did.
    Act(String),
}

impl fmt::Display for Happening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { kind, from, to } => write!(out, "{kind} n{from} > n{to}"),
            Self::Met { own, other } => write!(out, "n{own} meets n{other}"),
            Self::Refused { own, by } => write!(out, "n{own} is refused by {by}"),
            Self::Event { own, event } => write!(out, "n{own}: {event:?}"),
            Self::Act(act) => out.write_str(act),
        }
    }
}

#[derive(Default)]
pub struct Tail(VecDeque<(Duration, Happening)>);

impl Tail {
    pub fn push(&mut self, at: Duration, what: Happening) {
        if self.0.len() >= SHOWN {
            self.0.pop_front();
        }
        self.0.push_back((at, what));
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(at, what)| writeln!(out, "  {at:?} {what}"))
    }
}
