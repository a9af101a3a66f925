//! Requests from the command line, a file or stdin.

use crate::error::Failure;
use anyhow::Context as _;
use std::{fs, io::Read as _};

/// Largest payload read from a file or stdin, in bytes: the limit of gRPC messages.
const MAX_PAYLOAD_BYTES: u64 = 4 * 1024 * 1024;

/// The request text, checked to be a JSON object before anything is sent.
pub(super) fn one(arg: &str) -> Result<String, Failure> {
    let text = match (arg, arg.strip_prefix('@')) {
        ("-", _) => read(std::io::stdin().lock()).context("Cannot read the request from stdin"),
        (_, Some(path)) => fs::File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(read)
            .with_context(|| format!("Cannot read the request from {path}")),
        (json, None) => Ok(json.to_owned()),
    };
    let text = text.map_err(|error| Failure::usage(format!("{error:#}")))?;
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::usage(format!("The request is not JSON: {error}"))
            .hint("Write an object in quotes, as in '{\"message\": \"hello\"}', @FILE or -")),
    }
}

fn read(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_PAYLOAD_BYTES + 1).read_to_string(&mut text)?;
    anyhow::ensure!(read as u64 <= MAX_PAYLOAD_BYTES, "it is larger than {MAX_PAYLOAD_BYTES} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_payload_comes_from_the_line_or_a_file_and_must_be_json() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("request.json");
        fs::write(&file, r#"{"a":1}"#).expect("written");
        assert_eq!(one(&format!("@{}", file.display())).as_deref(), Ok(r#"{"a":1}"#));
        assert_eq!(one("{}").as_deref(), Ok("{}"));
        for bad in ["{a:1}", "", "@/no/such/file"] {
            assert_eq!(one(bad).expect_err(bad).exit, Exit::Usage);
        }
    }
}
