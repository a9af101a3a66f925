//! What generic calls count, and how many broadcasts there may be.

use super::descriptors::FETCHES_MAX;
use crate::{
    error::{Fault, Reason},
    telemetry::Metrics,
};
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
    pub(super) unusable: Counter,
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
}

impl super::Router {
    /// Room for one more broadcast, as long as it lasts.
    pub fn begin_broadcast(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.generic.broadcasts.clone().try_acquire_owned().map_err(|_| {
            let mut fault = Fault::new(
                Reason::RateLimited,
                format!(
                    "{BROADCASTS_MAX} broadcasts are under way at this node; try again, or at another node"
                ),
            );
            fault.retry_after = Some(Duration::from_secs(1));
            self.generic.count(&fault);
            fault
        })
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
