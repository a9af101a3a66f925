//! Which members answer this node.

use crate::peer::PeerPool;
use futures_util::{StreamExt as _, stream};
use p2p_core::{NodeId, gossip::View};
use p2p_proto::{
    health::{HealthCheckRequest, health_client::HealthClient},
    v1::{Leg, MemberState},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// How long all members together may take.
const WALK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one may take: a dial's time, and little for the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Members called at a time.
const AT_ONCE: usize = 64;

/// What a walk over all members found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// How many members were called.
    pub(super) called: u32,
    /// Those that do not answer, or are not taken for alive, by their names.
    pub(super) broken: Vec<Leg>,
}

/// Calls every other member that has neither left nor been evicted.
pub(super) async fn walk(pool: &Arc<PeerPool>, own: &NodeId, view: &View) -> Walk {
    let members = view.members.iter().filter(|(node, member)| {
        *node != own && !member.evicted && !matches!(member.state, MemberState::Left)
    });
    let members: Vec<_> =
        members.map(|(node, member)| (node.clone(), member.address, member.state)).collect();
    let called = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let deadline = tokio::time::Instant::now() + WALK_TIMEOUT;
    let legs = members.into_iter().map(|(node, address, state)| async move {
        let limit = deadline.min(tokio::time::Instant::now() + ANSWER_TIMEOUT);
        let answered = tokio::time::timeout_at(limit, ask(pool, &node, address)).await;
        let answered = answered.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()));
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        leg(node, address, state, answered)
    });
    let mut broken: Vec<Leg> =
        stream::iter(legs).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    broken.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    Walk { called, broken }
}

fn leg(node: NodeId, address: String, state: MemberState, answered: Result<(), String>) -> Option<Leg> {
    let sound = answered.is_ok() && state == MemberState::Alive;
    (!sound).then(|| Leg {
        node_id: node.to_string(),
        address,
        state: state.into(),
        reason: answered.err().unwrap_or_default(),
    })
}

/// Any answer shows that the node is there: one that stops is no broken leg.
async fn ask(pool: &Arc<PeerPool>, node: &NodeId, address: Option<SocketAddr>) -> Result<(), String> {
    let address = address.ok_or("no address of its present start is known")?;
    let connection = pool.get(node, address).await.map_err(|error| error.to_string())?;
    let origin =
        http::Uri::builder().scheme("https").authority(address.to_string()).path_and_query("/").build();
    let mut client = HealthClient::with_origin(connection, origin.unwrap_or_default());
    match client.check(HealthCheckRequest { service: String::new() }).await {
        Ok(_) => Ok(()),
        Err(status) if status.metadata().contains_key(CALL_ID) => Ok(()),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// What every answer of a node carries, and no error of a connection.
const CALL_ID: &str = "p2p-call-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_sound_if_its_member_answers_and_is_taken_for_alive() {
        let leg =
            |state, answered| leg("w".parse().expect("an id"), "10.0.0.7:1".to_owned(), state, answered);
        assert_eq!(leg(MemberState::Alive, Ok(())), None);
        let refused = leg(MemberState::Alive, Err("refused".to_owned())).expect("broken");
        assert_eq!((refused.node_id.as_str(), refused.reason.as_str()), ("w", "refused"));
        let held_for_dead = leg(MemberState::Down, Ok(())).expect("worth telling");
        assert_eq!((held_for_dead.state(), held_for_dead.reason.as_str()), (MemberState::Down, ""));
    }
}
