//! The answer of a node that is asked for what only coordinators do.

use crate::error::{Fault, Reason};
use p2p_core::{Role, SpiffeId, gossip::View};
use p2p_proto::v1::MemberState;
use std::fmt::Display;

/// Why the node `own` does not do it, and who does: `FAILED_PRECONDITION` with reason `NOT_COORDINATOR` and
/// the addresses of coordinators that are alive, which p2pctl follows.
pub fn not_coordinator(own: &SpiffeId, why: impl Display, view: &View) -> Fault {
    let here = match own.role {
        Role::Coordinator => format!("coordinator {} cannot issue certificates: {why}", own.name),
        Role::Worker | Role::Admin | Role::TokenSigner => format!("{} is no coordinator", own.name),
    };
    let others = view
        .members
        .iter()
        .filter(|(node, member)| **node != own.name && member.role() == Role::Coordinator)
        .filter(|(_, member)| member.state == MemberState::Alive)
        .filter_map(|(node, member)| Some((node, member.records.node.addresses.first()?)));
    let (names, addresses): (Vec<String>, Vec<&str>) =
        others.map(|(node, address)| (format!("{node} at {address}"), address.as_str())).unzip();
    let ask = match names.is_empty() {
        true => "no other coordinator is alive".to_owned(),
        false => format!("ask a coordinator: {}", names.join(", ")),
    };
    let mut fault = Fault::new(Reason::NotCoordinator, format!("{here}; {ask}"));
    fault.metadata = Some(Box::new(("coordinators", addresses.join(","))));
    fault
}
