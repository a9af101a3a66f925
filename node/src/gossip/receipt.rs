//! An eviction's receipt: every member that is alive is told directly, and asked whether it is in force.

use super::Gossip;
use crate::peer::PeerPool;
use futures_util::{StreamExt as _, stream};
use p2p_core::NodeId;
use p2p_proto::v1::{
    EnforceReceipt, MemberState, RevocationSegment, RevocationSegments,
    gossip_service_client::GossipServiceClient,
};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

/// How long all members together may take. Who does not answer learns of it by gossip.
const RECEIPTS_TIMEOUT: Duration = Duration::from_secs(5);
/// Members told at a time.
const AT_ONCE: usize = 64;

/// Who enforces what was revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Members that are alive, this node included.
    pub nodes: u32,
    /// How many of them enforce it.
    pub enforced: u32,
    /// Connections that they closed.
    pub connections_closed: u32,
    /// Who did not answer in time.
    pub missing: Vec<NodeId>,
}

impl Gossip {
    /// Tells every member that is alive, but `but`, and waits for their word. `closed_here`: how many connections it
    /// closed on this node.
    pub async fn enforce_everywhere(
        &self,
        segments: &[Arc<RevocationSegment>],
        but: &BTreeSet<NodeId>,
        closed_here: u32,
    ) -> Receipt {
        let own = self.own.borrow().node.clone();
        let others: Vec<(NodeId, Option<SocketAddr>)> = self
            .view
            .borrow()
            .members
            .iter()
            .filter(|(node, member)| {
                member.state == MemberState::Alive && !member.evicted && **node != own && !but.contains(*node)
            })
            .map(|(node, member)| (node.clone(), member.address))
            .collect();
        let nodes = u32::try_from(others.len()).unwrap_or(u32::MAX).saturating_add(1);
        let mut receipt =
            Receipt { nodes, enforced: 1, connections_closed: closed_here, missing: Vec::new() };
        let message =
            RevocationSegments { segments: segments.iter().map(|segment| (**segment).clone()).collect() };
        let deadline = tokio::time::Instant::now() + RECEIPTS_TIMEOUT;
        let told = others.into_iter().map(|(node, address)| {
            let (pool, message) = (self.pool.clone(), message.clone());
            async move {
                let told = tokio::time::timeout_at(deadline, tell(&pool, &node, address, message)).await;
                (node, told.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned())))
            }
        });
        let mut told = stream::iter(told).buffer_unordered(AT_ONCE);
        while let Some((node, result)) = told.next().await {
            match result {
                Ok(answer) if !answer.in_force => {
                    tracing::warn!(peer.id = %node, "a member refused a revocation; its log says why");
                    receipt.missing.push(node);
                }
                Ok(answer) => {
                    receipt.enforced += 1;
                    receipt.connections_closed += answer.connections_closed;
                }
                Err(error) => {
                    tracing::warn!(peer.id = %node, %error, "a member did not confirm a revocation; gossip goes on");
                    receipt.missing.push(node);
                }
            }
        }
        receipt.missing.sort();
        receipt
    }
}

async fn tell(
    pool: &Arc<PeerPool>,
    node: &NodeId,
    address: Option<SocketAddr>,
    message: RevocationSegments,
) -> Result<EnforceReceipt, String> {
    let address = address.ok_or("no address is known")?;
    let connection = pool.get(node, address).await.map_err(|error| error.to_string())?;
    let origin =
        http::Uri::builder().scheme("https").authority(address.to_string()).path_and_query("/").build();
    let mut client = GossipServiceClient::with_origin(connection, origin.unwrap_or_default());
    client.enforce(message).await.map(tonic::Response::into_inner).map_err(|status| status.to_string())
}
