//! The list of what happened to members.

use super::{
    super::{
        model::{Happened, Model, Occurrence},
        rows,
        view::View,
    },
    List, Setting, Tone,
    grid::{Cell, Column, GAP, grid},
    title,
};
use crate::{commands::cluster::evidence::change_word, commands::cluster::nodes::tone, output::time};
use ratatui::buffer::Buffer;

const AGE_WIDTH: u16 = 9;
/// "suspect -> alive" is the longest.
const CHANGE_WIDTH: u16 = 16;
/// Width of the column of node ids.
const NODE_WIDTH: u16 = 16;

pub(super) fn draw(buffer: &mut Buffer, list: &List, model: &Model, view: &View, setting: &Setting) {
    let events = rows::events(model, &view.filter);
    let columns = columns(list.area.width, title("EVENTS", events.len(), model.events().count()));
    let rows = events.iter().skip(list.top).map(|happened| cells(happened, setting.now));
    grid(buffer, list.area, &columns, rows, list.chosen, list.focused, setting.paint);
    if events.is_empty() {
        list.empty(buffer, "none", setting.paint);
    }
}

pub(super) fn columns(width: u16, title: String) -> [Column; 4] {
    let title_width = AGE_WIDTH.max(u16::try_from(title.len()).unwrap_or(AGE_WIDTH));
    let why = width.saturating_sub(title_width + NODE_WIDTH + CHANGE_WIDTH + 3 * GAP);
    [
        Column::text(title, title_width),
        Column::text("NODE", NODE_WIDTH),
        Column::text("STATE", CHANGE_WIDTH),
        Column::text("WHY", why),
    ]
}

pub(super) fn cells(happened: &Happened, now: i64) -> Vec<Cell> {
    match &happened.what {
        Occurrence::Evidence(evidence) => vec![
            Cell::plain(time::relative(evidence.at.as_ref(), now)),
            Cell::plain(evidence.node_id.as_str()),
            Cell(change_word(evidence), tone(evidence.to())),
            Cell::plain(evidence.reason.as_str()),
        ],
        Occurrence::Missed(missed) => vec![
            Cell::plain(""),
            Cell::plain(""),
            Cell::plain(""),
            Cell(format!("{missed} events were missed"), Tone::Warn),
        ],
    }
}
