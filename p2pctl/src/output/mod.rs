//! Everything that is printed. Data goes to stdout, everything else to stderr.
//!
//! | module | what it holds |
//! |---|---|
//! | [`table`] | aligned columns with coloured cells |
//! | [`json`] | re-indenting JSON text without touching its values |
//! | [`time`] | "12s ago" |

pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

use crate::error::{Exit, Failure};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};
use table::Table;

/// Version of the JSON and YAML that scripts read.
const SCHEMA: &str = "p2pctl/v1";

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For people, with more columns
    Wide,
    /// For scripts
    Json,
    /// For scripts, as YAML
    Yaml,
}

impl Format {
    /// Whether scripts read it.
    pub(crate) fn is_structured(self) -> bool {
        match self {
            Self::Json | Self::Yaml => true,
            Self::Table | Self::Wide => false,
        }
    }

    /// The format that a command line asks for, even if it does not parse otherwise.
    pub(crate) fn asked_by(args: impl IntoIterator<Item = OsString>) -> Self {
        let args: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let mut values = args.iter().enumerate().filter_map(|(index, arg)| match arg.as_str() {
            "-o" | "--output" => args.get(index + 1).map(String::as_str),
            flag => flag.strip_prefix("--output=").or_else(|| flag.strip_prefix("-o")),
        });
        let last = values.next_back().map(|value| value.trim_start_matches('='));
        last.and_then(|value| Self::from_str(value, false).ok()).unwrap_or(Self::Table)
    }
}

#[derive(Serialize)]
struct List<'a, T> {
    schema: &'static str,
    kind: &'a str,
    items: &'a [T],
}

#[derive(Serialize)]
struct Object<'a, T> {
    schema: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

/// Where data and messages go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    color: bool,
}

impl Output {
    /// Output in `format`, coloured if stdout is a terminal and `NO_COLOR` is not set.
    pub(crate) fn new(format: Format) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { format, color: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// The form that was asked for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether colours are wanted.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// Prints `items`, as a table for people.
    pub(crate) fn list<T: Serialize>(
        &self,
        kind: &str,
        items: &[T],
        table: impl FnOnce(Detail) -> Table,
    ) -> Result<(), Failure> {
        let list = List { schema: SCHEMA, kind, items };
        match self.format {
            Format::Json => self.data(&json_text(&list)?),
            Format::Yaml => self.data(&yaml_text(&list)?),
            Format::Table => self.data(&table(Detail::Normal).render(self.color)),
            Format::Wide => self.data(&table(Detail::Wide).render(self.color)),
        }
    }

    /// Prints `items` once more after earlier ones; as data, each time on one line or as a document of its own.
    pub(crate) fn next_list<T: Serialize>(
        &self,
        kind: &str,
        items: &[T],
        table: impl FnOnce(Detail) -> Table,
    ) -> Result<(), Failure> {
        let list = List { schema: SCHEMA, kind, items };
        match self.format {
            Format::Json | Format::Yaml => self.next_data(&list),
            Format::Table | Format::Wide => self.list(kind, items, table),
        }
    }

    /// Whether what is printed can be drawn over: on a terminal that moves its cursor.
    pub(crate) fn redraws(&self) -> bool {
        io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
    }

    /// Prints one thing, as `text` for people.
    pub(crate) fn object<T: Serialize>(
        &self,
        kind: &str,
        body: &T,
        text: impl FnOnce(&Self) -> String,
    ) -> Result<(), Failure> {
        let object = Object { schema: SCHEMA, kind, body };
        match self.format {
            Format::Json => self.data(&json_text(&object)?),
            Format::Yaml => self.data(&yaml_text(&object)?),
            Format::Table | Format::Wide => self.data(&text(self)),
        }
    }

    /// Prints one of many things that come one after another: a line of JSON, a document of YAML, or `line` for
    /// people.
    pub(crate) fn next<T: Serialize>(
        &self,
        kind: &str,
        body: &T,
        line: impl FnOnce(&Self) -> String,
    ) -> Result<(), Failure> {
        let object = Object { schema: SCHEMA, kind, body };
        match self.format {
            Format::Json | Format::Yaml => self.next_data(&object),
            Format::Table | Format::Wide => self.data(&line(self)),
        }
    }

    /// A line of JSON, or a document of YAML.
    fn next_data(&self, value: &impl Serialize) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => self.data(&format!("---\n{}", yaml_text(value)?)),
            Format::Json | Format::Table | Format::Wide => {
                let text = serde_json::to_string(value);
                self.data(&(text.map_err(|error| Failure::other(error.to_string()))? + "\n"))
            }
        }
    }

    /// Prints `table` as part of a text.
    pub(crate) fn render(&self, table: &Table) -> String {
        table.render(self.color)
    }

    /// Prints to stdout as it is. A reader that went away (`p2pctl ... | head`) ends the process
    /// quietly: nobody is left to tell.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                std::process::exit(i32::from(Exit::Success.number()))
            }
            Err(error) => Err(Failure::other(format!("cannot write to stdout: {error}"))),
        }
    }

    /// Prints a line for people to stderr.
    pub(crate) fn note(&self, text: &str) {
        stderr_line(&printable(text));
    }

    /// Prints why the verb failed, and returns how to exit.
    pub(crate) fn failure(&self, failure: &Failure) -> ExitCode {
        let body = ErrorBody { code: failure.code, message: &failure.message };
        let object = Object { schema: SCHEMA, kind: "Error", body: &body };
        let text = match self.format {
            Format::Json => serde_json::to_string(&object).map_err(|error| error.to_string()),
            Format::Yaml => yaml_text(&object).map_err(|error| error.message),
            Format::Table | Format::Wide => Ok(format!("error: {}", printable(&failure.message))),
        };
        stderr_line(text.unwrap_or_else(|error| error).trim_end());
        failure.exit.into()
    }
}

