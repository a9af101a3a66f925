//! File, environment and `--set`, read as YAML values that know where they come from.
//!
//! serde-saphyr does the reading: it tells lines, passes duplicates on, knows a budget against alias
//! bombs, and with strict booleans takes `yes` and `on` for the words they are.

use super::{
    ENV_PREFIX, GivenBy,
    error::{ConfigError, Origin, Problem, one_line},
    keys::KEYS,
};
use p2p_core::suggest::nearest;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, MergeKeyPolicy, MessageFormatter, Options, Spanned, UserMessageFormatter,
};
use serde_yaml::Value;
use std::{collections::BTreeMap, fmt, fs::File, io::Read, path::Path, sync::Arc};

/// Largest file, and largest value of a variable or `--set`, in bytes.
pub(super) const MAX_TEXT_LEN: u64 = 1024 * 1024;

/// One value that one source gives a key.
pub(super) struct SourceValue {
    pub(super) origin: Origin,
    /// Null returns the key to its default.
    pub(super) value: Value,
}

/// Everything that was given, in order of precedence, and what was wrong with it so far.
pub(super) struct Sources {
    name: Arc<str>,
    values: BTreeMap<&'static str, Vec<SourceValue>>,
    pub(super) errors: Vec<ConfigError>,
    /// Whether the file could be read as a mapping. If not, what it would have set is not known, so that
    /// judging the rest could only mislead.
    pub(super) file_is_readable: bool,
}

impl Sources {
    /// No values yet; errors that concern the file call it `name`.
    pub(super) fn new(name: String) -> Self {
        Self { name: name.into(), values: BTreeMap::new(), errors: Vec::new(), file_is_readable: true }
    }

