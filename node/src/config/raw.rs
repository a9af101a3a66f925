//! A file and single values as the node reads them, before they are typed: for tools that edit configurations
//! and must see in them exactly what the node sees.

use super::{
    error::{ConfigError, ConfigErrors, Origin, Problem},
    sources::{Entries, MAX_TEXT_LEN, parse},
};
use serde_yaml::Value;

/// The entries of a file in their order, unknown and repeated keys included; errors call it `origin_name`.
///
/// # Errors
///
/// The text is too large, not YAML, or no mapping.
pub fn entries(text: &str, origin_name: &str) -> Result<Vec<(String, Value)>, ConfigErrors> {
    match within_limit(text).and_then(|()| parse::<Entries>(text)) {
        Ok(Entries::Mapping(entries)) => {
            Ok(entries.into_iter().map(|(key, value)| (key.value, value)).collect())
        }
        Ok(Entries::Other) => Err(errors(origin_name, 0, Problem::NotAMapping)),
        Err((line, problem)) => Err(errors(origin_name, line, problem)),
    }
}

/// A value as `--set` and the environment give it; empty text is null.
///
/// # Errors
///
/// The text is too large or not YAML.
pub fn value(text: &str, origin_name: &str) -> Result<Value, ConfigErrors> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    within_limit(text).and_then(|()| parse(text)).map_err(|(_, problem)| errors(origin_name, 0, problem))
}

fn within_limit(text: &str) -> Result<(), (u64, Problem)> {
    let fits = text.len() as u64 <= MAX_TEXT_LEN;
    if fits { Ok(()) } else { Err((0, Problem::TooLarge { limit: MAX_TEXT_LEN })) }
}

fn errors(name: &str, line: u64, problem: Problem) -> ConfigErrors {
    let origin = Origin::File { name: name.into(), line };
    ConfigErrors::new(vec![ConfigError { origin, key: None, problem }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_stands_in_a_file_is_seen() {
        let read = entries("zone: &z a\nnonsense: *z\nport: yes\nport: 0x10\n", "f").expect("YAML");
        let read: Vec<_> = read.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        assert_eq!(
            read,
            ["zone=String(\"a\")", "nonsense=String(\"a\")", "port=String(\"yes\")", "port=Number(16)"]
        );
        assert!(entries("# nothing\n", "f").expect("fine").is_empty());
        assert!(entries("", "f").expect("fine").is_empty());
        assert_eq!(
            entries("- a", "f").expect_err("a list").to_string(),
            "f: expected lines of the form `key: value`"
        );
        assert!(entries("a: [", "f").expect_err("broken").to_string().contains("not valid YAML"));
    }

    #[test]
    fn a_value_is_read_as_set_reads_it() {
        assert_eq!(value(" ", "--set").expect("empty"), Value::Null);
        assert_eq!(value("'5'", "--set").expect("text"), Value::from("5"));
        assert!(value("[", "VALUE").expect_err("broken").to_string().starts_with("VALUE: not valid YAML: "));
    }
}
