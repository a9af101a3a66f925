//! What speaks for and against members, as this node came to know it: about one, and as it comes.

use super::{Parts, cluster::timestamp_ms};
use crate::{
    error::{Fault, Reason},
    shutdown::{Phase, ShutdownWatch},
};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use p2p_core::{NodeId, gossip, suggest};
use p2p_proto::v1::{EventsResponse, Evidence, MemberState, WhyResponse, events_response::Event};
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tonic::Status;

/// The answer of `Events`.
pub(super) type Events = BoxStream<'static, Result<EventsResponse, Status>>;

/// Why this node thinks what it thinks of a member.
pub(super) async fn why(parts: &Parts, name: &str) -> Result<WhyResponse, Fault> {
    let node: NodeId = name
        .parse()
        .map_err(|error| Fault::new(Reason::InvalidArgument, format!("{name:?} is no node id: {error}")))?;
    let evidence = parts.gossip.why(node.clone()).await;
    let view = parts.gossip.view().borrow().clone();
    let member = view.members.get(&node);
    // Failure detection may know a node whose records have not arrived.
    let newest = evidence.last().map(|newest| (newest.to, newest.unix_ms));
    let Some((state, since)) = member.map(|member| (member.state, member.since_unix_ms)).or(newest) else {
        let known = view.members.keys().map(NodeId::as_str);
        let hint = suggest::nearest(name, known).map(|known| format!("; did you mean {known}?"));
        return Err(Fault::new(
            Reason::NotFound,
            format!("{} knows no node {name}{}", parts.facts.node, hint.unwrap_or_default()),
        ));
    };
    Ok(WhyResponse {
        node_id: node.to_string(),
        state: state.into(),
        since: Some(timestamp_ms(since)),
        evicted: member.is_some_and(|member| member.evicted),
        seen_by: parts.facts.node.to_string(),
        evidence: evidence.iter().map(|evidence| message(evidence)).collect(),
    })
}

/// What is kept of members, and with `follow` what comes, until the caller has enough or the node stops.
pub(super) async fn events(parts: &Parts, follow: bool) -> Result<Events, Fault> {
    let stopping = || Fault::new(Reason::ShuttingDown, "this node is shutting down");
    let (kept, coming) = parts.gossip.watch().await.ok_or_else(stopping)?;
    let kept = stream::iter(kept).map(|evidence| found(&evidence));
    if !follow {
        return Ok(kept.map(Ok).boxed());
    }
    Ok(kept.chain(following(coming, parts.shutdown.clone())).map(Ok).boxed())
}

fn following(
    coming: Receiver<Arc<gossip::Evidence>>,
    shutdown: ShutdownWatch,
) -> impl stream::Stream<Item = EventsResponse> {
    stream::unfold((coming, shutdown), |(mut coming, mut shutdown)| async move {
        let event = tokio::select! {
            next = next(&mut coming) => next?,
            () = shutdown.reached(Phase::Draining) => return None,
        };
        Some((event, (coming, shutdown)))
    })
}

/// What comes next; after a gap, how much was missed. `None` once gossip has ended.
async fn next(coming: &mut Receiver<Arc<gossip::Evidence>>) -> Option<EventsResponse> {
    match coming.recv().await {
        Ok(evidence) => Some(found(&evidence)),
        Err(RecvError::Lagged(missed)) => Some(EventsResponse { event: Some(Event::Missed(missed)) }),
        Err(RecvError::Closed) => None,
    }
}

fn found(evidence: &gossip::Evidence) -> EventsResponse {
    EventsResponse { event: Some(Event::Evidence(message(evidence))) }
}

fn message(evidence: &gossip::Evidence) -> Evidence {
    Evidence {
        at: Some(timestamp_ms(evidence.unix_ms)),
        node_id: evidence.node.to_string(),
        from: evidence.from.unwrap_or(MemberState::Unspecified).into(),
        to: evidence.to.into(),
        kind: evidence.reason.word().to_owned(),
        reason: evidence.reason.to_string(),
        by: evidence.reason.by().map(ToString::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::broadcast;

    fn evidence(unix_ms: u64) -> Arc<gossip::Evidence> {
        Arc::new(gossip::Evidence {
            unix_ms,
            node: "w1".parse().expect("a node id"),
            from: Some(MemberState::Alive),
            to: MemberState::Suspect,
            reason: p2p_core::membership::Reason::Rumour { by: "w2".parse().expect("a node id") },
        })
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed() {
        let sender = broadcast::Sender::new(4);
        let mut coming = sender.subscribe();
        for at in 0..10 {
            sender.send(evidence(at)).expect("one reads");
        }
        let missed = next(&mut coming).await.expect("an event").event;
        assert_eq!(missed, Some(Event::Missed(6)));
        let first = next(&mut coming).await.expect("an event");
        assert_eq!(first, found(&evidence(6)));
        drop(sender);
        for _ in 7..10 {
            assert!(next(&mut coming).await.is_some());
        }
        assert_eq!(next(&mut coming).await, None);
    }

    #[tokio::test]
    async fn who_follows_is_let_go_when_the_node_stops() {
        let sender = broadcast::Sender::new(4);
        let (shutdown, watch) = crate::shutdown::Shutdown::new();
        let mut following = std::pin::pin!(following(sender.subscribe(), watch));
        sender.send(evidence(1)).expect("one reads");
        assert_eq!(following.next().await, Some(found(&evidence(1))));
        shutdown.advance(Phase::Draining);
        assert_eq!(following.next().await, None);
    }
}
