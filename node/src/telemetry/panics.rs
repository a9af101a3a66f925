//! Panics: defects that end one task. Counted and logged, whatever task it was; whether the node can go on without that task is
//! for its owner to say.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use std::sync::LazyLock;

/// Those of the process: a hook belongs to all of it.
static PANICS: LazyLock<Counter> = LazyLock::new(Counter::default);

pub(super) fn register(registry: &mut Registry) {
    registry.register("panics", "Tasks ended by a defect; please report it", PANICS.clone());
}

/// Has every panic of this process counted and logged from now on.
pub fn count_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.inc();
        tracing::error!(%panic, "a task has ended by a defect; please report it");
    }));
}
