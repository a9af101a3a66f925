//! The list of nodes.

use super::{
    super::{history::Rates, model::Model, rows, rows::SortBy, units, view::View},
    List, Setting, Tone,
    grid::{Cell, Column, GAP, grid},
    title,
};
use crate::{
    commands::cluster::nodes::{EXPIRES_SOON, tone},
    output::{NOTHING, time},
};
use p2p_proto::v1::{GetMetricsResponse, NodeInfo};
use ratatui::buffer::Buffer;
use std::time::Duration;

/// Widths of the column of node ids.
const NODE_LEAST: u16 = 12;
const NODE_MOST: u16 = 40;

/// A column beside the node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Role,
    State,
    Calls,
    Errors,
    P99,
    Cpu,
    Memory,
    Rtt,
    Interval,
    Gossip,
    Cert,
    Zone,
}

impl Fact {
    /// Those that matter most first: a narrow terminal leaves the others out.
    const BY_WEIGHT: [Self; 12] = [
        Self::State,
        Self::Calls,
        Self::P99,
        Self::Errors,
        Self::Cert,
        Self::Interval,
        Self::Gossip,
        Self::Memory,
        Self::Cpu,
        Self::Role,
        Self::Rtt,
        Self::Zone,
    ];

    fn column(self) -> Column {
        match self {
            Self::Role => Column::text("ROLE", 11),
            Self::State => Column::text("STATE", 7),
            Self::Calls => Column::figures("CALLS/S", 7),
            Self::Errors => Column::figures("ERR/S", 6),
            Self::P99 => Column::figures("P99", 6),
            Self::Cpu => Column::figures("CPU", 4),
            Self::Memory => Column::figures("MEM", 6),
            Self::Rtt => Column::figures("RTT", 7),
            Self::Interval => Column::figures("INTERVAL", 8),
            Self::Gossip => Column::figures("GOSSIP/S", 8),
            Self::Cert => Column::figures("CERT", 7),
            Self::Zone => Column::text("ZONE", 10),
        }
    }

    /// What nodes are sorted by where this column says most.
    fn sorts(self) -> Option<SortBy> {
        match self {
            Self::State => Some(SortBy::State),
            Self::Calls => Some(SortBy::Calls),
            Self::Errors => Some(SortBy::Errors),
            Self::P99 => Some(SortBy::P99),
            Self::Gossip => Some(SortBy::Gossip),
            Self::Cert => Some(SortBy::Cert),
            Self::Role | Self::Cpu | Self::Memory | Self::Rtt | Self::Interval | Self::Zone => None,
        }
    }

    fn cell(self, node: &NodeInfo, rates: &Rates, told: Option<&GetMetricsResponse>, now: i64) -> Cell {
        match self {
            Self::Role => Cell::plain(node.role.as_str()),
            Self::State => Cell(state(node).to_owned(), tone(node.state())),
            Self::Calls => Cell::plain(units::rate(rates.calls)),
            Self::Errors => {
                let some = rates.errors.is_some_and(|errors| errors > 0.0);
                Cell(units::rate(rates.errors), if some { Tone::Bad } else { Tone::Plain })
            }
            Self::P99 => Cell::plain(units::duration(rates.p99)),
            Self::Cpu => Cell::plain(units::percent(rates.cpu)),
            Self::Memory => {
                Cell::plain(units::bytes(told.map(|told| told.process_resident_memory_bytes as f64)))
            }
            Self::Rtt => {
                Cell::plain(node.rtt_ms.map_or_else(|| NOTHING.to_owned(), |rtt| format!("{rtt:.1}ms")))
            }
            Self::Interval => Cell::plain(units::duration(told.and_then(interval))),
            Self::Gossip => Cell::plain(units::bytes(rates.gossip())),
            Self::Cert => cert(node, now),
            Self::Zone => Cell::plain(if node.zone.is_empty() { NOTHING } else { node.zone.as_str() }),
        }
    }
}

pub(super) fn draw(buffer: &mut Buffer, list: &List, model: &Model, view: &View, setting: &Setting) {
    let nodes = rows::nodes(model, view.sort, view.reversed, &view.filter);
    let widest = nodes.iter().map(|node| node.node_id.len()).max().unwrap_or(0);
    let node_width = u16::try_from(widest).unwrap_or(NODE_MOST).clamp(NODE_LEAST, NODE_MOST);
    let facts = facts(list.area.width, node_width);
    let mut columns = vec![Column {
        sorts: view.sort == SortBy::Node && setting.keys,
        ..Column::text(title("NODES", nodes.len(), model.nodes.len()), node_width)
    }];
    columns.extend(facts.iter().map(|fact| {
        let sorts = fact.sorts() == Some(view.sort) && setting.keys;
        Column { sorts, ..fact.column() }
    }));
    let rows = nodes.iter().skip(list.top).map(|node| {
        let rates = model.rates(&node.node_id);
        let told = model.told(&node.node_id).and_then(|told| told.history.latest());
        let cells = facts.iter().map(|fact| fact.cell(node, &rates, told, setting.now));
        std::iter::once(Cell::plain(node.node_id.as_str())).chain(cells).collect()
    });
    grid(buffer, list.area, &columns, rows, list.chosen, list.focused, setting.paint);
    if nodes.is_empty() {
        let why = if model.nodes.is_empty() { "none yet" } else { "none fits the filter; Esc clears it" };
        list.empty(buffer, why, setting.paint);
    }
}

/// The columns for which there is room, in the order in which they stand.
fn facts(width: u16, node_width: u16) -> Vec<Fact> {
    let mut left = width.saturating_sub(node_width);
    let mut facts: Vec<Fact> = Fact::BY_WEIGHT
        .into_iter()
        .map_while(|fact| {
            left = left.checked_sub(fact.column().width + GAP)?;
            Some(fact)
        })
        .collect();
    facts.sort();
    facts
}

pub(super) fn state(node: &NodeInfo) -> &'static str {
    if node.evicted { "evicted" } else { node.state().word() }
}

/// The pause between comparisons of records, if the node tells.
pub(super) fn interval(told: &GetMetricsResponse) -> Option<Duration> {
    let seconds = told.traffic.as_ref()?.gossip_interval_seconds;
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long the certificate is still valid.
pub(super) fn cert(node: &NodeInfo, now: i64) -> Cell {
    let Some(end) = &node.cert_expires_at else { return Cell::plain(NOTHING) };
    match end.seconds.saturating_sub(now) {
        ..=0 => Cell("expired".to_owned(), Tone::Bad),
        left @ 1..=EXPIRES_SOON => Cell(time::short(left.unsigned_abs()), Tone::Warn),
        left => Cell::plain(time::short(left.unsigned_abs())),
    }
}
