//! Requests from the command line, a file or stdin: JSON values, one after another.

use crate::error::Failure;
use serde_json::{Deserializer, value::RawValue};
use std::{
    cell::Cell,
    fs,
    io::{self, BufRead, BufReader, Cursor, Read},
    rc::Rc,
};

/// Largest request read, in bytes: the limit of gRPC messages.
const MAX_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;

/// A reader that ends with an error when one value is too large.
struct Limited<R> {
    from: R,
    left: Rc<Cell<usize>>,
}

impl<R: BufRead> Read for Limited<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(format!("it is larger than {MAX_PAYLOAD_BYTES} bytes")));
        }
        let most = to.len().min(left);
        let read = self.from.read(&mut to[..most])?;
        self.left.set(left - read);
        Ok(read)
    }
}

/// The values of `arg`: JSON as it stands, `@FILE`, or `-` for stdin. Read one by one, as they are asked for.
pub(super) fn values(arg: &str) -> Result<Box<dyn Iterator<Item = Result<String, Failure>>>, Failure> {
    let (from, reader): (String, Box<dyn BufRead>) = match (arg, arg.strip_prefix('@')) {
        ("-", _) => ("stdin".to_owned(), Box::new(BufReader::new(io::stdin()))),
        (_, Some(path)) => {
            let file = fs::File::open(path)
                .map_err(|error| Failure::usage(format!("cannot read the request from {path}: {error}")))?;
            (path.to_owned(), Box::new(BufReader::new(file)))
        }
        (json, None) => ("the command line".to_owned(), Box::new(Cursor::new(json.to_owned()))),
    };
    let left = Rc::new(Cell::new(MAX_PAYLOAD_BYTES));
    let limited = Limited { from: reader, left: left.clone() };
    let mut values = Deserializer::from_reader(limited).into_iter::<Box<RawValue>>();
    let mut ended = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        left.set(MAX_PAYLOAD_BYTES);
        let value = values.next()?;
        ended = value.is_err();
        Some(value.map(|json| json.get().to_owned()).map_err(|error| {
            let what = if error.is_io() { "cannot be read" } else { "is not JSON" };
            Failure::usage(format!("the request from {from} {what}: {error}"))
                .hint("Write an object in quotes, as in '{\"message\": \"hello\"}', @FILE or -")
        }))
    })))
}

/// The one request of a method that takes one.
pub(super) fn one(arg: &str) -> Result<String, Failure> {
    let mut values = values(arg)?;
    let first = values
        .next()
        .unwrap_or_else(|| Err(Failure::usage("there is no request. Write {} for an empty one")))?;
    match values.next() {
        None => Ok(first),
        Some(Err(failure)) => Err(failure),
        Some(Ok(_)) => {
            Err(Failure::usage("the method takes one request, and more than one JSON value was given"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    fn all(arg: &str) -> Result<Vec<String>, Failure> {
        values(arg)?.collect()
    }

    #[test]
    fn a_payload_comes_from_the_line_or_a_file_and_must_be_json() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("request.json");
        fs::write(&file, "{\"a\":1}\n{\"b\": [2]} {}").expect("written");
        let from_file = format!("@{}", file.display());
        assert_eq!(all(&from_file).expect("three"), ["{\"a\":1}", "{\"b\": [2]}", "{}"]);
        assert_eq!(one(" {} ").as_deref(), Ok("{}"));
        for bad in ["{a:1}", "", "@/no/such/file", "{} x", from_file.as_str()] {
            assert_eq!(one(bad).expect_err(bad).exit, Exit::Usage);
        }
    }

    #[test]
    fn a_value_without_end_is_cut_off() {
        let long = format!("\"{}\"", "x".repeat(MAX_PAYLOAD_BYTES));
        let failure = one(&long).expect_err("too large");
        assert!(failure.message.contains("larger than 4194304 bytes"), "{}", failure.message);
        // Many of a fitting size may come.
        let each = format!("\"{}\"", "x".repeat(MAX_PAYLOAD_BYTES / 2));
        assert_eq!(all(&format!("{each} {each} {each}")).expect("three").len(), 3);
    }
}