/// How many columns a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Those that matter every day.
    Normal,
    /// All.
    Wide,
}

fn stderr_line(text: &str) {
    // If stderr is gone, the exit code still tells.
    if writeln!(io::stderr().lock(), "{text}").is_err() {}
}

fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Failure::other(error.to_string()))
}

fn yaml_text(value: &impl Serialize) -> Result<String, Failure> {
    serde_yaml::to_string(value).map_err(|error| Failure::other(error.to_string()))
}

/// The text without control characters, which a terminal would obey: labels and messages come from other
/// hosts.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// Asks on the terminal whether to go on. Nothing is asked with `yes`, nor where there is no terminal.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(());
    }
    let mut stderr = io::stderr();
    let asked = write!(stderr, "{} [y/N] ", printable(question)).and_then(|()| stderr.flush());
    let mut answer = String::new();
    let answered = asked.and_then(|()| io::stdin().read_line(&mut answer));
    answered.map_err(|error| Failure::other(format!("cannot ask: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::other("nothing was done")),
    }
}

/// What `kubectl` users know as `-`: nothing to show.
pub(crate) const NOTHING: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_known_even_when_the_rest_does_not_parse() {
        let asked = |line: &str| Format::asked_by(line.split(' ').map(OsString::from));
        for line in ["p2pctl x -o json", "p2pctl -ojson x", "p2pctl --output=json x", "p2pctl -o=json"] {
            assert_eq!(asked(line), Format::Json, "{line}");
        }
        assert_eq!(asked("p2pctl cluster nodes -o yaml"), Format::Yaml);
        assert_eq!(asked("p2pctl cluster nodes -o"), Format::Table);
    }

    #[test]
    fn lists_and_objects_carry_schema_and_kind_first() {
        let list = List { schema: SCHEMA, kind: "NodeList", items: &["a"] };
        assert_eq!(
            serde_json::to_string(&list).expect("serializes"),
            r#"{"schema":"p2pctl/v1","kind":"NodeList","items":["a"]}"#
        );
        let body = ErrorBody { code: "unavailable", message: "why" };
        assert_eq!(
            serde_json::to_string(&Object { schema: SCHEMA, kind: "Error", body: &body })
                .expect("serializes"),
            r#"{"schema":"p2pctl/v1","kind":"Error","code":"unavailable","message":"why"}"#
        );
    }

    #[test]
    fn text_from_other_hosts_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a?[31mb\nc");
    }
}
