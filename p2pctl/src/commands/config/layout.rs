//! Where the entries of a configuration stand in its text, byte by byte.
//!
//! The positions come from the parser that the node reads its file with (granit, below serde-saphyr), so there is
//! no second opinion on what is a key, a comment or a value.

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StructureStyle, options};
use std::{iter::Peekable, ops::Range};

/// A mark at the beginning of a file, which is no part of its YAML.
pub(super) const BOM: char = '\u{feff}';

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text or a number in this notation, or an alias.
    Scalar(ScalarStyle),
    /// `- item` lines, the first at this byte.
    BlockList(usize),
    /// `name: value` lines, the first at this byte.
    BlockMapping(usize),
    /// `[a, b]` or `{a: b}`.
    Flow,
    /// Nothing behind the colon.
    Missing,
}

/// One entry of the mapping that a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The key as it is written, with its quotes.
    pub(super) key_span: Range<usize>,
    /// The byte behind the colon.
    pub(super) after_colon: usize,
    /// The value with its anchor and tag; empty, behind the colon, where it is missing.
    pub(super) value: Range<usize>,
    pub(super) form: Form,
    /// Anchors that the value defines.
    anchors: Vec<usize>,
}

/// How the mapping of the file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// Comments at most.
    Empty,
    /// A line for each key.
    Block,
    /// In braces, the first of which ends at this byte.
    Flow(usize),
}

/// A file's entries and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) root: Root,
    pub(super) entries: Vec<Entry>,
    /// Where the document ends: at `...`, else with the text.
    pub(super) end: usize,
    /// Anchors that are used, and where.
    aliases: Vec<(usize, usize)>,
}

/// The text is written in a way that is not edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotEdited;

impl Layout {
    /// Finds the entries of `text`, which the node could read.
    pub(super) fn of(text: &str) -> Result<Self, NotEdited> {
        let skipped = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        let events = Parser::new_from_str_with_options(&text[skipped..], options());
        let mut events = events.collect::<Result<Vec<_>, _>>().map_err(|_| NotEdited)?;
        events.retain(|(event, _)| !matches!(event, Event::StreamStart | Event::StreamEnd));
        let mut reader = Reader { text, skipped, events: events.into_iter().peekable(), aliases: Vec::new() };
        reader.document()
    }

    /// The one entry for `key`.
    pub(super) fn entry(&self, key: &str) -> Option<(usize, &Entry)> {
        self.entries.iter().enumerate().find(|(_, entry)| entry.key == key)
    }

    /// Where, outside of it, an alias stands that needs the value of `entry`.
    pub(super) fn needed_by(&self, entry: &Entry) -> Option<usize> {
        let outside = |at: usize| !entry.value.contains(&at);
        let mut aliases = self.aliases.iter();
        aliases.find(|(id, at)| entry.anchors.contains(id) && outside(*at)).map(|(_, at)| *at)
    }
}

fn options() -> Options {
    options! { emit_anchor_events: true, emit_comments: false }
}

type Events<'a> = Peekable<std::vec::IntoIter<(Event<'a>, Span)>>;

struct Reader<'a> {
    text: &'a str,
    skipped: usize,
    events: Events<'a>,
    aliases: Vec<(usize, usize)>,
}

/// One value, while its parts are read.
struct Node {
    /// Its text and place, if it can be a key.
    key: Option<(String, Range<usize>)>,
    /// Where its last part that has text ends.
    end: Option<usize>,
    form: Form,
    anchors: Vec<usize>,
}

/// The first byte from `at` on that is neither blank nor of a comment.
fn token(text: &str, at: usize) -> usize {
    let mut rest = text[at..].trim_ascii_start();
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, next)| next).trim_ascii_start();
    }
    text.len() - rest.len()
}

