//! What authentication and authorization count. All labels come from closed sets.

use super::policy::Access;
use crate::token::TokenRefusal;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    access: &'static str,
    evidence: &'static str,
}

/// What a caller may show.
const EVIDENCE: [&str; 3] = ["none", "certificate", "token"];

/// The reason of an assertion that a node may not make.
pub(super) const ASSERTION: &str = "assertion";

#[derive(Clone, Debug, Default)]
pub(super) struct AuthMetrics {
    failures: Family<FailureLabels, Counter>,
    denials: Family<DenialLabels, Counter>,
}

impl AuthMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in TokenRefusal::WORDS.into_iter().chain([ASSERTION]) {
            drop(metrics.failures.get_or_create(&FailureLabels { reason }));
        }
        for access in Access::ALL.map(Access::word) {
            for evidence in EVIDENCE {
                drop(metrics.denials.get_or_create(&DenialLabels { access, evidence }));
            }
        }
        registry.register(
            "authentication_failures",
            "Requests whose evidence did not hold, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "authorization_denials",
            "Requests whose caller may not make them, by access class and evidence",
            metrics.denials.clone(),
        );
        metrics
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&FailureLabels { reason }).inc();
    }

    pub(super) fn denied(&self, access: Access, evidence: &'static str) {
        self.denials.get_or_create(&DenialLabels { access: access.word(), evidence }).inc();
    }
}
