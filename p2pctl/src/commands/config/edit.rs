//! One edit of a configuration's text: what is replaced by what. Every other byte stays as it is, because nothing
//! else is written.
//!
//! An edit is found by looking where the entry stands, and believed only when its result, read as the node reads it,
//! holds exactly what was intended.

use super::{
    layout::{BOM, Entry, Form, Layout, NotEdited, Root},
    render::{self, Quotes},
};
use p2p_node::config::raw;
use serde_yaml::Value;
use std::ops::Range;

/// Why a text is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    /// The text is written in a form that is not edited.
    #[error("is written in a way that is not edited here; change it by hand")]
    Form,
    /// The file is not one that the node could read.
    #[error("{0}")]
    Unreadable(String),
    /// The key stands there more than once.
    #[error("is given more than once; keep one of them")]
    Repeated,
    /// Another value refers to this one.
    #[error("has an anchor that an alias on line {line} needs; change both by hand")]
    Anchored {
        /// From 1.
        line: usize,
    },
}

impl From<NotEdited> for EditError {
    fn from(NotEdited: NotEdited) -> Self {
        Self::Form
    }
}

/// A part of a text, and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}

impl Splice {
    /// `text` with the part replaced.
    pub(super) fn apply(&self, text: &str) -> String {
        [&text[..self.range.start], &self.text, &text[self.range.end..]].concat()
    }

    fn insert(at: usize, text: String) -> Self {
        Self { range: at..at, text }
    }
}

/// The edit that gives `key` this value, or with none takes the key out. No edit if that is so already.
pub(super) fn edit(text: &str, key: &str, value: Option<&Value>) -> Result<Option<Splice>, EditError> {
    let before = entries(text)?;
    let mut given = before.iter().filter(|(name, _)| name == key);
    let current = given.next().map(|(_, current)| current);
    if given.next().is_some() {
        return Err(EditError::Repeated);
    }
    if current == value {
        return Ok(None);
    }
    let layout = Layout::of(text)?;
    let found = layout.entry(key);
    if let Some((_, entry)) = found
        && let Some(alias) = layout.needed_by(entry)
    {
        return Err(EditError::Anchored { line: text[..alias].matches('\n').count() + 1 });
    }
    let ways = match (found, value) {
        (Some((_, entry)), Some(value)) => vec![replace(text, layout.root, entry, value)],
        (Some((index, entry)), None) => remove(text, &layout, index, entry).into_iter().collect(),
        (None, Some(value)) => insert(text, &layout, key, value),
        (None, None) => return Err(EditError::Form),
    };
    let intended = intended(before, key, value);
    let holds = |way: &Splice| entries(&way.apply(text)).is_ok_and(|after| sorted(after) == intended);
    ways.into_iter().find(holds).map(Some).ok_or(EditError::Form)
}

type Entries = Vec<(String, Value)>;

fn entries(text: &str) -> Result<Entries, EditError> {
    raw::entries(text, "the file").map_err(|errors| EditError::Unreadable(errors.to_string()))
}

fn intended(mut entries: Entries, key: &str, value: Option<&Value>) -> Entries {
    entries.retain(|(name, _)| name != key);
    entries.extend(value.map(|value| (key.to_owned(), value.clone())));
    sorted(entries)
}

fn sorted(mut entries: Entries) -> Entries {
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries
}

