//! Calls over the peer stream.

use super::{
    Router,
    forwarded::{Forwarded, InFlight},
};
use crate::{
    error::{Fault, Reason},
    peer::Carried,
    registry::{Method, Provider},
};
use http::{Request, Response};
use p2p_core::method::StreamingKind;
use std::sync::Arc;
use tonic::body::Body;

impl Router {
    /// Sends a unary call over the peer stream to `provider`. The request comes back, unprocessed, where there is none or it
    /// does not take the call.
    pub(super) async fn over_stream(
        &self,
        method: &Method,
        provider: &Arc<Provider>,
        request: Request<Body>,
    ) -> Result<Result<Response<Body>, Fault>, Request<Body>> {
        if method.info.streaming != StreamingKind::Unary {
            return Err(request);
        }
        let Some(stream) = self.pool.stream(&provider.node, provider.address) else { return Err(request) };
        let in_flight = InFlight::start(provider);
        match stream.call(request).await {
            Carried::Answered(response) => {
                Ok(Ok(response.map(|body| Body::new(Forwarded::new(body, in_flight)))))
            }
            Carried::Not(request) => Err(request),
            Carried::Lost(why) => Ok(Err(Fault::new(
                Reason::ProviderLost,
                format!("node {} broke off; the call may have been processed: {why}", provider.node),
            ))),
        }
    }
}
