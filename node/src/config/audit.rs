//! Where the audit log goes.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

/// A file, or standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// Standard error, beside the log.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
}

impl AuditTarget {
    /// Its path, as errors name it.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Stderr => "stderr".into(),
            Self::File(path) => path.clone(),
        }
    }
}

impl FromStr for AuditTarget {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "stderr" { Self::Stderr } else { Self::File(text.into()) })
    }
}

impl fmt::Display for AuditTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}