/// The first byte from `at` on that is of no anchor and no tag.
fn content(text: &str, at: usize) -> usize {
    let mut at = at;
    while text[at..].starts_with(['&', '!']) {
        let word = text[at..].find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len() - at);
        at = token(text, at + word);
    }
    at
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Layout, NotEdited> {
        let mut layout =
            Layout { root: Root::Empty, entries: Vec::new(), end: self.text.len(), aliases: Vec::new() };
        if self.events.next_if(|(event, _)| matches!(event, Event::DocumentStart(..))).is_none() {
            return Ok(layout);
        }
        match self.events.next().ok_or(NotEdited)? {
            (Event::MappingStart(style, ..), span) => {
                layout.root = match style {
                    StructureStyle::Block => Root::Block,
                    StructureStyle::Flow => Root::Flow(self.bytes(&span)?.start + 1),
                };
                self.events.next_if(|(event, _)| matches!(event, Event::Anchor(..)));
                while self.events.next_if(|(event, _)| matches!(event, Event::MappingEnd)).is_none() {
                    let entry = self.entry(layout.root)?;
                    layout.entries.push(entry);
                }
            }
            // A document in which nothing stands.
            (Event::Scalar(..), span) if self.bytes(&span)?.is_empty() => {}
            _ => return Err(NotEdited),
        }
        if let Some((Event::DocumentEnd, span)) = self.events.next() {
            let mark = self.bytes(&span)?;
            if self.text[mark.start..].starts_with("...") {
                layout.end = mark.start;
            }
        }
        layout.aliases = std::mem::take(&mut self.aliases);
        Ok(layout)
    }

    fn entry(&mut self, root: Root) -> Result<Entry, NotEdited> {
        let Node { key: Some((key, key_span)), .. } = self.node()? else { return Err(NotEdited) };
        let Node { end, mut form, anchors, .. } = self.node()?;
        let between = &self.text[key_span.end..];
        let colon = between.find(|c: char| !c.is_ascii_whitespace()).ok_or(NotEdited)?;
        if !between[colon..].starts_with(':') {
            return Err(NotEdited);
        }
        let after_colon = key_span.end + colon + 1;
        let Some(mut end) = end else {
            let value = after_colon..after_colon;
            return Ok(Entry { key, key_span, after_colon, value, form: Form::Missing, anchors });
        };
        // The parser tells where the first part of a block stands, not the mark before it, and where the next token
        // begins, not where the block ends.
        let start = token(self.text, after_colon);
        let first = content(self.text, start);
        if let Form::BlockList(at) | Form::BlockMapping(at) = &mut form {
            *at = first;
            if root == Root::Block {
                end = self.end_of_block(end);
            }
        }
        let written = self.text.get(start..end).ok_or(NotEdited)?.trim_ascii_end();
        let value = start..start + written.len();
        Ok(Entry { key, key_span, after_colon, value, form, anchors })
    }

    /// The end of a block whose last part that has text ends at `end`: behind it a `-` or `:` without a value may stand.
    fn end_of_block(&mut self, end: usize) -> usize {
        let next = self.events.peek().map(|(_, span)| *span);
        let next = next.and_then(|span| self.bytes(&span).ok());
        let next = next.map_or(self.text.len(), |range| range.start).max(end);
        let (mut last, mut in_comment) = (end, false);
        for (offset, c) in self.text[end..next].char_indices() {
            in_comment = c == '#' || (in_comment && c != '\n');
            if !in_comment && !c.is_ascii_whitespace() {
                last = end + offset + c.len_utf8();
            }
        }
        last
    }

    /// Reads one value with all its parts.
    fn node(&mut self) -> Result<Node, NotEdited> {
        let mut node = Node { key: None, end: None, form: Form::Missing, anchors: Vec::new() };
        let mut open = Vec::new();
        let mut first = true;
        loop {
            let (event, span) = self.events.next().ok_or(NotEdited)?;
            let range = self.bytes(&span)?;
            #[expect(clippy::wildcard_enum_match_arm, reason = "foreign, non-exhaustive enum")]
            let form = match event {
                // Nothing stands there; a block of text without lines has a mark.
                Event::Scalar(_, ScalarStyle::Plain, ..) if range.is_empty() => Form::Missing,
                Event::Scalar(text, style, ..) => {
                    if first {
                        node.key = Some((text.into_owned(), range.clone()));
                    }
                    node.end = node.end.max(Some(range.end));
                    Form::Scalar(style)
                }
                Event::Alias(id) => {
                    self.aliases.push((id, range.start));
                    node.end = node.end.max(Some(range.end));
                    Form::Scalar(ScalarStyle::Plain)
                }
                Event::SequenceStart(style, ..) | Event::MappingStart(style, ..)
                    if style == StructureStyle::Flow =>
                {
                    open.push(style);
                    Form::Flow
                }
                Event::SequenceStart(style, ..) => {
                    open.push(style);
                    Form::BlockList(range.start)
                }
                Event::MappingStart(style, ..) => {
                    open.push(style);
                    Form::BlockMapping(range.start)
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if open.pop() == Some(StructureStyle::Flow) {
                        node.end = node.end.max(Some(range.end));
                    }
                    node.form
                }
                Event::Anchor(id, _) => {
                    node.anchors.push(id);
                    node.end = node.end.max(Some(range.end));
                    node.form
                }
                _ => return Err(NotEdited),
            };
            // A block begins before its first part.
            if let Form::BlockList(at) | Form::BlockMapping(at) = form {
                node.end = node.end.max(Some(at));
            }
            if first {
                node.form = form;
                first = false;
            }
            let more = self.events.peek().is_some_and(|(event, _)| matches!(event, Event::Anchor(..)));
            if open.is_empty() && !more {
                return Ok(node);
            }
        }
    }

    fn bytes(&self, span: &Span) -> Result<Range<usize>, NotEdited> {
        let range = span.byte_range().ok_or(NotEdited)?;
        let range = range.start + self.skipped..range.end + self.skipped;
        if self.text.get(range.clone()).is_some() { Ok(range) } else { Err(NotEdited) }
    }
}
