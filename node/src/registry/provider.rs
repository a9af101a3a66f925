//! A node that provides methods, with what the balancer knows of it.

use p2p_core::{
    Moment, NodeId, ServiceName,
    balancer::{Candidate, Circuit, CircuitState, Latency, Outcome},
};
use prometheus_client::metrics::counter::Counter;
use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A node that provides a service, as calls from here find it.
#[derive(Debug)]
pub struct Provider {
    /// Which node.
    pub node: NodeId,
    /// Where it accepts connections.
    pub address: SocketAddr,
    /// The service; `None` for those that every node has, which are asked of a named node, or of none.
    service: Option<ServiceName>,
    /// Calls from here that it has not answered to the end.
    in_flight: AtomicUsize,
    standing: Mutex<Standing>,
    /// Its clock's start.
    known_since: Instant,
    ejections: Counter,
}

#[derive(Debug, Default)]
struct Standing {
    latency: Latency,
    circuit: Circuit,
}

/// How a provider stands, for people.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Whether calls go there.
    pub circuit: CircuitState,
    /// Calls from here that it has not answered to the end.
    pub in_flight: usize,
    /// How long it takes to answer; `None` if that was not measured lately.
    pub latency: Option<Duration>,
}

impl Provider {
    /// The node `node`, of which nothing is known yet.
    pub fn new(node: NodeId, address: SocketAddr) -> Self {
        Self {
            node,
            address,
            service: None,
            in_flight: AtomicUsize::new(0),
            standing: Mutex::default(),
            known_since: Instant::now(),
            ejections: Counter::default(),
        }
    }

    /// The same, as the provider of `service`, with the counter of ejections.
    pub(super) fn of(self, service: Option<ServiceName>, ejections: Counter) -> Self {
        Self { service, ejections, ..self }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::at(now.saturating_duration_since(self.known_since))
    }

    /// What a call there costs now.
    pub fn candidate(&self, now: Instant) -> Candidate {
        let (moment, in_flight) = (self.moment(now), self.in_flight.load(Ordering::Relaxed));
        let standing = self.standing();
        Candidate { cost: standing.latency.cost(moment, in_flight), gate: standing.circuit.gate(moment) }
    }

    /// How it stands now.
    pub fn snapshot(&self) -> Snapshot {
        let moment = self.moment(Instant::now());
        let standing = self.standing();
        Snapshot {
            circuit: standing.circuit.state(moment),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: standing.latency.average(moment),
        }
    }

    /// A call begins. Says whether it tries an ejected provider, which [`Self::settled`] must be told.
    pub fn begin(&self, now: Instant) -> bool {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.standing().circuit.begin(self.moment(now))
    }

    /// Nothing more of a call will come.
    pub fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call was answered within `took`.
    pub fn answered(&self, now: Instant, took: Duration) {
        self.standing().latency.observe(self.moment(now), took);
    }

    /// A caller has given up after `waited`, without an answer.
    pub fn gave_up(&self, now: Instant, waited: Duration) {
        self.standing().latency.gave_up(self.moment(now), waited);
    }

    /// A call was refused: the next ones had better go elsewhere for a moment.
    pub fn refused(&self, now: Instant) {
        self.standing().latency.failed(self.moment(now));
    }

    /// It is known how a call went.
    pub fn settled(&self, now: Instant, trial: bool, outcome: Outcome) {
        let moment = self.moment(now);
        let mut standing = self.standing();
        if outcome == Outcome::Failed {
            standing.latency.failed(moment);
        }
        let Some(service) = &self.service else { return };
        let ejected = standing.circuit.ended(moment, trial, outcome);
        let state = standing.circuit.state(moment);
        drop(standing);
        if ejected && let CircuitState::Open { left } = state {
            self.ejections.inc();
            tracing::warn!(peer.id = %self.node, %service, seconds = left.as_secs(), "provider ejected: its calls fail");
        }
    }
}
