//! Unary calls over the peer stream.

use super::{Router, Unanswered, attempt::Attempt, forwarded::Forwarded};
use crate::{
    error::{Fault, Reason},
    peer::StreamUnanswered,
    registry::Provider,
};
use bytes::Bytes;
use http::{Request, Response};
use std::sync::Arc;
use tonic::body::Body;

impl Router {
    /// Sends a unary call over the peer stream to `provider` if its request is `small`. `None`, with nothing processed, where there is none or it does
    /// not take the call.
    pub(super) async fn over_stream(
        &self,
        provider: &Arc<Provider>,
        small: Option<&Request<Bytes>>,
    ) -> Option<Result<Response<Body>, Unanswered>> {
        let stream = self.pool.stream(&provider.node, provider.address)?;
        let Some(request) = small else {
            stream.oversized();
            return None;
        };
        let mut attempt = Attempt::start(provider, true);
        match stream.call(request).await {
            Ok(response) => {
                attempt.head(&response);
                Some(Ok(response.map(|body| Body::new(Forwarded::new(body, attempt)))))
            }
            Err(StreamUnanswered::NotCarried) => {
                attempt.void();
                None
            }
            Err(StreamUnanswered::Lost(why)) => {
                attempt.failed();
                let text =
                    format!("node {} broke off; the call may have been processed: {why}", provider.node);
                Some(Err(Unanswered::Lost(Fault::new(Reason::ProviderLost, text))))
            }
        }
    }
}
