//! Lookups: one hash each.

use super::live::Live;
use crate::telemetry::Metrics;
use p2p_core::{NodeId, TokenHolder, revocation::has_expired};
use p2p_proto::v1::{Revocation, revocation::What};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Notify, futures::Notified};

/// All tokens of a subject issued before a time.
#[derive(Clone, Copy, Debug)]
struct Subject {
    before: u64,
    expires_at: u64,
}

#[derive(Debug, Default)]
struct Tables {
    /// `jti` to the second from which on the entry is of no use.
    tokens: HashMap<Box<str>, u64>,
    subjects: HashMap<Box<str>, Subject>,
    banned: BTreeSet<NodeId>,
}

impl Tables {
    fn add(&mut self, entry: &Revocation) {
        match &entry.what {
            Some(What::Token(id)) => {
                let until = self.tokens.entry(id.as_str().into()).or_insert(entry.expires_at);
                *until = later(*until, entry.expires_at);
            }
            Some(What::Subject(subject)) => {
                let new = Subject { before: subject.before, expires_at: entry.expires_at };
                let known = self.subjects.entry(subject.subject.as_str().into()).or_insert(new);
                known.before = known.before.max(new.before);
                known.expires_at = later(known.expires_at, new.expires_at);
            }
            // Who is banned is decided from all evictions together and set whole.
            Some(What::Node(_)) | None => {}
        }
    }

    fn is_revoked(&self, holder: &TokenHolder, issued_at: u64, signer: &NodeId) -> bool {
        let by_subject = self.subjects.get(holder.subject.as_str());
        self.tokens.contains_key(&*holder.jti)
            || by_subject.is_some_and(|subject| issued_at < subject.before)
            || self.banned.contains(signer)
    }
}

/// Of two ends, the later; 0 is never.
fn later(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

/// What [`Revocations::list`] returns. Times are Unix seconds; an end of 0 is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// `jti`, and when the entry ends.
    pub tokens: Vec<(String, u64)>,
    /// Subject, before when its tokens were issued, and when the entry ends.
    pub subjects: Vec<(String, u64, u64)>,
    /// Evicted nodes.
    pub nodes: Vec<NodeId>,
    /// Whether there were more tokens or subjects.
    pub truncated: bool,
}

/// What is revoked. Shared by all who decide on evidence.
#[derive(Debug)]
pub struct Revocations {
    tables: RwLock<Tables>,
    live: Live,
    /// Some were lost, and no other node has told them again yet.
    incomplete: AtomicBool,
    incomplete_gauge: Gauge,
    changed: Notify,
    entries: Gauge,
    banned: Gauge,
    closed: Counter,
}

