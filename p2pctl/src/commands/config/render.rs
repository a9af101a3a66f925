//! Values as YAML text, on one line or as a block.

use granit_parser::ScalarStyle;
use p2p_node::config::{parse_duration, raw};
use serde_yaml::Value;

/// How text is quoted where it need not be as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    /// Where plain text would mean something else.
    Needed,
    /// `'text'`, if that can hold it.
    Single,
    /// `"text"`.
    Double,
}

impl Quotes {
    /// Those that a scalar had.
    pub(super) fn of(style: ScalarStyle) -> Self {
        match style {
            ScalarStyle::SingleQuoted => Self::Single,
            ScalarStyle::DoubleQuoted => Self::Double,
            ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => Self::Needed,
        }
    }
}

/// `value` on one line.
pub(super) fn line(value: &Value, quotes: Quotes) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => scalar(text, quotes),
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(|item| line(item, Quotes::Needed)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(fields) => {
            let fields: Vec<_> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Tagged(tagged) => format!("{} {}", tagged.tag, line(&tagged.value, quotes)),
    }
}

/// The lines of a list or mapping that has elements, each with its mark; nothing else has lines.
pub(super) fn block(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Sequence(items) if !items.is_empty() => {
            Some(items.iter().map(|item| format!("- {}", line(item, Quotes::Needed))).collect())
        }
        Value::Mapping(fields) if !fields.is_empty() => Some(fields.iter().map(field).collect()),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => None,
    }
}

/// `value` as people read it: text without quotes.
pub(super) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| line(value, Quotes::Needed), str::to_owned)
}

fn field((name, value): (&Value, &Value)) -> String {
    format!("{}: {}", line(name, Quotes::Needed), line(value, Quotes::Needed))
}

fn scalar(text: &str, quotes: Quotes) -> String {
    match quotes {
        Quotes::Needed if is_plain(text) => text.to_owned(),
        Quotes::Single if !text.chars().any(must_be_escaped) => format!("'{}'", text.replace('\'', "''")),
        Quotes::Needed | Quotes::Single | Quotes::Double => double_quoted(text),
    }
}

/// Whether text means itself without quotes, for every reader of YAML: also for those of YAML 1.1, to which `no` is
/// false and `12:30` a number.
fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "._/+-".contains(c);
    // 30s is a word, too.
    let is_time = text.ends_with(|c: char| c.is_ascii_alphabetic()) && parse_duration(text).is_ok();
    let starts = is_time || text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_bool = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    starts && !is_bool && text.chars().all(word) && raw::value(text, "").is_ok_and(|value| value.is_string())
}

fn must_be_escaped(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if must_be_escaped(c) => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_quoted_where_it_would_mean_something_else() {
        for (text, written) in [
            ("info", "info"),
            ("/run/p2p/node.sock", "/run/p2p/node.sock"),
            ("info,p2p_node=debug", "\"info,p2p_node=debug\""),
            ("10.0.0.5:8001", "\"10.0.0.5:8001\""),
            ("5", "\"5\""),
            ("250ms", "250ms"),
            ("1e3", "\"1e3\""),
            ("no", "\"no\""),
            ("null", "\"null\""),
            ("True", "\"True\""),
            ("a # b", "\"a # b\""),
            ("a\tb\u{85}", "\"a\\tb\\u0085\""),
            ("", "\"\""),
        ] {
            assert_eq!(scalar(text, Quotes::Needed), written);
        }
        assert_eq!(scalar("it's", Quotes::Single), "'it''s'");
        assert_eq!(scalar("a\nb", Quotes::Single), "\"a\\nb\"");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "\\PC{0,12}|(.|\\n){0,12}", kind in 0..3) {
            let quotes = [Quotes::Needed, Quotes::Single, Quotes::Double][kind as usize];
            let value = Value::from(text);
            let list = Value::Sequence(vec![value.clone(), Value::from(5)]);
            prop_assert_eq!(&raw::value(&line(&value, quotes), "").expect("YAML"), &value);
            prop_assert_eq!(&raw::value(&line(&list, quotes), "").expect("YAML"), &list);
        }
    }
}
