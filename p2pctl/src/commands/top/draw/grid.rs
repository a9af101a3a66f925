//! Rows of cells below a header, in columns of fixed widths.

use super::{Paint, Tone};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
};

/// Between columns.
pub(super) const GAP: u16 = 2;

/// Stands for the rest of a text that is cut off.
const CUT: &str = "~";

/// A column; figures stand to the right.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) title: String,
    pub(super) width: u16,
    pub(super) figures: bool,
    /// Whether rows are sorted by it.
    pub(super) sorts: bool,
}

impl Column {
    pub(super) fn text(title: impl Into<String>, width: u16) -> Self {
        Self { title: title.into(), width, figures: false, sorts: false }
    }

    pub(super) fn figures(title: impl Into<String>, width: u16) -> Self {
        Self { title: title.into(), width, figures: true, sorts: false }
    }
}

/// A text and what it means.
#[derive(Clone, Debug)]
pub(super) struct Cell(pub(super) String, pub(super) Tone);

impl Cell {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self(text.into(), Tone::Plain)
    }
}

/// Draws the header and the rows that fit. `chosen` is inverted; `focused` says whether keys move here.
pub(super) fn grid(
    buffer: &mut Buffer,
    area: Rect,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Cell>>,
    chosen: Option<usize>,
    focused: bool,
    paint: Paint,
) {
    let header = if focused { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::BOLD };
    let titles = columns.iter().map(|column| Cell::plain(column.title.as_str())).collect();
    let top = row_area(area, 0);
    line(buffer, top, columns, &titles, Style::new().add_modifier(header), paint);
    let mut x = area.x;
    for column in columns {
        if column.sorts {
            let title = Rect { x, width: column.width, ..top }.intersection(top);
            buffer.set_style(title, Style::new().add_modifier(Modifier::REVERSED));
        }
        x = x.saturating_add(column.width + GAP);
    }
    for (index, cells) in rows.take(usize::from(area.height.saturating_sub(1))).enumerate() {
        let row = row_area(area, u16::try_from(index + 1).unwrap_or(u16::MAX));
        line(buffer, row, columns, &cells, Style::new(), paint);
        if chosen == Some(index) {
            buffer.set_style(row, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}

fn row_area(area: Rect, index: u16) -> Rect {
    Rect { y: area.y + index, height: 1, ..area }.intersection(area)
}

fn line(buffer: &mut Buffer, row: Rect, columns: &[Column], cells: &Vec<Cell>, style: Style, paint: Paint) {
    let mut x = row.x;
    for (column, Cell(text, tone)) in columns.iter().zip(cells) {
        let width = column.width.min(row.right().saturating_sub(x));
        let style = style.patch(paint.style(*tone));
        put(buffer, Rect { x, width, ..row }, text, column.figures, style);
        x = x.saturating_add(column.width + GAP).min(row.right());
    }
}

/// Writes `text` into one row; what is cut off shows.
pub(super) fn put(buffer: &mut Buffer, row: Rect, text: &str, to_the_right: bool, style: Style) {
    if row.is_empty() {
        return;
    }
    let width = u16::try_from(ratatui::text::Line::from(text).width()).unwrap_or(u16::MAX);
    if width > row.width {
        buffer.set_stringn(row.x, row.y, text, usize::from(row.width - 1), style);
        buffer.set_stringn(row.right() - 1, row.y, CUT, 1, style);
        return;
    }
    let x = if to_the_right { row.right() - width } else { row.x };
    buffer.set_stringn(x, row.y, text, usize::from(width), style);
}