impl Revocations {
    /// Nothing is revoked yet.
    pub fn new(metrics: &Metrics) -> Arc<Self> {
        let (entries, banned, closed) = (Gauge::default(), Gauge::default(), Counter::default());
        let incomplete_gauge = Gauge::default();
        metrics.register(|registry| {
            registry.register(
                "revocations",
                "Revoked tokens and subjects that are enforced",
                entries.clone(),
            );
            registry.register(
                "revocations_incomplete",
                "1 while revocations were lost and no other node has told them again: no token is accepted",
                incomplete_gauge.clone(),
            );
            registry.register("evicted_nodes", "Nodes that are banned from the cluster", banned.clone());
            registry.register(
                "revoked_connections",
                "Connections closed because what they rested on was revoked",
                closed.clone(),
            );
        });
        let tables = RwLock::default();
        Arc::new(Self {
            tables,
            live: Live::default(),
            incomplete: AtomicBool::new(false),
            incomplete_gauge,
            changed: Notify::new(),
            entries,
            banned,
            closed,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether revocations may be missing here, so that no token can be told from a revoked one.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Acquire)
    }

    /// Says whether revocations may be missing here.
    pub fn set_incomplete(&self, incomplete: bool) {
        self.incomplete.store(incomplete, Ordering::Release);
        self.incomplete_gauge.set(incomplete.into());
    }

    /// Open connections; register each here.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Resolves with the next change, of those after this future was enabled.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Whether an access token must not be accepted: itself, its subject, or the coordinator that issued it is revoked.
    pub fn is_revoked(&self, holder: &TokenHolder, issued_at: u64, signer: &NodeId) -> bool {
        self.read().is_revoked(holder, issued_at, signer)
    }

    /// The second before which tokens of the subject are revoked: none may be issued that is older.
    pub fn subject_before(&self, subject: &str) -> Option<u64> {
        self.read().subjects.get(subject).map(|subject| subject.before)
    }

    /// Whether the node is banned from the cluster.
    pub fn is_evicted(&self, node: &NodeId) -> bool {
        self.read().banned.contains(node)
    }

    /// What is revoked, for people: tokens by id, then subjects, at most `limit` of either, and every evicted node.
    pub fn list(&self, limit: usize) -> Listed {
        let tables = self.read();
        let mut tokens: Vec<(String, u64)> =
            tables.tokens.iter().map(|(id, expires_at)| (id.to_string(), *expires_at)).collect();
        tokens.sort_unstable();
        let mut subjects: Vec<(String, u64, u64)> = tables
            .subjects
            .iter()
            .map(|(name, subject)| (name.to_string(), subject.before, subject.expires_at))
            .collect();
        subjects.sort_unstable();
        let truncated = tokens.len() > limit || subjects.len() > limit;
        tokens.truncate(limit);
        subjects.truncate(limit);
        Listed { tokens, subjects, nodes: tables.banned.iter().cloned().collect(), truncated }
    }

    /// Enforces `entries`. Returns how many connections that closed.
    pub fn apply(&self, entries: &[Revocation]) -> usize {
        {
            let mut tables = self.write();
            entries.iter().for_each(|entry| tables.add(entry));
            self.show(&tables);
        }
        self.enforce()
    }

    /// These nodes and no others are banned. Returns how many connections that closed.
    pub fn set_banned(&self, banned: BTreeSet<NodeId>) -> usize {
        {
            let mut tables = self.write();
            tables.banned = banned;
            self.show(&tables);
        }
        self.enforce()
    }

    /// Forgets what forbids nothing any more.
    pub fn expire(&self, unix_s: u64) {
        let mut tables = self.write();
        tables.tokens.retain(|_, expires_at| !has_expired(*expires_at, unix_s));
        tables.subjects.retain(|_, subject| !has_expired(subject.expires_at, unix_s));
        tables.tokens.shrink_to_fit();
        tables.subjects.shrink_to_fit();
        self.show(&tables);
    }

    fn show(&self, tables: &Tables) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.entries.set(count(tables.tokens.len() + tables.subjects.len()));
        self.banned.set(count(tables.banned.len()));
    }

