//! The end of a connection whose certificate expires.
//!
//! A handshake proves its certificate for one moment; a connection may stay open for months. So when the
//! certificate expires, new calls are sent elsewhere (GOAWAY), which for a holder with a newer certificate is a
//! new connection. Calls in flight go on: for a node as long as it has a valid certificate at all, as its signed
//! record says, and at most [`OVERTIME`]; for everybody else [`LAST_CALLS`].

use crate::{
    auth::Connection,
    identity::{UnixTime, schedule},
    peer::OVERTIME,
};
use p2p_core::{NodeId, gossip::View};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long calls in flight may go on where nobody vouches for their caller any more; for nodes also the pause
/// between two looks at their record.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// When a connection must end.
#[derive(Clone, Debug)]
pub(super) struct Expiry {
    not_after: Option<UnixTime>,
    node: Option<NodeId>,
    view: watch::Receiver<Arc<View>>,
}

impl Expiry {
    pub(super) fn of(connection: &Connection, view: watch::Receiver<Arc<View>>) -> Self {
        let certificate = connection.certificate.as_ref();
        Self {
            not_after: certificate.map(|certificate| certificate.not_after),
            node: certificate.and_then(|certificate| certificate.spiffe.node().cloned()),
            view,
        }
    }

    /// Waits until the certificate has expired; for ever where there is none.
    pub(super) async fn passed(&self) {
        match self.not_after {
            // Its last second is still in time.
            Some(at) => schedule::reached(after(at, Duration::from_secs(1))).await,
            None => std::future::pending().await,
        }
    }

    /// After [`Self::passed`]: waits until calls in flight must end, too.
    pub(super) async fn over(&self) {
        loop {
            tokio::time::sleep(LAST_CALLS).await;
            if !self.holder_is_valid(UnixTime::now()) {
                return;
            }
        }
    }

    fn holder_is_valid(&self, now: UnixTime) -> bool {
        let Some(at) = self.not_after else { return true };
        let view = self.view.borrow();
        let member = self.node.as_ref().and_then(|node| view.members.get(node));
        let until = member.and_then(|member| u64::try_from(member.records.signer.expires_at).ok());
        now <= after(at, OVERTIME) && until.is_some_and(|until| now.as_secs() <= until)
    }
}

fn after(at: UnixTime, more: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()).saturating_add(more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerCertificate;
    use p2p_core::{
        Epoch, SpiffeId,
        gossip::MemberView,
        record::{RecordView, Signer},
    };
    use p2p_proto::v1::{MemberState, NodeRecord};

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn expiry(spiffe: &str, published: Option<i64>) -> Expiry {
        let id: SpiffeId = spiffe.parse().unwrap();
        let certificate = PeerCertificate {
            spiffe: id.clone(),
            not_before: at(0),
            not_after: at(1_000),
            grant: None,
            vouchers: vec![],
            public_key: vec![],
        };
        let connection = Connection::with_certificate([127, 0, 0, 1].into(), certificate);
        let member = |expires_at| MemberView {
            evicted: false,
            state: MemberState::Alive,
            since_unix_ms: 0,
            epoch: Epoch(1),
            current: true,
            address: None,
            rtt: p2p_core::membership::Rtt::default(),
            records: Arc::new(RecordView {
                node: NodeRecord::default(),
                services: Default::default(),
                not_granted: Vec::new(),
                signer: Signer { id: id.clone(), grant: None, expires_at },
            }),
        };
        let members = published.map(|expires_at| (id.name.clone(), member(expires_at))).into_iter().collect();
        Expiry::of(&connection, watch::channel(Arc::new(View { members })).1)
    }

    #[test]
    fn calls_go_on_for_a_node_that_has_renewed_and_not_for_ever() {
        let day = OVERTIME.as_secs();
        let renewed = expiry("spiffe://c/worker/w", Some(i64::MAX));
        assert!(renewed.holder_is_valid(at(1_001)) && renewed.holder_is_valid(at(1_000 + day)));
        assert!(!renewed.holder_is_valid(at(1_001 + day)));
        let once = expiry("spiffe://c/worker/w", Some(2_000));
        assert!(once.holder_is_valid(at(2_000)) && !once.holder_is_valid(at(2_001)));
        assert!(!expiry("spiffe://c/worker/w", None).holder_is_valid(at(1_001)), "unknown");
        assert!(!expiry("spiffe://c/admin/w", Some(i64::MAX)).holder_is_valid(at(1_001)), "no node");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_an_expired_certificate_ends_after_its_last_calls() {
        let since = tokio::time::Instant::now();
        let expired = expiry("spiffe://c/admin/a", None);
        expired.passed().await;
        assert_eq!(since.elapsed(), Duration::ZERO, "1970 is over");
        expired.over().await;
        assert_eq!(since.elapsed(), LAST_CALLS);
    }
}
