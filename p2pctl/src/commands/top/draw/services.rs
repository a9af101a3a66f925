//! The list of services.

use super::{
    super::{model::Model, rows, view::View},
    List, Setting, Tone,
    grid::{Cell, Column, GAP, grid},
    title,
};
use crate::{commands::services::list::tone, output::NOTHING};
use p2p_proto::v1::{CircuitState, ServiceInfo, ServiceProvider, ServiceState};
use ratatui::buffer::Buffer;

const STATE_WIDTH: u16 = 11;
const SERVING_WIDTH: u16 = 7;
const IN_FLIGHT_WIDTH: u16 = 9;
/// Widths of the column of names; the providers need the rest.
const NAME_LEAST: u16 = 12;
const NAME_MOST: u16 = 40;

pub(super) fn draw(buffer: &mut Buffer, list: &List, model: &Model, view: &View, setting: &Setting) {
    let services = rows::services(model, &view.filter);
    let title = title("SERVICES", services.len(), model.services.len());
    let widest = services.iter().map(|service| service.name.len()).max().unwrap_or(0).max(title.len());
    let fixed = STATE_WIDTH + SERVING_WIDTH + IN_FLIGHT_WIDTH + 4 * GAP;
    let room = list.area.width.saturating_sub(fixed);
    let name_width =
        u16::try_from(widest).unwrap_or(NAME_MOST).clamp(NAME_LEAST, NAME_MOST.min(room.max(NAME_LEAST)));
    let columns = [
        Column::text(title, name_width),
        Column::text("STATE", STATE_WIDTH),
        Column::figures("SERVING", SERVING_WIDTH),
        Column::figures("IN-FLIGHT", IN_FLIGHT_WIDTH),
        Column::text("PROVIDERS", room.saturating_sub(name_width)),
    ];
    let rows = services.iter().skip(list.top).map(|service| {
        vec![
            Cell::plain(service.name.as_str()),
            Cell(service.state().word().to_owned(), tone(service.state())),
            serving(service),
            Cell::plain(in_flight(service).to_string()),
            Cell::plain(providers(service)),
        ]
    });
    grid(buffer, list.area, &columns, rows, list.chosen, list.focused, setting.paint);
    if services.is_empty() {
        let why = match model.services.is_empty() {
            true => "none yet; `p2pctl services register` makes a process beside a node provide one",
            false => "none fits the filter",
        };
        list.empty(buffer, why, setting.paint);
    }
}

/// How many of its providers serve it.
fn serving(service: &ServiceInfo) -> Cell {
    let all = service.providers.len();
    let serving =
        service.providers.iter().filter(|provider| provider.state() == ServiceState::Serving).count();
    Cell(format!("{serving}/{all}"), if serving < all { Tone::Warn } else { Tone::Plain })
}

/// Calls at providers and at the process here that entered at the answering node.
fn in_flight(service: &ServiceInfo) -> u32 {
    let here = service.upstream.as_ref().map_or(0, |upstream| upstream.in_flight);
    here + service.providers.iter().map(|provider| provider.in_flight).sum::<u32>()
}

/// Node ids; those that get no calls, with why.
fn providers(service: &ServiceInfo) -> String {
    if service.providers.is_empty() {
        return NOTHING.to_owned();
    }
    let shown = service.providers.iter().map(|provider| match trouble(provider) {
        None => provider.node_id.clone(),
        Some(why) => format!("{}({why})", provider.node_id),
    });
    shown.collect::<Vec<_>>().join(",")
}

fn trouble(provider: &ServiceProvider) -> Option<&'static str> {
    match (provider.state(), provider.circuit()) {
        (ServiceState::Serving, CircuitState::Open) => Some("ejected"),
        (ServiceState::Serving, CircuitState::HalfOpen) => Some("on trial"),
        (ServiceState::Serving, CircuitState::Closed | CircuitState::Unspecified) => None,
        (state, _) => Some(state.word()),
    }
}
