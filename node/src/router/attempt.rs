//! One try of a call at one provider, and what is learned of the provider by it.

use crate::{error::UNPROCESSED, registry::Provider};
use http::{HeaderMap, Response};
use p2p_client::is_reset_here;
use p2p_core::balancer::Outcome;
use std::{sync::Arc, time::Instant};
use tonic::{Code, Status};

/// A call at a provider, which counts as in flight there until this is dropped.
#[derive(Debug)]
pub(super) struct Attempt {
    provider: Arc<Provider>,
    started: Instant,
    /// Whether the provider was ejected, and this call tries whether it is well again.
    trial: bool,
    /// Whether the end of its answer counts; of a stream, which may never end, its beginning does.
    unary: bool,
    answered: bool,
    settled: bool,
}

impl Attempt {
    pub(super) fn start(provider: &Arc<Provider>, unary: bool) -> Self {
        let started = Instant::now();
        let trial = provider.begin(started);
        Self { provider: provider.clone(), started, trial, unary, answered: false, settled: false }
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.provider
    }

    /// The head of its answer has come.
    pub(super) fn head<B>(&mut self, response: &Response<B>) {
        let now = Instant::now();
        self.answered = true;
        if response.headers().contains_key(UNPROCESSED) {
            // How long it took to refuse says nothing, and neither does a node that is leaving about its health.
            self.provider.refused(now);
            self.settle(now, Outcome::Unknown);
            return;
        }
        self.provider.answered(now, now.saturating_duration_since(self.started));
        if response.status() != http::StatusCode::OK {
            // Nodes answer gRPC with 200, unless the request's head is too large for them.
            self.settle(now, Outcome::Unknown);
        } else if let Some(outcome) = outcome(response.headers()) {
            self.settle(now, outcome);
        } else if !self.unary {
            self.settle(now, Outcome::Answered);
        }
    }

    /// The end of its answer has come.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.settle(Instant::now(), outcome(trailers).unwrap_or(Outcome::Unknown));
    }

    /// It was not reached.
    pub(super) fn failed(&mut self) {
        self.answered = true;
        self.settle(Instant::now(), Outcome::Failed);
    }

    /// It broke off, unless it was this side that did.
    pub(super) fn broke(&mut self, error: &(dyn std::error::Error + 'static)) {
        if is_reset_here(error) { self.void() } else { self.failed() }
    }

    /// It says nothing about the provider.
    pub(super) fn void(&mut self) {
        self.answered = true;
        self.settle(Instant::now(), Outcome::Unknown);
    }

    fn settle(&mut self, now: Instant, outcome: Outcome) {
        if !self.settled {
            self.settled = true;
            self.provider.settled(now, self.trial, outcome);
        } else if outcome == Outcome::Failed {
            // A stream that had begun well.
            self.provider.settled(now, false, outcome);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = Instant::now();
        if !self.answered {
            self.provider.gave_up(now, now.saturating_duration_since(self.started));
        }
        self.settle(now, Outcome::Unknown);
        self.provider.ended();
    }
}

/// What a status says about who gave it: UNAVAILABLE is the one of a server that does not work; all others are answers.
fn outcome(headers: &HeaderMap) -> Option<Outcome> {
    let code = Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes());
    Some(if code == Code::Unavailable { Outcome::Failed } else { Outcome::Answered })
}
