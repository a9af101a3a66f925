//! Where an access token is given: on the command line, in a file, or on standard input.

use crate::error::Failure;
use anyhow::Context as _;
use p2p_client::Token;
use std::{convert::Infallible, fmt, fs::File, io::Read, path::PathBuf, str::FromStr};

/// Largest text that is read as a token, in bytes; nodes take 8 KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// `TOKEN`, `@FILE` or `-`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// The token itself.
    Text(String),
    /// A file that holds it.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl FromStr for TokenSource {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None if text == "-" => Self::Stdin,
            None => Self::Text(text.to_owned()),
        })
    }
}

impl fmt::Debug for TokenSource {
    /// Never shows the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stdin => f.write_str("Stdin"),
        }
    }
}

impl TokenSource {
    /// The token's text.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        let text = match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => File::open(path)
                .map_err(anyhow::Error::from)
                .and_then(bounded)
                .with_context(|| format!("cannot read the token from {}", path.display())),
            Self::Stdin => bounded(std::io::stdin().lock()).context("cannot read the token from stdin"),
        };
        text.map(|text| text.trim().to_owned()).map_err(|error| Failure::usage(format!("{error:#}")))
    }

    /// The token, ready to be sent.
    pub(crate) fn token(&self) -> Result<Token, Failure> {
        self.read()?.parse().map_err(|error| {
            Failure::usage(format!("--token: {error}")).hint("Write the token, @FILE or - for stdin")
        })
    }
}

fn bounded(from: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    anyhow::ensure!(read as u64 <= MAX_BYTES, "it is larger than {MAX_BYTES} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_the_line_or_a_file_and_is_not_shown() {
        let source = |text: &str| text.parse::<TokenSource>().expect("any text does");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        std::fs::write(&file, "a.b.c\n").expect("written");
        assert_eq!(source(&format!("@{}", file.display())).read().as_deref(), Ok("a.b.c"));
        assert_eq!(source("x.y.z").read().as_deref(), Ok("x.y.z"));
        assert_eq!(format!("{:?}", source("x.y.z")), "Text(..)");
        assert_eq!(source("-"), TokenSource::Stdin);
        for bad in ["@/no/such/file", "a b", ""] {
            assert_eq!(source(bad).token().expect_err(bad).exit, crate::error::Exit::Usage);
        }
    }
}
