//! `p2p.v1.GossipService`: hands accepted streams to gossip.

use super::calling_node;
use crate::gossip::{Accepted, Gossip};
use p2p_proto::v1::{EnforceReceipt, GossipFrame, RevocationSegments, gossip_service_server::GossipService};
use tonic::{Request, Response, Status, Streaming};

#[derive(Debug)]
pub(super) struct GossipFrames(pub(super) Gossip);

#[tonic::async_trait]
impl GossipService for GossipFrames {
    type ExchangeStream = Accepted;

    async fn exchange(&self, request: Request<Streaming<GossipFrame>>) -> Result<Response<Accepted>, Status> {
        let (peer, _) = calling_node(request.extensions())?;
        let accepted = self.0.accept(peer, request.into_inner()).await;
        accepted.map(Response::new).map_err(|error| error.to_status())
    }

    async fn enforce(
        &self,
        request: Request<RevocationSegments>,
    ) -> Result<Response<EnforceReceipt>, Status> {
        let (peer, _) = calling_node(request.extensions())?;
        let enforced = self.0.enforce(peer, request.into_inner()).await;
        let enforced = enforced.map_err(|fault| fault.to_status())?;
        Ok(Response::new(EnforceReceipt {
            connections_closed: enforced.connections_closed,
            in_force: enforced.all,
        }))
    }
}
