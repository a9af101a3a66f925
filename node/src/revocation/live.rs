//! Open connections, and what they rest on.

use p2p_core::{NodeId, Principal, TokenHolder};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Most tokens remembered of one connection. A client that shows more is closed with the first of them all the same;
/// those beyond are looked up with each call as ever.
const TOKENS_MAX: usize = 32;

/// What is looked up of an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedToken {
    /// `jti` and `sub`.
    pub holder: TokenHolder,
    /// `iat`, Unix seconds.
    pub issued_at: u64,
    /// The coordinator that signed it.
    pub signer: NodeId,
}

#[derive(Debug)]
struct Entry {
    principal: Principal,
    vouchers: Vec<NodeId>,
    tokens: Mutex<Vec<UsedToken>>,
    closed: CancellationToken,
}

type Entries = Mutex<HashMap<u64, Arc<Entry>>>;

/// All open connections of this node: those it accepted and those it dialled.
#[derive(Clone, Debug, Default)]
pub struct Live {
    entries: Arc<Entries>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// Adds a connection that rests on the certificate of `principal`, for which the coordinators `vouchers` vouch.
    /// It counts until the handle is dropped.
    pub fn register(&self, principal: Principal, vouchers: Vec<NodeId>) -> LiveConnection {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let entry = Arc::new(Entry {
            principal,
            vouchers,
            tokens: Mutex::default(),
            closed: CancellationToken::new(),
        });
        locked(&self.entries).insert(number, entry.clone());
        LiveConnection(Arc::new(Handle { entries: self.entries.clone(), number, entry }))
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        locked(&self.entries).len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes those of one node, with all that is under way on them.
    pub fn close_of(&self, node: &NodeId) {
        for entry in locked(&self.entries).values().filter(|entry| entry.principal.node() == Some(node)) {
            entry.closed.cancel();
        }
    }

    /// Closes those of which a node is `banned`, as the holder of the certificate or as who vouches for it, or a token `revoked`.
    /// Returns how many.
    pub(super) fn close_if(
        &self,
        banned: impl Fn(&NodeId) -> bool,
        revoked: impl Fn(&UsedToken) -> bool,
    ) -> usize {
        // Asked outside the lock that every new connection takes.
        let open: Vec<Arc<Entry>> = locked(&self.entries).values().cloned().collect();
        let doomed = open.iter().filter(|entry| !entry.closed.is_cancelled());
        let doomed = doomed.filter(|entry| {
            entry.principal.node().into_iter().chain(&entry.vouchers).any(&banned)
                || locked(&entry.tokens).iter().any(&revoked)
        });
        doomed.map(|entry| entry.closed.cancel()).count()
    }
}

#[derive(Debug)]
struct Handle {
    entries: Arc<Entries>,
    number: u64,
    entry: Arc<Entry>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        locked(&self.entries).remove(&self.number);
    }
}

impl PartialEq for LiveConnection {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for LiveConnection {}

/// One open connection. Clones are the same; it is gone with the last.
#[derive(Clone, Debug)]
pub struct LiveConnection(Arc<Handle>);

impl LiveConnection {
    /// Remembers that a call over the connection showed the token of `holder`, made by `used` if it is new.
    pub fn note(&self, holder: &TokenHolder, used: impl FnOnce() -> UsedToken) {
        let mut tokens = locked(&self.0.entry.tokens);
        if tokens.len() < TOKENS_MAX && !tokens.iter().any(|known| known.holder.jti == holder.jti) {
            tokens.push(used());
        }
    }

    /// Waits until it must be closed.
    pub async fn closed(&self) {
        self.0.entry.closed.cancelled().await;
    }

    /// Whether it must be closed.
    pub fn is_closed(&self) -> bool {
        self.0.entry.closed.is_cancelled()
    }
}
