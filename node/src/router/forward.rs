//! The hop: a call goes to a provider, and to another one where that does no harm ([`Why`]).

use super::{
    GRPC_TIMEOUT, Router, Unanswered,
    held::hold,
    no_provider,
    outgoing::Outgoing,
    retry::{Candidates, PREVIOUS_ATTEMPTS, Tries, Why, previous_attempts},
    timeout_header,
};
use crate::{
    auth::Caller,
    error::{Fault, Reason},
    registry::{Method, Provider},
};
use http::{Request, Response, header};
use p2p_core::{NodeId, method::StreamingKind};
use tokio::time::Instant;
use tonic::body::Body;

impl Router {
    /// `refused` says why this node itself does not serve what it provides, for the case that nobody else does.
    pub(super) async fn forward(
        &self,
        method: &Method,
        caller: &Caller,
        deadline: Option<Instant>,
        candidates: Candidates<'_>,
        mut request: Request<Body>,
        refused: Option<Fault>,
    ) -> Result<(Response<Body>, NodeId), Fault> {
        let headers = request.headers_mut();
        caller.pass_on(headers, &self.entry_node);
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
        request.extensions_mut().clear();
        let (repeatable, unary) = (method.is_repeatable(), method.info.streaming == StreamingKind::Unary);
        let mut attempts = previous_attempts(request.headers());
        // The first try that may have been processed: what the caller must know, whatever came of the others.
        let mut lost = refused.clone().filter(|fault| fault.reason == Reason::ProviderLost);
        let (mut last, mut tries) = (refused, Tries::new(candidates));
        self.called();
        let mut call = Outgoing::of(request, unary).await;
        while let Some(provider) = tries.next() {
            if let Some(deadline) = deadline {
                call.headers_mut().insert(GRPC_TIMEOUT, timeout_header(deadline));
            }
            if attempts > 0 {
                call.headers_mut().insert(PREVIOUS_ATTEMPTS, attempts.into());
            }
            let (why, fault, whole, answer) = match self.attempt(provider, unary, &mut call).await {
                Ok(response) => {
                    let response = if repeatable && unary { hold(response).await } else { response };
                    match Why::of_answer(response.headers()) {
                        Some(why) => (why, refusal(provider, why, &response), false, Some(response)),
                        None => {
                            self.metrics.forwarded.inc();
                            return Ok((response, provider.node.clone()));
                        }
                    }
                }
                Err(Unanswered::Unreached(fault)) => (Why::Unreached, fault, true, None),
                Err(Unanswered::Closed(fault, whole)) => (Why::Closed, fault, whole, None),
                Err(Unanswered::Lost(fault)) => (Why::Lost, fault, false, None),
            };
            match why {
                Why::Unreached | Why::Refused => {}
                Why::Closed | Why::Lost | Why::Pushback(_) => tries.allow_again(),
            }
            let allowed = tries.more() && (!why.is_doubtful() || repeatable);
            let again = allowed && (whole || call.again()) && self.may_retry(why, deadline).await;
            if !again {
                let Some(response) = answer.filter(|_| lost.is_none()) else {
                    return Err(lost.unwrap_or(fault));
                };
                self.metrics.forwarded.inc();
                return Ok((response, provider.node.clone()));
            }
            tracing::debug!(peer.id = %provider.node, method = %method.info.path, why = why.word(), %fault, "call made again");
            self.metrics.retried(why);
            attempts = attempts.saturating_add(u32::from(why.is_doubtful()));
            if why == Why::Lost {
                lost.get_or_insert_with(|| fault.clone());
            }
            last = Some(fault);
        }
        Err(lost.or(last).unwrap_or_else(|| no_provider(&method.info.path)))
    }

    /// Whether the budget and the time allow to make a call again; waits as long as its provider wants.
    pub(super) async fn may_retry(&self, why: Why, deadline: Option<Instant>) -> bool {
        if let Why::Pushback(pause) = why {
            let until = Instant::now() + pause;
            if deadline.is_some_and(|deadline| until >= deadline) || !self.take_retry() {
                return false;
            }
            tokio::time::sleep_until(until).await;
            return true;
        }
        !why.is_doubtful() || self.take_retry()
    }

    fn take_retry(&self) -> bool {
        let taken = self.budget().take(self.now());
        if !taken {
            self.metrics.denied.inc();
        }
        taken
    }

    /// Counts a call towards the budget of retries.
    pub(super) fn called(&self) {
        self.budget().called(self.now());
    }
}

/// What a provider says that has not served a call, for the case that no other takes it.
fn refusal(provider: &Provider, why: Why, response: &Response<Body>) -> Fault {
    let status = tonic::Status::from_header_map(response.headers());
    let busy = status.as_ref().is_some_and(|status| status.code() == tonic::Code::ResourceExhausted);
    let reason = match why {
        Why::Lost => Reason::ProviderLost,
        Why::Unreached | Why::Closed | Why::Refused | Why::Pushback(_) if busy => Reason::ProviderBusy,
        Why::Unreached | Why::Closed | Why::Refused | Why::Pushback(_) => Reason::ProviderUnreachable,
    };
    let text = status.as_ref().map(tonic::Status::message).unwrap_or_default();
    Fault::new(reason, format!("node {}: {text}", provider.node))
}
