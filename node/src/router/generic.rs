//! What generic calls count, and how many broadcasts there may be.

use super::descriptors::FETCHES_MAX;
use crate::{
    error::{Fault, Reason},
    schema::{Schema, cache::Verdict, sha256},
    telemetry::Metrics,
};
use bytes::Bytes;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most broadcasts that a node makes at once.
const BROADCASTS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Generic calls of one node.
#[derive(Debug)]
pub(super) struct Generic {
    broadcasts: Arc<Semaphore>,
    pub(super) fetches: Semaphore,
    faults: Family<FaultLabels, Counter>,
    answered: Counter,
    failed: Counter,
    unusable: Counter,
    conflicts: Counter,
}

impl Generic {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let results = Family::<ResultLabels, Counter>::default();
        let of = |result| results.get_or_create_owned(&ResultLabels { result });
        let generic = Self {
            broadcasts: Arc::new(Semaphore::new(BROADCASTS_MAX)),
            fetches: Semaphore::new(FETCHES_MAX),
            faults: Family::default(),
            answered: of("ok"),
            failed: of("error"),
            unusable: Counter::default(),
            conflicts: Counter::default(),
        };
        metrics.register(|registry| {
            let faults = generic.faults.clone();
            registry.register("generic_call_faults", "Generic calls that did not reach their method", faults);
            registry.register("broadcast_results", "Results of broadcasts, of each node", results);
            registry.register(
                "descriptors_refused",
                "Descriptors of other nodes that are unusable or not those published",
                generic.unusable.clone(),
            );
            registry.register(
                "descriptor_conflicts",
                "Answers of reflection for which others publish another file of the same name",
                generic.conflicts.clone(),
            );
        });
        generic
    }

    /// Counts why a generic call did not reach its method.
    pub(super) fn count(&self, fault: &Fault) {
        self.faults.get_or_create(&FaultLabels { reason: fault.reason.row().word }).inc();
    }

    /// Room for one more broadcast, as long as it lasts.
    fn begin(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.broadcasts.clone().try_acquire_owned().map_err(|_| {
            let mut fault = Fault::new(
                Reason::RateLimited,
                format!(
                    "{BROADCASTS_MAX} broadcasts are under way at this node; try again, or at another node"
                ),
            );
            fault.retry_after = Some(Duration::from_secs(1));
            self.count(&fault);
            fault
        })
    }

    /// What the descriptors are that a provider sent for `digest`; `None` if they are others.
    pub(super) fn judge(&self, digest: [u8; 32], encoded: Bytes) -> Option<Verdict> {
        if sha256(&encoded) != digest {
            self.unusable.inc();
            return None;
        }
        let schema = Schema::decode(encoded).map(Arc::new);
        Some(schema.map_err(|error| {
            self.unusable.inc();
            Arc::from(error.to_string())
        }))
    }
}

impl super::Router {
    /// Room for one more broadcast, as long as it lasts.
    pub fn begin_broadcast(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.generic.begin()
    }

    /// Counts an answer of reflection for which others publish another file of the same name.
    pub fn count_conflict(&self) {
        self.generic.conflicts.inc();
    }

    /// Counts one node's result of a broadcast.
    pub fn count_result(&self, ok: bool) {
        if ok {
            self.generic.answered.inc()
        } else {
            self.generic.failed.inc()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    #[test]
    fn descriptors_are_believed_by_their_digest_and_only_if_they_can_be_used() {
        let generic = Generic::new(&Metrics::default());
        let good = Bytes::from_static(p2p_proto::DESCRIPTORS);
        assert!(generic.judge(sha256(&good), good.clone()).is_some_and(|verdict| verdict.is_ok()));
        assert_eq!(generic.unusable.get(), 0);
        assert!(generic.judge([0; 32], good).is_none(), "not those published");
        // The digest is right, and the set would end the stack of the library that builds on it.
        let circle = FileDescriptorProto {
            name: Some("a.proto".to_owned()),
            dependency: vec!["a.proto".to_owned()],
            public_dependency: vec![0],
            ..FileDescriptorProto::default()
        };
        let bomb: Bytes = FileDescriptorSet { file: vec![circle] }.encode_to_vec().into();
        let why = generic.judge(sha256(&bomb), bomb).expect("those published").expect_err("unusable");
        assert!(why.contains("imports itself"), "{why}");
        assert_eq!(generic.unusable.get(), 2);
    }

    #[test]
    fn broadcasts_beyond_the_limit_are_refused_with_a_pause_until_one_ends() {
        let generic = Generic::new(&Metrics::default());
        let mut rooms: Vec<_> = (0..BROADCASTS_MAX).map(|_| generic.begin().expect("room")).collect();
        let fault = generic.begin().expect_err("full");
        assert_eq!((fault.reason, fault.retry_after), (Reason::RateLimited, Some(Duration::from_secs(1))));
        let refused = FaultLabels { reason: "RATE_LIMITED" };
        assert_eq!(generic.faults.get_or_create(&refused).get(), 1);
        rooms.pop();
        assert!(generic.begin().is_ok());
    }
}
