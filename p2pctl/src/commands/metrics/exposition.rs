//! The text format of Prometheus and OpenMetrics, read into families.

use serde::Serialize;
use std::collections::BTreeMap;

/// What a sample's name may add to its family's.
const SUFFIXES: [&str; 7] = ["", "_total", "_bucket", "_sum", "_count", "_created", "_info"];

/// One metric family.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Family {
    pub(super) name: String,
    r#type: String,
    help: String,
    samples: Vec<Sample>,
    /// Its lines as they came.
    #[serde(skip)]
    pub(super) text: String,
}

/// One line of numbers. The value stays text: it may be `NaN` or `+Inf`, which JSON cannot say.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: String,
}

impl Family {
    /// Whether `name` is the family's or that of one of its samples.
    pub(super) fn is_called(&self, name: &str) -> bool {
        is_in(name, &self.name) || self.name.strip_suffix("_total") == Some(name)
    }
}

fn is_in(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| SUFFIXES.contains(&rest))
}

/// Reads all families, in their order. Lines that are none of the format's are skipped.
pub(super) fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((word, name, rest)) = meta(line) {
            let family = family_of(&mut families, name, |family| family.name == name);
            match word {
                "HELP" => family.help = rest.to_owned(),
                "TYPE" => family.r#type = rest.to_owned(),
                _ => {}
            }
            family.text.push_str(line);
            family.text.push('\n');
        } else if let Some(sample) = sample(line) {
            let name = sample.name.clone();
            let family = family_of(&mut families, &name, |family| is_in(&name, &family.name));
            family.text.push_str(line);
            family.text.push('\n');
            family.samples.push(sample);
        }
    }
    families
}

/// The last family, if it fits; lines of one family stand together.
fn family_of<'a>(
    families: &'a mut Vec<Family>,
    name: &str,
    fits: impl FnOnce(&Family) -> bool,
) -> &'a mut Family {
    if !families.last().is_some_and(fits) {
        families.push(Family { name: name.to_owned(), ..Family::default() });
    }
    families.last_mut().expect("one was just pushed unless the last one fits")
}

/// `# HELP name rest`, also of TYPE and UNIT.
fn meta(line: &str) -> Option<(&str, &str, &str)> {
    let (word, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    ["HELP", "TYPE", "UNIT"].contains(&word).then_some((word, name, rest))
}

/// `name{label="value",...} value [timestamp] [# exemplar]`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.to_owned();
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Reads up to and with the closing brace; returns the rest of the line.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

/// Reads up to and with the closing quote; returns the rest.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP p2p_calls Calls.
# TYPE p2p_calls counter
p2p_calls_total{method=\"a/b\",code=\"O}K\"} 3
p2p_calls_total{method=\"a\\\"c\"} 4 # {trace=\"x\"} 1
# HELP p2p_rtt_seconds RTT.
# TYPE p2p_rtt_seconds histogram
p2p_rtt_seconds_bucket{le=\"+Inf\"} 1
p2p_rtt_seconds_sum 0.5
p2p_rtt_seconds_count 1
untyped 7
# EOF
";

    #[test]
    fn families_keep_their_lines_and_samples() {
        let families = parse(TEXT);
        let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names, ["p2p_calls", "p2p_rtt_seconds", "untyped"]);
        assert_eq!(families.iter().map(|f| f.text.as_str()).collect::<String>() + "# EOF\n", TEXT);
        assert_eq!(families[0].samples[0].labels["code"], "O}K");
        assert_eq!(families[0].samples[1].labels["method"], "a\"c");
        assert_eq!((families[0].r#type.as_str(), families[0].samples[1].value.as_str()), ("counter", "4"));
        assert_eq!(families[1].samples.len(), 3);
    }

    #[test]
    fn a_family_answers_to_its_name_and_its_samples_names() {
        let families = parse(TEXT);
        for name in ["p2p_calls", "p2p_calls_total"] {
            assert!(families[0].is_called(name), "{name}");
        }
        assert!(families[1].is_called("p2p_rtt_seconds_bucket"));
        assert!(!families[1].is_called("p2p_rtt"));
        assert!(parse("x_total 1\n")[0].is_called("x"));
    }
}
