//! `p2p.v1.PeerService`: hands accepted streams to `peer`.

use super::calling_node;
use crate::peer::{Streams, stream::Outflow};
use p2p_proto::v1::{PeerFrame, peer_service_server::PeerService};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

#[derive(Debug)]
pub(super) struct PeerCalls(pub(super) Arc<Streams>);

#[tonic::async_trait]
impl PeerService for PeerCalls {
    type CallsStream = Outflow;

    async fn calls(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Outflow>, Status> {
        let (peer, caller) = calling_node(request.extensions())?;
        self.0.accept(peer, caller.connection.clone(), request.into_inner()).map(Response::new)
    }
}
