//! Which connections may be open.
//!
//! Three limits: in all, of one address, and of those that have not said anything yet. Where one is reached, the connection
//! that is worth least makes room: one that has not got as far as HTTP, else a stranger's without a call under way, the
//! longest idle first. Each has had a moment to prove itself, unless many others of its address are at the same point. So
//! ten thousand clients that stall do not keep out the one that works, and a newcomer is refused only where all others are
//! young, busy, or members.

mod table;

pub(super) use table::Ended;

use super::{ServerLimits, metrics::ConnectionMetrics};
use crate::limit::client_address;
use arc_swap::ArcSwap;
use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use table::{Entry, Table, locked};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The open connections of a node.
#[derive(Debug)]
pub(super) struct Admission {
    limits: ArcSwap<ServerLimits>,
    table: Mutex<Table>,
    metrics: ConnectionMetrics,
}

impl Admission {
    pub(super) fn new(limits: ServerLimits, metrics: ConnectionMetrics) -> Arc<Self> {
        metrics.show_limits(&limits);
        Arc::new(Self { limits: ArcSwap::from_pointee(limits), table: Mutex::default(), metrics })
    }

    /// The limits of connections that are opened now.
    pub(super) fn limits(&self) -> Arc<ServerLimits> {
        self.limits.load_full()
    }

    /// Sets the limits of connections that are opened from now on. Where more are open, the next one makes the one that is
    /// worth least go, as ever.
    pub(super) fn limit_to(&self, limits: ServerLimits) {
        self.metrics.show_limits(&limits);
        self.limits.store(Arc::new(limits));
    }

    /// Admits a connection from `address`, which is `exempt` from the limit of one address if many clients stand behind
    /// it; or says which limit is reached.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, exempt: bool) -> Result<Ticket, &'static str> {
        let (now, address) = (Instant::now(), client_address(address));
        let limits = self.limits.load();
        let mut table = locked(&self.table);
        let of_address = table.by_address.get(&address).copied().unwrap_or_default();
        if !exempt && of_address >= limits.per_address {
            let same = |entry: &Entry| entry.address == address && entry.counted.load(Ordering::Relaxed);
            if !table.make_room(now, same) {
                return Err("address_limit");
            }
        }
        if table.opening.len() >= limits.opening
            && !table.make_room_to_open(now, (!exempt).then_some(address))
        {
            return Err("opening_limit");
        }
        if table.open.len() >= limits.connections && !table.make_room(now, |_| true) {
            return Err("limit");
        }
        let entry = Arc::new(Entry {
            address,
            opened: now,
            speaks: AtomicBool::new(false),
            member: AtomicBool::new(false),
            counted: AtomicBool::new(!exempt),
            calls: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            resets: Mutex::default(),
            ended: Mutex::default(),
            end: CancellationToken::new(),
        });
        let number = table.add(&entry);
        self.show(&table);
        drop(table);
        Ok(Ticket { admission: self.clone(), number, entry })
    }

    fn show(&self, table: &Table) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.open.set(number(table.open.len()));
        self.metrics.opening.set(number(table.opening.len()));
    }
}

/// One open connection; its place is free once this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Arc<Admission>,
    number: u64,
    entry: Arc<Entry>,
}

impl Ticket {
    /// Its client has got as far as HTTP.
    pub(super) fn speaks(&self) {
        let mut table = locked(&self.admission.table);
        // Who has had to make room is no longer counted.
        if table.open.contains_key(&self.number) && !self.entry.speaks.swap(true, Ordering::Relaxed) {
            table.leave_opening(self.number);
            self.admission.show(&table);
        }
    }

    /// Its client has shown a certificate of this cluster: it does not count for its address, behind which there may be
    /// others, and makes room for nobody.
    pub(super) fn is_member(&self) {
        self.entry.member.store(true, Ordering::Relaxed);
        locked(&self.admission.table).leave_address(self.number, &self.entry);
    }

    /// It is ended because it has had nothing to do for long.
    pub(super) fn ends_idle(&self) {
        self.admission.metrics.ended("idle");
    }

