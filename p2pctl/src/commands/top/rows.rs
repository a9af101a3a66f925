//! Which rows are shown, and in which order.

use super::model::{Happened, Model, Occurrence};
use clap::ValueEnum;
use p2p_proto::v1::{MemberState, NodeInfo, ServiceInfo, ServiceState};
use std::cmp::Ordering;

/// What nodes are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SortBy {
    /// Those in trouble first
    State,
    /// By node id
    Node,
    /// Most calls a second first
    Calls,
    /// Most errors a second first
    Errors,
    /// Slowest first
    P99,
    /// Most bytes of gossip a second first
    Gossip,
    /// Whose certificate ends soonest first
    Cert,
}

impl SortBy {
    const ALL: [Self; 7] =
        [Self::State, Self::Node, Self::Calls, Self::Errors, Self::P99, Self::Gossip, Self::Cert];

    /// The next one, or the one before.
    pub(super) fn step(self, forward: bool) -> Self {
        let at = Self::ALL.iter().position(|by| *by == self).unwrap_or(0);
        let step = if forward { 1 } else { Self::ALL.len() - 1 };
        Self::ALL[(at + step) % Self::ALL.len()]
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Node => "node",
            Self::Calls => "calls",
            Self::Errors => "errors",
            Self::P99 => "p99",
            Self::Gossip => "gossip",
            Self::Cert => "cert",
        }
    }
}

/// Nodes that fit the filter, sorted; equal ones by node id.
pub(super) fn nodes<'a>(model: &'a Model, by: SortBy, reversed: bool, filter: &str) -> Vec<&'a NodeInfo> {
    let filter = filter.to_lowercase();
    let mut nodes: Vec<&NodeInfo> = model.nodes.iter().filter(|node| node_fits(node, &filter)).collect();
    nodes.sort_by(|a, b| {
        let order = compare(model, by, a, b);
        let order = if reversed { order.reverse() } else { order };
        order.then_with(|| a.node_id.cmp(&b.node_id))
    });
    nodes
}

fn compare(model: &Model, by: SortBy, a: &NodeInfo, b: &NodeInfo) -> Ordering {
    let rates = |node: &NodeInfo| model.rates(&node.node_id);
    match by {
        SortBy::State => urgency(a).cmp(&urgency(b)),
        SortBy::Node => a.node_id.cmp(&b.node_id),
        SortBy::Calls => most(rates(a).calls, rates(b).calls),
        SortBy::Errors => most(rates(a).errors, rates(b).errors),
        SortBy::P99 => rates(b).p99.cmp(&rates(a).p99),
        SortBy::Gossip => most(rates(a).gossip(), rates(b).gossip()),
        SortBy::Cert => ends(a).cmp(&ends(b)),
    }
}

/// The larger one first, what is unknown last.
fn most(a: Option<f64>, b: Option<f64>) -> Ordering {
    b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0))
}

/// Those of unknown end last.
fn ends(node: &NodeInfo) -> i64 {
    node.cert_expires_at.as_ref().map_or(i64::MAX, |end| end.seconds)
}

/// Who should be looked at first: 0 is most urgent. Who left has done so on purpose.
fn urgency(node: &NodeInfo) -> u8 {
    match node.state() {
        MemberState::Down => 0,
        MemberState::Suspect => 1,
        MemberState::Unspecified => 2,
        MemberState::Alive => 3,
        MemberState::Left => 4,
    }
}

fn contains(text: &str, filter: &str) -> bool {
    text.to_lowercase().contains(filter)
}

/// `filter` is in lower case.
fn node_fits(node: &NodeInfo, filter: &str) -> bool {
    let words = [&node.node_id, &node.role, &node.zone, &node.version];
    let state = if node.evicted { "evicted" } else { node.state().word() };
    words.into_iter().any(|word| contains(word, filter))
        || state.contains(filter)
        || node.addresses.iter().any(|address| contains(address, filter))
        || node.labels.iter().any(|(name, value)| contains(&format!("{name}={value}"), filter))
}

/// Services that fit the filter by their name, state or provider; those that do not serve first.
pub(super) fn services<'a>(model: &'a Model, filter: &str) -> Vec<&'a ServiceInfo> {
    let filter = filter.to_lowercase();
    let fits = |service: &&ServiceInfo| {
        contains(&service.name, &filter)
            || service.state().word().contains(&filter)
            || service.providers.iter().any(|provider| contains(&provider.node_id, &filter))
    };
    let mut services: Vec<&ServiceInfo> = model.services.iter().filter(fits).collect();
    let urgency = |service: &&ServiceInfo| match service.state() {
        ServiceState::NotServing => 0,
        ServiceState::Unspecified | ServiceState::Draining | ServiceState::Serving => 1,
        ServiceState::Disabled => 2,
    };
    services.sort_by(|a, b| urgency(a).cmp(&urgency(b)).then_with(|| a.name.cmp(&b.name)));
    services
}

/// Events that fit the filter by their node, state or reason, newest first.
pub(super) fn events<'a>(model: &'a Model, filter: &str) -> Vec<&'a Happened> {
    let filter = filter.to_lowercase();
    let fits = |happened: &&Happened| match &happened.what {
        Occurrence::Evidence(evidence) => {
            contains(&evidence.node_id, &filter)
                || evidence.to().word().contains(&filter)
                || contains(&evidence.reason, &filter)
        }
        Occurrence::Missed(_) => true,
    };
    model.events().filter(fits).collect()
}

#[cfg(test)]
mod tests;