fn replace(text: &str, root: Root, entry: &Entry, value: &Value) -> Splice {
    let gap = entry.after_colon..entry.value.start;
    let old = entry.value.clone();
    match entry.form {
        Form::Missing if old.is_empty() => {
            Splice::insert(entry.after_colon, format!(" {}", render::line(value, Quotes::Needed)))
        }
        Form::Missing | Form::Flow => Splice { range: old, text: render::line(value, Quotes::Needed) },
        Form::Scalar(style) => Splice { range: old, text: render::line(value, Quotes::of(style)) },
        Form::BlockList(first) | Form::BlockMapping(first) => {
            let same_kind = match entry.form {
                Form::BlockList(_) => value.is_sequence(),
                Form::BlockMapping(_) => value.is_mapping(),
                Form::Scalar(_) | Form::Flow | Form::Missing => false,
            };
            if let Some(lines) = render::block(value).filter(|_| same_kind) {
                let indent = " ".repeat(column(text, first));
                let text = lines.join(&format!("{}{indent}", line_end(text)));
                return Splice { range: first..old.end, text };
            }
            let line = render::line(value, Quotes::Needed);
            let commented = text[gap].contains('#') || old.start < first;
            match (commented, root) {
                // What a comment stands before stays on a line of its own, deeper than the key.
                (true, Root::Block) if column(text, old.start) <= column(text, entry.key_span.start) => {
                    Splice { range: old, text: format!("  {line}") }
                }
                (true, _) => Splice { range: old, text: line },
                (false, _) => Splice { range: entry.after_colon..old.end, text: format!(" {line}") },
            }
        }
    }
}

/// Ways to add an entry, the best one first.
fn insert(text: &str, layout: &Layout, key: &str, value: &Value) -> Vec<Splice> {
    let entry = format!("{key}: {}", render::line(value, Quotes::Needed));
    if let Root::Flow(open) = layout.root {
        return vec![match layout.entries.last() {
            Some(last) => Splice::insert(last.value.end, format!(", {entry}")),
            None => Splice::insert(open, entry),
        }];
    }
    let first = layout.entries.first().map_or(0, |first| first.key_span.start);
    let indent = " ".repeat(column(text, first));
    let line = format!("{indent}{entry}{}", line_end(text));
    let below = below_comment(text, key).map(|at| Splice::insert(at, line.clone()));
    let last = match text[..layout.end].chars().next_back() {
        None | Some('\n' | BOM) => Splice::insert(layout.end, line),
        Some(_) => Splice::insert(layout.end, format!("{}{indent}{entry}", line_end(text))),
    };
    below.into_iter().chain([last]).collect()
}

/// Where the line below a commented-out `# key: ...` begins, which is where one would write the key.
fn below_comment(text: &str, key: &str) -> Option<usize> {
    let is_the_key = |line: &str| {
        let rest = line.strip_prefix('#').map(|rest| rest.strip_prefix(' ').unwrap_or(rest));
        rest.and_then(|rest| rest.strip_prefix(key)).is_some_and(|rest| rest.starts_with(':'))
    };
    // The further lines of a value that is commented out.
    let goes_on = |line: &str| line.starts_with("#  ") || line.starts_with("# -");
    let mut at = 0;
    let mut found = false;
    for line in text.split_inclusive('\n') {
        if found && !goes_on(line) {
            break;
        }
        found |= is_the_key(line);
        at += line.len();
    }
    (found && text[..at].ends_with('\n')).then_some(at)
}

/// The way to take an entry out: its lines, or its part of the braces.
fn remove(text: &str, layout: &Layout, index: usize, entry: &Entry) -> Option<Splice> {
    let start = entry.key_span.start;
    let end = entry.value.end.max(entry.after_colon);
    if layout.root == Root::Block {
        let bom = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        let line = line_start(text, start).max(bom);
        // A key that shares its line, with an anchor or a `---`, is left alone.
        let alone = text[line..start].chars().all(|c| c == ' ');
        let next = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
        return alone.then_some(Splice { range: line..next, text: String::new() });
    }
    let spaces = |c: char| c == ' ' || c == '\t';
    let behind = text[end..].trim_start_matches(spaces);
    let range = match behind.strip_prefix(',') {
        Some(rest) if index + 1 < layout.entries.len() => {
            start..text.len() - rest.trim_start_matches(spaces).len()
        }
        Some(_) | None => {
            let before = text[..start].trim_end();
            before.strip_suffix(',').map_or(start, str::len)..end
        }
    };
    Some(Splice { range, text: String::new() })
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn column(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].trim_start_matches(BOM).chars().count()
}

/// How lines of `text` end.
fn line_end(text: &str) -> &'static str {
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if first.ends_with("\r\n") { "\r\n" } else { "\n" }
}
