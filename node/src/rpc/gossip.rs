//! `p2p.v1.GossipService`: hands accepted streams to gossip.

use super::caller;
use crate::gossip::{Accepted, Gossip};
use p2p_proto::v1::{EnforceReceipt, GossipFrame, RevocationSegments, gossip_service_server::GossipService};
use tonic::{Request, Response, Status, Streaming};

#[derive(Debug)]
pub(super) struct GossipFrames(pub(super) Gossip);

#[tonic::async_trait]
impl GossipService for GossipFrames {
    type ExchangeStream = Accepted;

    async fn exchange(&self, request: Request<Streaming<GossipFrame>>) -> Result<Response<Accepted>, Status> {
        let caller = caller(request.extensions())?;
        let peer = caller.connection.principal.node().cloned();
        let peer = peer.ok_or_else(|| Status::permission_denied("gossip takes a node's own certificate"))?;
        let accepted = self.0.accept(peer, request.into_inner()).await;
        accepted.map(Response::new).map_err(|error| error.to_status())
    }

    async fn enforce(
        &self,
        request: Request<RevocationSegments>,
    ) -> Result<Response<EnforceReceipt>, Status> {
        let caller = caller(request.extensions())?;
        let peer = caller.connection.principal.node().cloned();
        let peer = peer.ok_or_else(|| Status::permission_denied("gossip takes a node's own certificate"))?;
        let enforced = self.0.enforce(peer, request.into_inner()).await;
        let enforced = enforced.map_err(|fault| fault.to_status())?;
        Ok(Response::new(EnforceReceipt {
            connections_closed: enforced.connections_closed,
            in_force: enforced.all,
        }))
    }
}