    /// What counts the calls of it.
    pub(super) fn activity(&self) -> Activity {
        Activity(self.entry.clone())
    }

    /// Waits until it must end at once.
    pub(super) async fn ended(&self) {
        self.entry.end.cancelled().await;
    }

    /// Waits until it has had nothing to do for `timeout`.
    pub(super) async fn idle_for(&self, timeout: Duration) {
        loop {
            let idle = match self.entry.calls.load(Ordering::Relaxed) {
                0 => self.entry.idle(Instant::now()),
                _ => Duration::ZERO,
            };
            match timeout.checked_sub(idle) {
                None | Some(Duration::ZERO) => return,
                Some(rest) => tokio::time::sleep(rest).await,
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = locked(&self.admission.table);
        table.remove(self.number);
        self.admission.show(&table);
        drop(table);
        if let Some(why) = *locked(&self.entry.ended) {
            self.admission.metrics.ended(match why {
                Ended::Room => "room",
                Ended::Resets => "resets",
            });
        }
    }
}

/// Counts the calls of one connection.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Entry>);

impl Activity {
    /// A call has begun.
    pub(super) fn begin(&self) -> Begun {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        Begun { entry: self.0.clone(), answered: false }
    }

    /// A request has broken off. Whoever reads it may answer that at once, as if it had been a call. It may count twice, if
    /// its call is dropped before that.
    pub(super) fn broke_off(&self) {
        self.0.taken_back();
    }
}

/// A call that has begun. If it is dropped before any of its answer was fetched, its client took it back.
#[derive(Debug)]
pub(super) struct Begun {
    entry: Arc<Entry>,
    answered: bool,
}

impl Begun {
    /// Its answer is being fetched, or it was one.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let entry = &self.entry;
        entry.idle_since.store(entry.age(), Ordering::Relaxed);
        entry.calls.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            entry.taken_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::table::{FAIR_IDLE, FAIR_START, RESETS_MAX};
    use super::*;

    fn admission(connections: usize, per_address: usize, opening: usize) -> Arc<Admission> {
        let second = Duration::from_secs(1);
        let limits = ServerLimits {
            connections,
            per_address,
            opening,
            streams: 1,
            handshake: second,
            preface: second,
            idle: second,
            proxies: Vec::new(),
        };
        Admission::new(limits, ConnectionMetrics::default())
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn is_ended(ticket: &Ticket) -> bool {
        ticket.entry.end.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn who_stalls_makes_room_and_who_is_young_does_not() {
        let admission = admission(100, 100, 2);
        let (first, second) =
            (admission.admit(A, false).expect("room"), admission.admit(A, false).expect("room"));
        assert_eq!(admission.admit(B, false).expect_err("all are young"), "opening_limit");
        tokio::time::advance(FAIR_START).await;
        second.speaks();
        let third = admission.admit(B, false).expect("one has spoken");
        let fourth = admission.admit(B, false).expect("one has stalled");
        assert!(is_ended(&first) && !is_ended(&second) && !is_ended(&third));
        drop((first, second, third, fourth));
        let table = locked(&admission.table);
        assert!(table.open.is_empty() && table.opening.is_empty(), "{table:?}");
        assert!(table.by_address.is_empty() && table.opening_by_address.is_empty(), "{table:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_opens_connections_without_end_keeps_out_only_itself() {
        let admission = admission(100, 100, 6);
        let flood: Vec<Ticket> = (0..5).map(|_| admission.admit(A, false).expect("room")).collect();
        let first = admission.admit(B, false).expect("room");
        // All are young, so the age of none speaks against it.
        let second = admission.admit(B, false).expect("one of those who have many makes room");
        assert_eq!(
            admission.admit(B, false).expect_err("three are not much less than four"),
            "opening_limit"
        );
        assert_eq!(admission.admit(A, false).expect_err("the flood itself"), "opening_limit");
        assert_eq!(flood.iter().map(is_ended).collect::<Vec<_>>(), [true, false, false, false, false]);
        assert!(!is_ended(&first) && !is_ended(&second));
        // Members do not count for their address, also before they have spoken.
        flood[1..4].iter().for_each(Ticket::is_member);
        let none = admission.admit(IpAddr::from([192, 0, 2, 3]), false);
        assert_eq!(none.expect_err("one of A, two of B, three members"), "opening_limit");
        drop((flood, first, second));
        let table = locked(&admission.table);
        assert!(table.opening.is_empty() && table.opening_by_address.is_empty(), "{table:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_node_ends_the_stranger_that_has_been_idle_longest() {
        let admission = admission(4, 100, 100);
        let tickets: Vec<Ticket> = (0..4).map(|_| admission.admit(A, false).expect("room")).collect();
        tickets.iter().for_each(Ticket::speaks);
        tickets[0].is_member();
        let _busy = tickets[1].activity().begin();
        assert_eq!(admission.admit(B, false).expect_err("none is idle for long"), "limit");
        tokio::time::advance(FAIR_IDLE).await;
        drop(tickets[2].activity().begin());
        tokio::time::advance(FAIR_IDLE).await;
        let _next = admission.admit(B, false).expect("the idle one makes room");
        let ended: Vec<bool> = tickets.iter().map(is_ended).collect();
        assert_eq!(ended, [false, false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_does_not_take_the_places_of_others_and_members_do_not_count() {
        let admission = admission(100, 2, 100);
        let first = admission.admit(A, false).expect("room");
        let second = admission.admit(A, false).expect("room");
        [&first, &second].into_iter().for_each(Ticket::speaks);
        assert_eq!(admission.admit(A, false).expect_err("two are all"), "address_limit");
        admission.admit(B, false).expect("another address");
        admission.admit(A, true).expect("a proxy");
        first.is_member();
        tokio::time::advance(FAIR_IDLE).await;
        let third = admission.admit(A, false).expect("a member does not count");
        third.speaks();
        tokio::time::advance(FAIR_IDLE).await;
        let _fourth = admission.admit(A, false).expect("an idle one of the same address makes room");
        assert!(is_ended(&second) && !is_ended(&first) && !is_ended(&third));
    }

    #[tokio::test(start_paused = true)]
    async fn lower_limits_hold_for_connections_that_are_opened_from_then_on() {
        let admission = admission(4, 100, 100);
        let tickets: Vec<Ticket> = (0..4).map(|_| admission.admit(A, false).expect("room")).collect();
        tickets.iter().for_each(Ticket::speaks);
        tokio::time::advance(FAIR_IDLE).await;
        admission.limit_to(ServerLimits { connections: 2, ..ServerLimits::clone(&admission.limits()) });
        assert!(!tickets.iter().any(is_ended), "who is here stays");
        let _next = admission.admit(B, false).expect("an idle one makes room");
        assert_eq!(tickets.iter().filter(|ticket| is_ended(ticket)).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_back_call_after_call_is_ended() {
        let admission = admission(10, 10, 10);
        let (ticket, node) =
            (admission.admit(A, false).expect("room"), admission.admit(B, false).expect("room"));
        node.is_member();
        for _ in 0..RESETS_MAX {
            drop(ticket.activity().begin());
            ticket.activity().begin().answered();
            node.activity().broke_off();
        }
        assert!(!is_ended(&ticket));
        ticket.activity().broke_off();
        drop(node.activity().begin());
        assert!(is_ended(&ticket) && !is_ended(&node));
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_is_counted_from_the_end_of_the_last_call() {
        let admission = admission(10, 10, 10);
        let ticket = admission.admit(A, false).expect("room");
        let (started, minute) = (Instant::now(), Duration::from_secs(60));
        let call = ticket.activity().begin();
        let call = async {
            tokio::time::sleep(minute * 3).await;
            drop(call);
        };
        tokio::join!(call, ticket.idle_for(minute));
        assert_eq!(started.elapsed(), minute * 4);
    }
}
