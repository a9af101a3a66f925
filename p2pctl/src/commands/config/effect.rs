//! When a running node takes a value over.

use p2p_node::config::TakesEffect;

/// The word for scripts.
pub(super) fn word(effect: TakesEffect) -> &'static str {
    match effect {
        TakesEffect::AtReload => "at_reload",
        TakesEffect::AtStart => "at_start",
    }
}

/// The same in a sentence on a key.
pub(super) fn when(effect: TakesEffect) -> &'static str {
    match effect {
        TakesEffect::AtReload => "at a reload",
        TakesEffect::AtStart => "when the node is started",
    }
}

/// What to do after a value was written.
pub(super) fn sentence(effect: TakesEffect) -> &'static str {
    match effect {
        TakesEffect::AtReload => {
            "the running node takes it over at a reload (`p2pctl config reload`, or SIGHUP)"
        }
        TakesEffect::AtStart => "it takes effect when the node is started again",
    }
}
