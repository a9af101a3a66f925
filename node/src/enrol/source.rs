//! Where a join token is given.

use crate::identity::{InvalidJoinToken, JoinToken, join_token::MAX_TOKEN_LEN};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

/// Where to find a join token. Nothing is read before it is needed, and its `Debug` shows no token.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinSource {
    /// The token itself.
    Text(String),
    /// A file with the token in it: `@FILE`, or `join_token_file`.
    File(PathBuf),
    /// Standard input: `-`.
    Stdin,
}

/// Why there is no join token. The text that was found is not repeated: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading failed.
    #[error("the join token cannot be read from {from}: {error}")]
    Read {
        /// Where from.
        from: String,
        /// What the system says.
        error: io::Error,
    },
    /// What was read is no join token.
    #[error("what {from} gives is no join token: {reason}")]
    Invalid {
        /// Where from.
        from: String,
        /// Why not.
        reason: InvalidJoinToken,
    },
}

impl JoinSource {
    /// What `--join` was given: a token, `@FILE` or `-`.
    pub fn from_argument(argument: &str) -> Self {
        match (argument, argument.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(file)) => Self::File(file.into()),
            (token, None) => Self::Text(token.to_owned()),
        }
    }

    /// Reads the token; spaces and line ends around it do not matter.
    ///
    /// # Errors
    ///
    /// When nothing can be read, or it is no join token.
    pub fn read(&self) -> Result<JoinToken, SourceError> {
        let text = match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => File::open(path).and_then(bounded),
            Self::Stdin => bounded(io::stdin().lock()),
        };
        let text = text.map_err(|error| SourceError::Read { from: self.to_string(), error })?;
        text.trim().parse().map_err(|reason| SourceError::Invalid { from: self.to_string(), reason })
    }
}

/// A little more than the longest token: what is longer is told from it.
fn bounded(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TOKEN_LEN as u64 + 64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl fmt::Display for JoinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("--join"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

impl fmt::Debug for JoinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinSource({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_a_token_a_file_or_standard_input() {
        assert_eq!(JoinSource::from_argument("-"), JoinSource::Stdin);
        assert_eq!(JoinSource::from_argument("@/run/t"), JoinSource::File("/run/t".into()));
        assert_eq!(JoinSource::from_argument("p2pjoin1.x"), JoinSource::Text("p2pjoin1.x".into()));
    }

    #[test]
    fn no_message_repeats_the_token() {
        let source = JoinSource::from_argument("p2pjoin1.SECRET");
        let error = source.read().expect_err("damaged").to_string();
        assert!(error.starts_with("what --join gives is no join token: it is damaged"), "{error}");
        assert!(!format!("{source:?} {error}").contains("SECRET"));
        let error = JoinSource::File("/does/not/exist".into()).read().expect_err("missing").to_string();
        assert!(
            error.starts_with("the join token cannot be read from /does/not/exist: No such file"),
            "{error}"
        );
    }
}
