//! What speaks for or against a member, as cells of a table.

use super::nodes::tone;
use crate::output::table::Cell;
use p2p_proto::v1::{Evidence, MemberState};

/// When it came up, to the millisecond.
pub(super) fn time(evidence: &Evidence) -> String {
    evidence.at.as_ref().map(|at| format!("{at}")).unwrap_or_default()
}

/// `alive -> suspect`, or the state alone if it did not change; padded to `width`.
pub(super) fn change(evidence: &Evidence, width: usize) -> Cell {
    Cell::new(format!("{:<width$}", change_word(evidence)), tone(evidence.to()))
}

/// `alive -> suspect`, or the state alone if it did not change.
pub(crate) fn change_word(evidence: &Evidence) -> String {
    let (from, to) = (evidence.from(), evidence.to());
    match from {
        same if same == to => to.word().to_owned(),
        MemberState::Unspecified => format!("new -> {}", to.word()),
        MemberState::Alive | MemberState::Suspect | MemberState::Down | MemberState::Left => {
            format!("{} -> {}", from.word(), to.word())
        }
    }
}
