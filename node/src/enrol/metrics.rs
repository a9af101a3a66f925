//! What is counted of enrolments and renewals.

use super::{refusal::Refusal, renew::WORDS};
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
        for result in ["ok", "again", "renewed", "recovered"].into_iter().chain(Refusal::WORDS) {
            drop(metrics.enrolments.get_or_create(&Labels { result }));
        }
        registry.register(
            "enrolments",
            "Requests to enrol, renew and recover by result",
            metrics.enrolments.clone(),
        );
        registry.register("join_tokens", "Join tokens that are kept, in any state", metrics.tokens.clone());
        metrics
    }

    pub(super) fn count(&self, result: &'static str) {
        self.enrolments.get_or_create(&Labels { result }).inc();
    }
}

/// Certificates that this node has got anew, by outcome.
#[derive(Clone, Debug, Default)]
pub struct RenewalMetrics(Family<Labels, Counter>);

impl RenewalMetrics {
    /// Registers them, each outcome at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for result in WORDS {
            drop(metrics.0.get_or_create(&Labels { result }));
        }
        registry.register(
            "certificate_renewals",
            "Tries to get this node a new certificate by result",
            metrics.0.clone(),
        );
        metrics
    }

    /// Counts one: a word of [`How`](super::How) or [`RenewError`](super::RenewError).
    pub fn count(&self, result: &'static str) {
        self.0.get_or_create(&Labels { result }).inc();
    }
}
