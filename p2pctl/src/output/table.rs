//! Aligned columns with coloured cells.

use super::{NOTHING, printable};

const GAP: &str = "  ";

/// What a cell means, shown as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// No colour.
    Plain,
    /// All is well.
    Good,
    /// Look at it.
    Warn,
    /// It is broken.
    Bad,
    /// Of less interest.
    Dim,
}

impl Tone {
    fn escape(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\u{1b}[32m"),
            Self::Warn => Some("\u{1b}[33m"),
            Self::Bad => Some("\u{1b}[31m"),
            Self::Dim => Some("\u{1b}[2m"),
        }
    }
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a colour.
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text = printable(&text.into()).replace('\n', " ");
        Self { text: if text.is_empty() { NOTHING.to_owned() } else { text }, tone }
    }

    /// The same, at least `width` wide: for rows that are printed one by one.
    pub(crate) fn padded(&self, width: usize) -> Self {
        Self { text: format!("{:<width$}", self.text), tone: self.tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows under a header; or without one, when it is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    indent: &'static str,
}

impl Table {
    /// A table with a header.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), ..Self::default() }
    }

    /// Aligned lines without a header, each behind `indent`.
    pub(crate) fn lines(indent: &'static str) -> Self {
        Self { indent, ..Self::default() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as text, each line ended by a newline, none by a space.
    pub(crate) fn render(&self, color: bool) -> String {
        let header: Vec<Cell> = self.header.iter().map(|title| Cell::new(*title, Tone::Dim)).collect();
        let lines = || std::iter::once(&header).chain(&self.rows).filter(|row| !row.is_empty());
        let columns = lines().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in lines() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        lines().map(|row| format!("{}{}\n", self.indent, line(row, &widths, color))).collect()
    }
}

fn line(row: &[Cell], widths: &[usize], color: bool) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        if index > 0 {
            text.push_str(GAP);
        }
        match cell.tone.escape().filter(|_| color) {
            Some(escape) => text.push_str(&format!("{escape}{}\u{1b}[0m", cell.text)),
            None => text.push_str(&cell.text),
        }
        if index + 1 < row.len() {
            text.extend(std::iter::repeat_n(' ', width - cell.text.chars().count()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NODE", "STATE", "RTT"]);
        table.row(vec!["coordinator-1".into(), Cell::new("alive", Tone::Good), "".into()]);
        table.row(vec!["wörker".into(), Cell::new("suspect", Tone::Warn), "0.4ms".into()]);
        table
    }

    #[test]
    fn columns_align_and_no_line_ends_in_spaces() {
        assert_eq!(
            table().render(false),
            "NODE           STATE    RTT\n\
             coordinator-1  alive    -\n\
             wörker         suspect  0.4ms\n"
        );
    }

    #[test]
    fn colours_do_not_disturb_the_columns() {
        let colored = table().render(true);
        assert!(colored.contains("\u{1b}[32malive\u{1b}[0m    -"), "{colored:?}");
        let bare = ["\u{1b}[32m", "\u{1b}[33m", "\u{1b}[2m", "\u{1b}[0m"]
            .iter()
            .fold(colored, |text, escape| text.replace(escape, ""));
        assert_eq!(bare, table().render(false));
    }

    #[test]
    fn lines_align_without_a_header() {
        let mut lines = Table::lines("  ");
        lines.row(vec!["a".into(), "1".into()]);
        lines.row(vec!["long".into(), "2".into()]);
        assert_eq!(lines.render(false), "  a     1\n  long  2\n");
    }
}
