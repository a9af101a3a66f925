//! The network between processes. Links are TCP-like: the first message pays for a handshake, later ones arrive in order,
//! a lost segment delays what comes behind it, a reset loses what is under way. On top of that frames may be dropped,
//! doubled and swapped, as if queues overflowed.

use p2p_core::Moment;
use rand::{RngExt as _, rngs::StdRng};
use std::{collections::HashMap, time::Duration};

/// A lost segment is sent again after so long, then twice as long (RFC 6298's lower bound as Linux has it).
const RETRANSMIT: Duration = Duration::from_millis(200);
/// TCP's and TLS's round trips before the first frame, and what the handshake costs in CPU.
const HANDSHAKE_TRIPS: u32 = 5;
const HANDSHAKE_CPU: Duration = Duration::from_millis(2);

/// How bad the network is. Shares of messages, 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Segments lost and sent again.
    pub loss: f64,
    /// Messages after which the connection is reset.
    pub reset: f64,
    /// Frames lost for good.
    pub drop: f64,
    /// Frames that arrive twice.
    pub double: f64,
    /// Frames that do not keep the order.
    pub swap: f64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub frames: u64,
    /// Encoded messages, without TLS and TCP.
    pub bytes: u64,
}

/// When a message arrives, and whether once more.
pub struct Arrival {
    pub at: Moment,
    pub twice: bool,
}

pub struct Links {
    pub weather: Weather,
    /// One way through the network, between these.
    pub latency: (Duration, Duration),
    /// For each direction of an open connection, when what is sent last arrives.
    busy: HashMap<(u32, u32), Moment>,
}

impl Links {
    pub fn new() -> Self {
        let latency = (Duration::from_micros(500), Duration::from_millis(2));
        Self { weather: Weather::default(), latency, busy: HashMap::new() }
    }

    pub fn trip(&self, rng: &mut StdRng) -> Duration {
        let (least, most) = self.latency;
        let span = u64::try_from((most - least).as_nanos()).expect("a short trip").max(1);
        least + Duration::from_nanos(rng.random_range(0..span))
    }

    pub fn is_open(&self, one: usize, other: usize) -> bool {
        self.busy.contains_key(&(one as u32, other as u32))
    }

    /// Opens a connection; it is ready at the moment that this returns.
    pub fn open(&mut self, now: Moment, from: usize, to: usize, rng: &mut StdRng) -> Moment {
        let ready = now + self.trip(rng) * HANDSHAKE_TRIPS + HANDSHAKE_CPU;
        self.busy.insert((from as u32, to as u32), ready);
        self.busy.insert((to as u32, from as u32), ready);
        ready
    }

    pub fn close(&mut self, one: usize, other: usize) {
        self.busy.remove(&(one as u32, other as u32));
        self.busy.remove(&(other as u32, one as u32));
    }

    /// One message over the open connection; `None` if it does not arrive.
    pub fn carry(&mut self, now: Moment, from: usize, to: usize, rng: &mut StdRng) -> Option<Arrival> {
        let weather = self.weather;
        let mut chance = |share: f64| share > 0.0 && rng.random_bool(share);
        if chance(weather.drop) {
            return None;
        }
        if chance(weather.reset) {
            self.close(from, to);
            return None;
        }
        let (mut late, mut pause) = (Duration::ZERO, RETRANSMIT);
        while chance(weather.loss) {
            late += pause;
            pause *= 2;
        }
        let (swapped, twice) = (chance(weather.swap), chance(weather.double));
        let mut at = now + self.trip(rng) + late;
        if !swapped && let Some(busy) = self.busy.get_mut(&(from as u32, to as u32)) {
            at = at.max(*busy);
            *busy = at;
        }
        Some(Arrival { at, twice })
    }
}