    fn enforce(&self) -> usize {
        let tables = self.read();
        let closed = self.live.close_if(
            |node| tables.banned.contains(node),
            |used| tables.is_revoked(&used.holder, used.issued_at, &used.signer),
        );
        drop(tables);
        self.closed.inc_by(closed as u64);
        self.changed.notify_waiters();
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::live::UsedToken;
    use p2p_core::{Principal, revocation::EXPIRY_GRACE};
    use p2p_proto::v1::SubjectRevocation;

    fn used(id: &str, subject: &str, issued_at: u64) -> UsedToken {
        let holder = TokenHolder { subject: subject.parse().expect("a subject"), jti: id.into() };
        UsedToken { holder, issued_at, signer: node("c") }
    }

    fn is_revoked(revocations: &Revocations, token: &UsedToken) -> bool {
        revocations.is_revoked(&token.holder, token.issued_at, &token.signer)
    }

    fn node(name: &str) -> NodeId {
        name.parse().expect("a node id")
    }

    fn token(id: &str, expires_at: u64) -> Revocation {
        Revocation { expires_at, what: Some(What::Token(id.into())) }
    }

    fn subject(name: &str, before: u64, expires_at: u64) -> Revocation {
        Revocation {
            expires_at,
            what: Some(What::Subject(SubjectRevocation { subject: name.into(), before })),
        }
    }

    fn revocations() -> Arc<Revocations> {
        Revocations::new(&Metrics::default())
    }

    #[test]
    fn a_token_is_refused_for_itself_its_subject_or_its_signer() {
        let revocations = revocations();
        let token_used = used("t", "alice", 100);
        assert!(!is_revoked(&revocations, &token_used));
        revocations.apply(&[token("other", 0), subject("bob", 1000, 0), subject("alice", 100, 0)]);
        assert!(!is_revoked(&revocations, &token_used), "issued at the very second counts as after");
        revocations.apply(&[subject("alice", 101, 0)]);
        assert!(is_revoked(&revocations, &token_used) && !is_revoked(&revocations, &used("u", "alice", 101)));
        assert_eq!(revocations.subject_before("alice"), Some(101));
        revocations.apply(&[subject("alice", 50, 0)]);
        assert_eq!(revocations.subject_before("alice"), Some(101), "an older word takes nothing back");
        revocations.apply(&[token("u", 0)]);
        assert!(is_revoked(&revocations, &used("u", "alice", 101)));
        assert!(!is_revoked(&revocations, &used("v", "carol", 101)));
        revocations.set_banned([node("c")].into());
        assert!(
            is_revoked(&revocations, &used("v", "carol", 101)),
            "the coordinator that issued it is evicted"
        );
        revocations.set_banned(BTreeSet::new());
        assert!(!is_revoked(&revocations, &used("v", "carol", 101)));
    }

    #[test]
    fn what_forbids_nothing_any_more_vanishes() {
        let revocations = revocations();
        let grace = EXPIRY_GRACE.as_secs();
        revocations.apply(&[token("a", 10), token("b", 20), token("c", 0), subject("s", 5, 10)]);
        revocations.expire(9 + grace);
        assert_eq!(revocations.entries.get(), 4);
        revocations.expire(10 + grace);
        assert_eq!(revocations.entries.get(), 2);
        assert!(
            !is_revoked(&revocations, &used("a", "x", 0)) && is_revoked(&revocations, &used("b", "x", 0))
        );
        revocations.apply(&[token("b", 0)]);
        revocations.expire(u64::MAX);
        assert_eq!(revocations.entries.get(), 2, "0 is never");
    }

    #[test]
    fn connections_that_rest_on_what_is_revoked_are_closed_and_others_are_not() {
        let revocations = revocations();
        let worker =
            |name: &str| Principal::Certificate(format!("spiffe://c/worker/{name}").parse().expect("an id"));
        let open = |principal| revocations.live().register(principal, Vec::new());
        let (w1, w2, client) = (open(worker("w1")), open(worker("w2")), open(Principal::Anonymous));
        let token_used = used("t", "alice", 1);
        client.note(&token_used.holder.clone(), || token_used);
        assert_eq!(revocations.set_banned([node("w1")].into()), 1);
        assert!(w1.is_closed() && !w2.is_closed() && !client.is_closed());
        assert_eq!(revocations.set_banned([node("w1")].into()), 0, "each is counted once");
        assert_eq!(revocations.apply(&[token("t", 0)]), 1);
        assert!(client.is_closed() && !w2.is_closed());
        // A coordinator takes what its CA issued with it.
        let enrolled = revocations.live().register(worker("w3"), vec![node("c9")]);
        assert_eq!(revocations.set_banned([node("c9")].into()), 1);
        assert!(enrolled.is_closed());
        drop((w1, w2, client, enrolled));
        assert_eq!(revocations.live().len(), 0);
    }

    #[test]
    fn a_hundred_thousand_revocations_are_looked_up_as_fast_as_one() {
        let revocations = revocations();
        let entries: Vec<Revocation> =
            (0..100_000).map(|number| token(&format!("{number:032x}"), 0)).collect();
        revocations.apply(&entries);
        assert_eq!(revocations.entries.get(), 100_000);
        assert!(is_revoked(&revocations, &used(&format!("{:032x}", 99_999), "x", 0)));
        assert!(!is_revoked(&revocations, &used(&format!("{:032x}", 100_000), "x", 0)));
    }
}
