//! Passphrases: from a file, standard input, or the terminal without showing them.

use crate::error::Failure;
use age::secrecy::{ExposeSecret as _, SecretString};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::PathBuf,
};

/// Shortest passphrase, in characters: whoever finds the file can try as often as they like.
const MIN_PASSPHRASE: usize = 12;
/// Longest passphrase that is read, in bytes.
const MAX_PASSPHRASE_LEN: u64 = 4096;

/// A passphrase. It is nowhere shown.
#[derive(Debug)]
pub(super) struct Passphrase(SecretString);

impl Passphrase {
    /// The first line of a text.
    pub(super) fn new(text: &str) -> Result<Self, Failure> {
        let line = text.lines().next().unwrap_or_default();
        if line.chars().count() < MIN_PASSPHRASE {
            let message = format!("a passphrase has at least {MIN_PASSPHRASE} characters");
            return Err(Failure::usage(message)
                .hint("Several words of a word list are easy to keep and hard to guess."));
        }
        Ok(Self(SecretString::from(line.to_owned())))
    }

    pub(super) fn secret(&self) -> SecretString {
        self.0.clone()
    }
}

/// Where a passphrase comes from when nobody is to be asked.
#[derive(Debug, Args)]
pub(super) struct PassphraseSource {
    /// File whose first line is the passphrase, - for stdin; the terminal is asked otherwise
    #[arg(long, value_name = "FILE|-")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseSource {
    /// The passphrase, if a file is named.
    pub(super) fn read(&self) -> Result<Option<Passphrase>, Failure> {
        let Some(path) = &self.passphrase_file else { return Ok(None) };
        let text = match path.as_os_str() == "-" {
            true => read_some(io::stdin().lock()),
            false => File::open(path).and_then(read_some),
        };
        let text = text.map_err(|error| {
            Failure::usage(format!("cannot read the passphrase from {}: {error}", path.display()))
        })?;
        Passphrase::new(&text).map(Some)
    }
}

fn read_some(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(MAX_PASSPHRASE_LEN).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks on the terminal.
pub(super) fn ask_once() -> Result<Passphrase, Failure> {
    Passphrase::new(&ask("Passphrase of the backup: ")?)
}

/// Asks on the terminal, twice: a mistyped passphrase would show itself when it is too late.
pub(super) fn ask_twice() -> Result<Passphrase, Failure> {
    let first = Passphrase::new(&ask("New passphrase for the backup: ")?)?;
    let second = ask("The same again: ")?;
    if first.0.expose_secret() != second.lines().next().unwrap_or_default() {
        return Err(Failure::usage("the two passphrases differ; nothing was written"));
    }
    Ok(first)
}

/// One line of the terminal, not shown. stdin and stdout may be something else.
fn ask(prompt: &str) -> Result<String, Failure> {
    let no_terminal = |error: io::Error| {
        Failure::usage(format!("there is no terminal to ask for the passphrase ({error})"))
            .hint("Pass --passphrase-file FILE, or - for stdin.")
    };
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let mut line = String::new();
    let asked = {
        let _hidden = Hidden::new(&terminal).map_err(|error| no_terminal(error.into()))?;
        (&terminal)
            .write_all(prompt.as_bytes())
            .and_then(|()| BufReader::new((&terminal).take(MAX_PASSPHRASE_LEN)).read_line(&mut line))
    };
    // What was typed, Enter included, was not shown.
    asked.and_then(|_| (&terminal).write_all(b"\n")).map_err(no_terminal)?;
    Ok(line)
}

/// A terminal that shows nothing of what is typed until this is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to show any more.
        if tcsetattr(self.terminal, OptionalActions::Now, &self.before).is_err() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_the_first_line_and_not_short() {
        let read = |text: &str| Passphrase::new(text).map(|found| found.0.expose_secret().to_owned());
        assert_eq!(read("correct horse battery\nmore\n").as_deref(), Ok("correct horse battery"));
        assert_eq!(read(" with spaces around \r\n").as_deref(), Ok(" with spaces around "));
        for short in ["", "\n", "hunter2", "\ncorrect horse battery"] {
            assert!(read(short).is_err_and(|failure| failure.message.contains("at least 12 characters")));
        }
        let shown = format!("{:?}", Passphrase::new("correct horse battery").expect("long enough"));
        assert!(!shown.contains("horse"), "{shown}");
    }
}
