//! Every mistake in a configuration, with its place and the remedy.

use std::{fmt, sync::Arc};

/// Where a value was given. Ordered as the sources are: the file by line, the environment, `--set`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the file; line 0 stands for the file as a whole.
    File {
        /// The file as the user named it.
        name: Arc<str>,
        /// From 1.
        line: u64,
    },
    /// The environment variable of this name.
    Env(String),
    /// A `--set` argument.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: 0 } => f.write_str(name),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(name) => f.write_str(name),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// What is wrong, and what is expected instead.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file could not be opened or read.
    #[error("cannot be read: {0}; name the node's configuration file with --config")]
    Unreadable(#[source] std::io::Error),
    /// The text is larger than a configuration can sensibly be.
    #[error("is larger than {} KiB; a configuration is not, is this the right file?", .limit / 1024)]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The text is not one YAML document, or more than the parser's budget allows.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// The document is not a mapping.
    #[error("expected lines of the form `key: value`")]
    NotAMapping,
    /// A `--set` argument without `=`.
    #[error("expected KEY=VALUE")]
    NotAnAssignment,
    /// A key that is not in the table.
    #[error("unknown key{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// The nearest known name, if one is near.
        nearest: Option<String>,
    },
    /// A key that the file gives more than once.
    #[error("given more than once, first on line {first}; keep one of them")]
    Duplicate {
        /// The line of the first.
        first: u64,
    },
    /// A value of the wrong type or out of range.
    #[error("found {found}{}, expected {expected}", .why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
    Value {
        /// The value, shortened.
        found: String,
        /// Why it does not do, where its type alone does not tell.
        why: Option<String>,
        /// What would.
        expected: &'static str,
    },
    /// A rule between keys, or of a default, is broken.
    #[error("{0}")]
    Rule(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; config/coordinator.yaml explains the known ones".to_owned(),
        |name| format!(", did you mean {name}?"),
    )
}

/// `text` with what would break its line written as an escape.
pub(super) fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if breaks(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// One mistake.
#[derive(Debug)]
pub struct ConfigError {
    /// Where it is.
    pub origin: Origin,
    /// The key it concerns, if it concerns one.
    pub key: Option<String>,
    /// What is wrong and what is expected.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{}: ", one_line(key))?;
        }
        fmt::Display::fmt(&self.problem, f)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

/// Every mistake of a configuration, one per line when shown. Nothing of it has been applied.
#[derive(Debug, thiserror::Error)]
#[error("{}", .errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors {
    /// At least one: the file's by line, then the environment's, then those of `--set`.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|a, b| a.origin.cmp(&b.origin));
        Self { errors }
    }
}
