//! From what is known and chosen to a picture. Draws into a buffer, and knows no terminal.
//!
//! | module | what it draws |
//! |---|---|
//! | `header` | the cluster in two lines, and what is wrong in a third |
//! | `nodes` `services` `events` | the three lists |
//! | `detail` | one node or service in full |
//! | `grid` | rows in columns |

mod detail;
mod events;
mod grid;
mod header;
mod nodes;
mod services;
#[cfg(test)]
mod tests;

use super::{
    model::Model,
    view::{Pane, View},
};
pub(super) use crate::output::table::Tone;
use grid::put;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};

/// The smallest terminal that something can be read in.
pub(super) const SMALLEST: (u16, u16) = (40, 8);
/// A list that has not got the keys shows its header and so many rows, if there is so little room.
const ROWS_LEAST: u16 = 2;

/// How tones look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) color: bool,
}

impl Paint {
    fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        match tone {
            Tone::Plain => style,
            Tone::Good if self.color => style.fg(Color::Green),
            Tone::Warn if self.color => style.fg(Color::Yellow),
            Tone::Bad if self.color => style.fg(Color::Red),
            Tone::Dim if self.color => style.add_modifier(Modifier::DIM),
            // The words say it, too.
            Tone::Good | Tone::Warn | Tone::Bad | Tone::Dim => style,
        }
    }
}

/// What a picture depends on beside the cluster and the user's choice.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) paint: Paint,
    /// Unix time in seconds.
    pub(super) now: i64,
    /// What is asked, and how often, as the user reads it.
    pub(super) asking: String,
    /// Whether somebody is there to press keys.
    pub(super) keys: bool,
}

/// How many lines show everything.
pub(super) fn lines(model: &Model, view: &View) -> u16 {
    let lists: usize = wants(model, view).iter().map(|want| usize::from(*want) + 1).sum();
    u16::try_from(lists).unwrap_or(u16::MAX).saturating_add(header::lines(model))
}

/// Draws everything.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, model: &Model, view: &mut View, setting: &Setting) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("{}x{} is too small; {}x{} do", area.width, area.height, SMALLEST.0, SMALLEST.1);
        put(buffer, Rect { height: area.height.min(1), ..area }, &text, false, Style::new());
        return;
    }
    let above = header::lines(model);
    let below = u16::from(setting.keys);
    header::draw(buffer, Rect { height: above, ..area }, model, setting);
    let body = Rect { y: area.y + above + 1, height: area.height.saturating_sub(above + 1 + below), ..area };
    match &view.detail {
        Some(of) => detail::draw(buffer, body, of, model, setting),
        None => lists(buffer, body, model, view, setting),
    }
    if setting.keys {
        footer(buffer, Rect { y: area.bottom() - 1, height: 1, ..area }, view, setting.paint);
    }
}

fn lists(buffer: &mut Buffer, area: Rect, model: &Model, view: &mut View, setting: &Setting) {
    let heights = heights(area.height, wants(model, view), view.pane);
    let mut y = area.y;
    for (pane, height) in Pane::ALL.into_iter().zip(heights) {
        if height == 0 {
            continue;
        }
        let area = Rect { y, height, ..area };
        let keys = view.keys(pane, model);
        let rows = usize::from(height - 1);
        let at = view.cursor(pane).place(&keys, rows);
        let top = view.cursor(pane).top;
        let focused = setting.keys && view.pane == pane;
        if focused {
            view.page = rows;
        }
        let list = List { area, top, chosen: focused.then(|| at.saturating_sub(top)), focused };
        match pane {
            Pane::Nodes => nodes::draw(buffer, &list, model, view, setting),
            Pane::Services => services::draw(buffer, &list, model, view, setting),
            Pane::Events => events::draw(buffer, &list, model, view, setting),
        }
        y += height + 1;
    }
}

/// Where a list stands, and which of its rows.
struct List {
    area: Rect,
    /// The first row that is shown.
    top: usize,
    /// Among those that are shown.
    chosen: Option<usize>,
    focused: bool,
}

impl List {
    /// Says below the header why there are no rows.
    fn empty(&self, buffer: &mut Buffer, why: &str, paint: Paint) {
        let row = Rect { y: self.area.y + 1, height: 1, ..self.area }.intersection(self.area);
        put(buffer, row, why, false, paint.style(Tone::Dim));
    }
}

/// How many lines each list would fill; an empty one says so in a line.
fn wants(model: &Model, view: &View) -> [u16; 3] {
    Pane::ALL
        .map(|pane| u16::try_from(view.keys(pane, model).len().max(1)).unwrap_or(u16::MAX).saturating_add(1))
}

/// How many lines each list gets of `total`, the lines between them not counted. Where there is not room for a few rows of
/// each, the one that has the keys gets all.
fn heights(total: u16, wants: [u16; 3], focus: Pane) -> [u16; 3] {
    let mut heights = wants.map(|want| want.min(ROWS_LEAST + 1));
    let Some(mut left) = total.checked_sub(2 + heights.iter().sum::<u16>()) else {
        return Pane::ALL.map(|pane| if pane == focus { total } else { 0 });
    };
    for pane in std::iter::once(focus).chain(Pane::ALL) {
        let more = left.min(wants[pane as usize] - heights[pane as usize]);
        heights[pane as usize] += more;
        left -= more;
    }
    heights
}

/// `NODES 3`, or `NODES 1/3` where a filter hides some.
fn title(word: &str, shown: usize, all: usize) -> String {
    if shown == all { format!("{word} {all}") } else { format!("{word} {shown}/{all}") }
}

fn footer(buffer: &mut Buffer, row: Rect, view: &View, paint: Paint) {
    let text = if view.typing {
        format!("filter: {}_   Enter keep   Esc clear", view.filter)
    } else if view.detail.is_some() {
        "q quit  Esc back  Up/Down others".to_owned()
    } else {
        let filter =
            if view.filter.is_empty() { "filter".to_owned() } else { format!("filter: {}", view.filter) };
        let order = if view.reversed { " reversed" } else { "" };
        format!(
            "q quit  Tab list  Up/Down row  Enter detail  s sort: {}{order}  r reverse  / {filter}",
            view.sort.word()
        )
    };
    put(buffer, row, &text, false, paint.style(Tone::Dim));
}
