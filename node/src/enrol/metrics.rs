//! What is counted of enrolments.

use super::refusal::Refusal;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// Enrolments by outcome, and the tokens that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct EnrolMetrics {
    enrolments: Family<Labels, Counter>,
    pub(super) tokens: Gauge,
}

impl EnrolMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for result in ["ok", "again"].into_iter().chain(Refusal::WORDS) {
            drop(metrics.enrolments.get_or_create(&Labels { result }));
        }
        registry.register("enrolments", "Enrolment requests by result", metrics.enrolments.clone());
        registry.register("join_tokens", "Join tokens that are kept, in any state", metrics.tokens.clone());
        metrics
    }

    pub(super) fn count(&self, result: &'static str) {
        self.enrolments.get_or_create(&Labels { result }).inc();
    }
}
