//! foca's configuration, by the size of the cluster.

use foca::PeriodicParams;
use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

/// How often a member is probed. A failed probe ends in suspicion one period later.
pub const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How long a direct answer may take before others are asked to probe.
pub(super) const PROBE_RTT: Duration = Duration::from_millis(400);
/// How many others are asked to probe, too.
pub(super) const HELPERS: usize = 3;
/// How long a suspect that is silent has to refute, in a small cluster; see [`suspicion_timeout`]. Routing avoids
/// it from the first moment, so patience costs little: with 3 s, a third of the stalls of 2 to 8 s ended in down,
/// with 7 s none.
const SUSPICION_BASE: Duration = Duration::from_secs(7);
/// The same for one that has refused a connection of one member.
const REFUSED_BASE: Duration = Duration::from_secs(3);
/// The same for one that has refused connections of [`ACCUSERS`] members.
const REFUSED_MIN: Duration = Duration::from_millis(1_500);
/// How many members must have been refused for the shortest time: one and three that confirm it. Lifeguard
/// (Dadgar et al. 2018) found that more than three confirmations bring nothing.
const ACCUSERS: usize = 4;
/// Largest packet made and taken. All nodes of a cluster must agree on it.
pub const MAX_PACKET: usize = 1400;
/// Pause between packets that only carry news.
pub(super) const GOSSIP_PERIOD: Duration = Duration::from_millis(200);
/// How long foca remembers a life as down, so that old gossip cannot revive it.
const REMEMBER_DOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a suspect that is silent has to refute before it counts as down: 7 s, and 1 s more for each tenfold of the
/// cluster, because a refutation needs about log(n) rounds to reach everybody.
pub fn suspicion_timeout(members: usize) -> Duration {
    SUSPICION_BASE + Duration::from_secs(u64::from(members.max(1).ilog10()))
}

/// How long a suspect has to refute, by how many members it has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    silent: Duration,
    refused: Duration,
    confirmed: Duration,
    accusers: usize,
}

/// The patience with a suspect in a cluster of `members`, this node included.
pub(super) fn patience(members: usize) -> Patience {
    let digits = members.max(1).ilog10();
    Patience {
        silent: suspicion_timeout(members),
        refused: REFUSED_BASE + Duration::from_secs(u64::from(digits)),
        confirmed: REFUSED_MIN + Duration::from_millis(500) * digits,
        // Neither the suspect nor, in the smallest clusters, anybody else is there to confirm it.
        accusers: ACCUSERS.min(members.saturating_sub(1)),
    }
}

impl Patience {
    /// How many accusers make a difference.
    pub(super) fn accusers(&self) -> usize {
        self.accusers
    }

    /// Falls from `refused` to `confirmed` with the logarithm of the confirmations, as in Lifeguard: the first
    /// ones count most.
    pub(super) fn of(&self, accusers: usize) -> Duration {
        if accusers == 0 {
            return self.silent;
        }
        let all = self.accusers.saturating_sub(1);
        if all == 0 {
            return self.refused;
        }
        let confirmations = accusers.saturating_sub(1).min(all);
        let share = (confirmations as f64 + 1.0).ln() / (all as f64 + 1.0).ln();
        self.refused - self.refused.saturating_sub(self.confirmed).mul_f64(share)
    }
}

pub(super) fn config(members: usize) -> foca::Config {
    // 12 up to 99 members and 4 more for each further tenfold. `new_lan` uses 4·log10(n+1), with which 15 of
    // 1,500 updates missed a node at n = 16; with 12, none of 10,000 did.
    let transmissions = 8 + 4 * members.max(10).ilog10();
    let one = NonZeroUsize::MIN;
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: NonZeroUsize::new(HELPERS).unwrap_or(one),
        max_transmissions: u8::try_from(transmissions)
            .ok()
            .and_then(NonZeroU8::new)
            .unwrap_or(NonZeroU8::MAX),
        suspect_to_down_after: suspicion_timeout(members),
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: NonZeroUsize::new(MAX_PACKET).unwrap_or(one),
        notify_down_members: true,
        // Exchanges compare who is known, over connections that are open; see `gossip::members`.
        periodic_announce: None,
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: Duration::from_secs(20),
            num_members: NonZeroUsize::new(2).unwrap_or(one),
        }),
        periodic_gossip: Some(PeriodicParams {
            frequency: GOSSIP_PERIOD,
            num_members: NonZeroUsize::new(3).unwrap_or(one),
        }),
    }
}
