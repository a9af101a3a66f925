//! Unary calls over the peer stream.

use super::{Router, Unanswered, attempt::Attempt, forwarded::Forwarded};
use crate::{
    error::{Fault, Reason},
    peer::Carried,
    registry::Provider,
};
use http::{Request, Response};
use std::sync::Arc;
use tonic::body::Body;

impl Router {
    /// Sends a unary call over the peer stream to `provider`. The request comes back, unprocessed, where there is none or it
    /// does not take the call.
    pub(super) async fn over_stream(
        &self,
        provider: &Arc<Provider>,
        request: Request<Body>,
    ) -> Result<Result<Response<Body>, Unanswered>, Request<Body>> {
        let Some(stream) = self.pool.stream(&provider.node, provider.address) else { return Err(request) };
        // Before the attempt: a client that is slow to send says nothing about the provider.
        let request = stream.read(request).await?;
        let mut attempt = Attempt::start(provider, true);
        match stream.call(request).await {
            Carried::Answered(response) => {
                attempt.head(&response);
                Ok(Ok(response.map(|body| Body::new(Forwarded::new(body, attempt)))))
            }
            Carried::Not(request) => {
                attempt.void();
                Err(request)
            }
            Carried::Lost(why) => {
                attempt.failed();
                let text =
                    format!("node {} broke off; the call may have been processed: {why}", provider.node);
                Ok(Err(Unanswered::Lost(Fault::new(Reason::ProviderLost, text))))
            }
        }
    }
}
