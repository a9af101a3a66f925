//! What the user chose to see. Pure: keys come in.

use super::{
    model::{Model, Occurrence},
    rows::{self, SortBy},
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Longest filter.
const FILTER_MAX: usize = 64;

/// One of the three lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Nodes,
    Services,
    Events,
}

impl Pane {
    pub(super) const ALL: [Self; 3] = [Self::Nodes, Self::Services, Self::Events];

    fn step(self, forward: bool) -> Self {
        match (self, forward) {
            (Self::Nodes, true) | (Self::Events, false) => Self::Services,
            (Self::Services, true) | (Self::Nodes, false) => Self::Events,
            (Self::Events, true) | (Self::Services, false) => Self::Nodes,
        }
    }
}

/// Which row is chosen. It stays with its row when others come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    key: Option<String>,
    at: usize,
    /// The first row that is shown.
    pub(super) top: usize,
}

impl Cursor {
    fn move_to(&mut self, at: usize, keys: &[String]) {
        self.at = at.min(keys.len().saturating_sub(1));
        self.key = keys.get(self.at).cloned();
    }

    /// Where the chosen row is among `keys`, `height` of which are shown.
    pub(super) fn place(&mut self, keys: &[String], height: usize) -> usize {
        // The first row means the first, whichever it is, until another one is chosen.
        if self.at > 0
            && let Some(at) = self.key.as_ref().and_then(|key| keys.iter().position(|other| other == key))
        {
            self.at = at;
        }
        self.at = self.at.min(keys.len().saturating_sub(1));
        let last = keys.len().saturating_sub(height);
        let lowest = self.at.saturating_sub(height.saturating_sub(1));
        self.top = self.top.clamp(lowest, self.at.max(lowest)).min(last.max(lowest));
        self.at
    }
}

/// One thing that is shown in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    Node(String),
    Service(String),
}

/// What the user chose.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) pane: Pane,
    cursors: [Cursor; 3],
    pub(super) sort: SortBy,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    pub(super) detail: Option<Detail>,
    /// How many rows of the pane were shown last: what a page is.
    pub(super) page: usize,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    Quit,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "keyboards have more keys than we answer to")]
impl View {
    pub(super) fn new(sort: SortBy, filter: &str) -> Self {
        Self {
            pane: Pane::Nodes,
            cursors: Default::default(),
            sort,
            reversed: false,
            filter: filter.to_owned(),
            typing: false,
            detail: None,
            page: 1,
        }
    }

    pub(super) fn cursor(&mut self, pane: Pane) -> &mut Cursor {
        &mut self.cursors[pane as usize]
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: KeyEvent, model: &Model) -> Flow {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Flow::Quit } else { Flow::GoOn };
        }
        if self.typing {
            self.type_filter(key.code);
            return Flow::GoOn;
        }
        match key.code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc | KeyCode::Backspace if self.detail.is_some() => self.detail = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => (self.typing, self.detail) = (true, None),
            KeyCode::Char('s') => self.sort = self.sort.step(true),
            KeyCode::Char('S') => self.sort = self.sort.step(false),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Tab => (self.pane, self.detail) = (self.pane.step(true), None),
            KeyCode::BackTab => (self.pane, self.detail) = (self.pane.step(false), None),
            KeyCode::Enter => self.detail = self.chosen(model),
            other => self.walk(other, model),
        }
        Flow::GoOn
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.len() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
    }

    fn walk(&mut self, key: KeyCode, model: &Model) {
        let (keys, page) = (self.keys(self.pane, model), self.page.max(1));
        let cursor = &mut self.cursors[self.pane as usize];
        let at = cursor.place(&keys, page);
        let to = match key {
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown => at + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return,
        };
        cursor.move_to(to, &keys);
        // In a node's detail, the neighbours are a key away.
        if self.detail.is_some() {
            self.detail = self.chosen(model);
        }
    }

    /// What tells the rows of a pane apart, in their order.
    pub(super) fn keys(&self, pane: Pane, model: &Model) -> Vec<String> {
        match pane {
            Pane::Nodes => {
                let nodes = rows::nodes(model, self.sort, self.reversed, &self.filter);
                nodes.into_iter().map(|node| node.node_id.clone()).collect()
            }
            Pane::Services => {
                let services = rows::services(model, &self.filter).into_iter();
                services.map(|service| service.name.clone()).collect()
            }
            Pane::Events => {
                let events = rows::events(model, &self.filter).into_iter();
                events.map(|happened| happened.number.to_string()).collect()
            }
        }
    }

    /// What the chosen row is about.
    fn chosen(&mut self, model: &Model) -> Option<Detail> {
        let keys = self.keys(self.pane, model);
        let page = self.page.max(1);
        let at = self.cursor(self.pane).place(&keys, page);
        match self.pane {
            Pane::Nodes => keys.into_iter().nth(at).map(Detail::Node),
            Pane::Services => keys.into_iter().nth(at).map(Detail::Service),
            Pane::Events => match &rows::events(model, &self.filter).get(at)?.what {
                Occurrence::Evidence(evidence) => Some(Detail::Node(evidence.node_id.clone())),
                Occurrence::Missed(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
