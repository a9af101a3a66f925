//! Names: of files in the state directory, of labels, of the log's format.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

/// Longest file name, in bytes: what file systems allow (255) less what saving and setting aside append.
pub const MAX_FILE_NAME_LEN: usize = 200;
/// Most labels of one node.
pub const MAX_LABELS: usize = 32;
/// Longest name of a label, in bytes.
pub const MAX_LABEL_NAME_LEN: usize = 63;
/// Longest value of a label, in bytes.
pub const MAX_LABEL_VALUE_LEN: usize = 255;

/// Why a text is not a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFileName {
    /// Empty.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_FILE_NAME_LEN`].
    #[error("it is longer than {MAX_FILE_NAME_LEN} bytes")]
    TooLong,
    /// With `/`, `\` or a control character.
    #[error("it may not lead out of state_directory; set that key to move the files")]
    Separator,
    /// Starts with a dot.
    #[error("names that start with a dot are kept for temporary files")]
    Hidden,
    /// Used by the node itself.
    #[error("the node keeps another file of that name")]
    Reserved,
}

/// The name of a file in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// Files of the state directory whose names cannot be chosen.
    pub const RESERVED: [&'static str; 3] = ["lock", "identity_state.json", "token_signers.json"];

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for FileName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for FileName {
    type Err = InvalidFileName;
    fn from_str(text: &str) -> Result<Self, InvalidFileName> {
        if text.is_empty() {
            return Err(InvalidFileName::Empty);
        }
        if text.len() > MAX_FILE_NAME_LEN {
            return Err(InvalidFileName::TooLong);
        }
        if text.contains(|c: char| matches!(c, '/' | '\\') || c.is_control()) {
            return Err(InvalidFileName::Separator);
        }
        if text.starts_with('.') {
            return Err(InvalidFileName::Hidden);
        }
        if Self::RESERVED.contains(&text) {
            return Err(InvalidFileName::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why a mapping is not a set of labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// More than [`MAX_LABELS`].
    #[error("{0} labels, at most {MAX_LABELS} are allowed")]
    TooMany(usize),
    /// A name that could not be told apart from its value in `NAME=VALUE`.
    #[error("label name {0:?} is not 1 to {MAX_LABEL_NAME_LEN} of letters, digits, '.', '_', '-' and '/'")]
    Name(String),
    /// A value too long or with control characters.
    #[error("the value of label {0:?} is longer than {MAX_LABEL_VALUE_LEN} bytes or has control characters")]
    Value(String),
}

/// What a node says about itself, for others to select it by. At most [`MAX_LABELS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The labels, by name.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = InvalidLabels;
    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, InvalidLabels> {
        if labels.len() > MAX_LABELS {
            return Err(InvalidLabels::TooMany(labels.len()));
        }
        for (name, value) in &labels {
            let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
            if !(1..=MAX_LABEL_NAME_LEN).contains(&name.len()) || !name.chars().all(in_name) {
                return Err(InvalidLabels::Name(name.clone()));
            }
            if value.len() > MAX_LABEL_VALUE_LEN || value.contains(char::is_control) {
                return Err(InvalidLabels::Value(name.clone()));
            }
        }
        Ok(Self(labels))
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line, for collectors.
    Json,
}

/// A log format that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such format")]
pub struct UnknownLogFormat;

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;
    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat),
        }
    }
}