    /// What was given for `key`; later values override earlier ones.
    pub(super) fn values(&self, key: &str) -> &[SourceValue] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether any source gives `key` a value.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.values(key).last().is_some_and(|last| !last.value.is_null())
    }

    /// Every key that has a value, and by whom.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, GivenBy)> {
        let last = self.values.iter().filter_map(|(key, values)| Some((*key, values.last()?)));
        last.filter(|(_, last)| !last.value.is_null()).map(|(key, last)| (key, (&last.origin).into()))
    }

    /// Where the value of `key` comes from: the last source that names it, else the file as a whole.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.values(key).last().map_or_else(|| self.line(0), |last| last.origin.clone())
    }

    /// Adds the file at `path`.
    pub(super) fn add_file(&mut self, path: &Path) {
        match read_text(path) {
            Ok(text) => self.add_text(&text),
            Err(problem) => self.fail_file(0, problem),
        }
    }

    /// Adds the text of a file.
    pub(super) fn add_text(&mut self, text: &str) {
        if text.len() as u64 > MAX_TEXT_LEN {
            return self.fail_file(0, Problem::TooLarge { limit: MAX_TEXT_LEN });
        }
        match parse::<Entries>(text) {
            Ok(Entries::Mapping(entries)) => self.add_entries(entries),
            Ok(Entries::Other) => self.fail_file(0, Problem::NotAMapping),
            Err((line, problem)) => self.fail_file(line, problem),
        }
    }

    fn add_entries(&mut self, entries: Vec<(Spanned<String>, Value)>) {
        let mut first_lines = BTreeMap::new();
        for (key, value) in entries {
            let line = key.referenced.line();
            if let Some(first) = first_lines.get(&key.value) {
                self.refuse(self.line(line), key.value, Problem::Duplicate { first: *first });
                continue;
            }
            first_lines.insert(key.value.clone(), line);
            self.add(self.line(line), key.value, value);
        }
    }

    /// Adds the environment's variables that start with [`ENV_PREFIX`].
    pub(super) fn add_env(&mut self, env: impl Iterator<Item = (String, String)>) {
        // Sorted, so that errors come in the same order at each start.
        for (name, text) in env.collect::<BTreeMap<_, _>>() {
            let Some(upper) = name.strip_prefix(ENV_PREFIX) else { continue };
            let key = upper.to_ascii_lowercase();
            let exact = key.to_ascii_uppercase() == upper;
            let origin = Origin::Env(name.clone());
            if exact && is_known(&key) {
                self.add_yaml(origin, key, &text);
            } else {
                let nearest =
                    nearest(&key, names()).map(|name| format!("{ENV_PREFIX}{}", name.to_ascii_uppercase()));
                self.refuse(origin, key, Problem::UnknownKey { nearest });
            }
        }
    }

    /// Adds `KEY=VALUE` arguments; of two for one key the later one counts.
    pub(super) fn add_sets(&mut self, sets: &[String]) {
        for set in sets {
            match set.split_once('=') {
                Some((key, text)) => self.add_yaml(Origin::Set, key.to_owned(), text),
                None => self.refuse(Origin::Set, shorten(set), Problem::NotAnAssignment),
            }
        }
    }

    fn add_yaml(&mut self, origin: Origin, key: String, text: &str) {
        if text.len() as u64 > MAX_TEXT_LEN {
            return self.refuse(origin, key, Problem::TooLarge { limit: MAX_TEXT_LEN });
        }
        if text.trim().is_empty() {
            return self.add(origin, key, Value::Null);
        }
        match parse::<Value>(text) {
            Ok(value) => self.add(origin, key, value),
            Err((_, problem)) => self.refuse(origin, key, problem),
        }
    }

    fn add(&mut self, origin: Origin, key: String, value: Value) {
        match KEYS.iter().find(|known| known.name == key) {
            Some(known) => self.values.entry(known.name).or_default().push(SourceValue { origin, value }),
            None => {
                let nearest = nearest(&key, names()).map(str::to_owned);
                self.refuse(origin, shorten(&key), Problem::UnknownKey { nearest });
            }
        }
    }

    fn line(&self, line: u64) -> Origin {
        Origin::File { name: Arc::clone(&self.name), line }
    }

    fn refuse(&mut self, origin: Origin, key: String, problem: Problem) {
        self.errors.push(ConfigError { origin, key: Some(key), problem });
    }

    fn fail_file(&mut self, line: u64, problem: Problem) {
        self.file_is_readable = false;
        self.errors.push(ConfigError { origin: self.line(line), key: None, problem });
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

fn is_known(name: &str) -> bool {
    names().any(|known| known == name)
}

/// A key that is not one of ours may have any length.
fn shorten(key: &str) -> String {
    key.chars().take(80).collect()
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Problem::Unreadable)?;
    // A pipe has no length to ask for: read up to one byte too many.
    file.take(MAX_TEXT_LEN + 1).read_to_end(&mut bytes).map_err(Problem::Unreadable)?;
    if bytes.len() as u64 > MAX_TEXT_LEN {
        return Err(Problem::TooLarge { limit: MAX_TEXT_LEN });
    }
    String::from_utf8(bytes).map_err(|error| {
        Problem::Syntax(format!("byte {} is not UTF-8 text", error.utf8_error().valid_up_to() + 1))
    })
}

/// How configurations are read. Aliases work, within a budget that a hand-written file never meets.
fn options() -> Options {
    let mut options = Options::default();
    options.strict_booleans = true;
    options.reject_unsupported_tags = true;
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.merge_keys = MergeKeyPolicy::AsOrdinary;
    options.emit_comments = false;
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = 10_000;
    options.budget = serde_saphyr::budget! {
        max_depth: 16,
        // The second one is refused by name, not for the budget.
        max_documents: 2,
        max_nodes: 20_000,
        max_events: 50_000,
        max_anchors: 64,
        max_aliases: 64,
    };
    options
}

/// Reads one YAML document; an error comes with its line, 0 if it has none.
pub(super) fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, (u64, Problem)> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        let message = UserMessageFormatter.format_message(error.without_snippet());
        (line, Problem::Syntax(one_line(&message)))
    })
}

/// The top level of a file: its entries in order, repeated keys included.
pub(super) enum Entries {
    Mapping(Vec<(Spanned<String>, Value)>),
    Other,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of the form `key: value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries::Mapping(entries))
    }

    /// A file of comments only sets nothing.
    fn visit_unit<E>(self) -> Result<Entries, E> {
        Ok(Entries::Mapping(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entries, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entries::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Entries, E> {
        Ok(Entries::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Entries, E> {
        Ok(Entries::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Entries, E> {
        Ok(Entries::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Entries, E> {
        Ok(Entries::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Entries, E> {
        Ok(Entries::Other)
    }
}
