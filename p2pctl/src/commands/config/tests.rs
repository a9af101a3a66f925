//! Edits of texts: each case by hand, and hundreds by chance.

use super::edit::{EditError, Splice, edit};
use p2p_node::config::{keys, raw};
use proptest::prelude::*;
use serde_yaml::Value;
use std::ops::Range;

fn value(text: &str) -> Value {
    raw::value(text, "test").expect("YAML")
}

/// The text after `key` was given the value; an empty one takes it out.
fn edited(text: &str, key: &str, new: &str) -> Result<String, EditError> {
    let new = Some(value(new)).filter(|new| !new.is_null());
    Ok(edit(text, key, new.as_ref())?.map_or(text.to_owned(), |splice| splice.apply(text)))
}

/// `text | key | value => result`, with `\n` and the like for what cannot be seen.
const CASES: &str = r##"
port: 1\nzone: a # why\n | zone | b => port: 1\nzone: b # why\n
# head\r\nzone: a # why\r\nport: 1\r\n | zone | b => # head\r\nzone: b # why\r\nport: 1\r\n
# head\r\nzone: a\r\n | port | 9 => # head\r\nzone: a\r\nport: 9\r\n
\u{feff}# hä\nzone: a\nport: 1\n | zone | b => \u{feff}# hä\nzone: b\nport: 1\n
\u{feff}zone: a\nport: 1\n | zone | => \u{feff}port: 1\n
\u{feff}zone: a\nport: 1\n | log_level | warn => \u{feff}zone: a\nport: 1\nlog_level: warn\n
port: 1\nzone: a | zone | b => port: 1\nzone: b
port: 1\nzone: a | log_level | warn => port: 1\nzone: a\nlog_level: warn
port: 1\nzone: a | zone | => port: 1\n
 | port | 9 => port: 9\n
# a\n\n# b\n | port | 9 => # a\n\n# b\nport: 9\n
---\n | port | 9 => ---\nport: 9\n
{} # tail\n | port | 9 => {port: 9} # tail\n
{port: 1, zone: a} # tail\n | zone | b c => {port: 1, zone: "b c"} # tail\n
{port: 1, zone: a} # tail\n | log_level | warn => {port: 1, zone: a, log_level: warn} # tail\n
{port: 1, zone: a,} # tail\n | log_level | warn => {port: 1, zone: a, log_level: warn,} # tail\n
{port: 1, zone: a} # tail\n | port | => {zone: a} # tail\n
{port: 1, zone: a} # tail\n | zone | => {port: 1} # tail\n
{\n  port: 1, # one\n  zone: a, # two\n}\n | zone | b => {\n  port: 1, # one\n  zone: b, # two\n}\n
zone: &z eu # c\nport: 1\n | zone | b => zone: b # c\nport: 1\n
zone: &z eu\nlabels: {zone: *z}\n | labels | {a: b} => zone: &z eu\nlabels: {a: b}\n
a: &z eu\nzone: *z # c\n | zone | b => a: &z eu\nzone: b # c\n
zone: &z eu\nlabels: {zone: *z}\nport: 1\n | port | 2 => zone: &z eu\nlabels: {zone: *z}\nport: 2\n
zone: !!str 5 # c\n | zone | b => zone: b # c\n
zone: |-\n  a\n  b\n\n# after\nport: 1\n | zone | c => zone: c\n\n# after\nport: 1\n
zone: >\n  a\n\n# after\nport: 1\n | zone | => \n# after\nport: 1\n
zone: a\n  b\n  c # x\nport: 1\n | zone | d => zone: d # x\nport: 1\n
zone:\n  a # x\nport: 1\n | zone | d => zone:\n  d # x\nport: 1\n
zone:   # nothing yet\nport: 1\n | zone | d => zone: d   # nothing yet\nport: 1\n
zone:\nport: 1\n | zone | => port: 1\n
zone: ''   # c\n | zone | it's => zone: 'it''s'   # c\n
zone: "a"   # c\n | zone | b => zone: "b"   # c\n
'zone': a\n"port" : 1\n | port | 2 => 'zone': a\n"port" : 2\n
port: 1   \n\n\n | port | 2 => port: 2   \n\n\n
%YAML 1.2\n--- # start\nport: 1\n...\n# tail\n | zone | b => %YAML 1.2\n--- # start\nport: 1\nzone: b\n...\n# tail\n
  port: 1\n  zone: a\n | log_level | warn => \u{20} port: 1\n  zone: a\n  log_level: warn\n
access:\n- a\n# inner\n- b   # two\n\n# about port\nport: 1\n | access | [c, d] => access:\n- c\n- d   # two\n\n# about port\nport: 1\n
access:   # who\n  - a\n  - b\nport: 1\n | access | [c] => access:   # who\n  - c\nport: 1\n
access:   # who\n- a\nport: 1\n | access | [] => access:   # who\n  []\nport: 1\n
access:\n- a\nport: 1\n | access | [] => access: []\nport: 1\n
access:\r\n  - a\r\n  - b # x\r\nport: 1\r\n | access | [c, d] => access:\r\n  - c\r\n  - d # x\r\nport: 1\r\n
access: &l\n- a\nport: 1\n | access | [b] => access: &l\n- b\nport: 1\n
access:\n  - {a: b}\n  -\nport: 1\n | access | => port: 1\n
labels:\n  disk: ssd\n  team: a # c\nport: 1\n | labels | {disk: hdd} => labels:\n  disk: hdd # c\nport: 1\n
labels:\n  disk: ssd\n  team:\nport: 1\n | labels | {} => labels: {}\nport: 1\n
labels: {disk: ssd, # c\n  team: a} # d\n | labels | {x: z} => labels: {x: z} # d\n
# zone: ""\n\nport: 1\n | zone | b => # zone: ""\nzone: b\n\nport: 1\n
# access:\n#   - {methods: [a]}\n# more\nport: 1\n | access | [b] => # access:\n#   - {methods: [a]}\naccess: [b]\n# more\nport: 1\n
access:\n- a\n# zone: x\n- b\n | zone | z => access:\n- a\n# zone: x\n- b\nzone: z\n
join_token_file: |\n  # zone: x\n  y\n | zone | z => join_token_file: |\n  # zone: x\n  y\nzone: z\n
zone: "a\n  # zone: x\n  b"\nport: 1 | port | 2 => zone: "a\n  # zone: x\n  b"\nport: 2
? zone\n: a # c\n | zone | b => ? zone\n: b # c\n
zone: | # c\n  a\n\n  b\nport: 1\n | zone | c => zone: c\nport: 1\n
zone: |\n\nport: 1\n | zone | c => zone: c\n\nport: 1\n
labels:\n  a: |\n    x\n\n# c\nport: 1\n | labels | {b: c} => labels:\n  b: c\n\n# c\nport: 1\n
zone: a#b # c\nport: 1\n | zone | c#d => zone: "c#d" # c\nport: 1\n
zone: é # ü\nport: 1\n | port | 2 => zone: é # ü\nport: 2\n
"##;

fn unescaped(text: &str) -> String {
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    text.replace("\\u{feff}", "\u{feff}").replace("\\u{20}", " ")
}

#[test]
fn only_the_value_changes() {
    for case in CASES.lines().filter(|case| !case.is_empty()) {
        let (given, expected) = case.split_once(" => ").expect("two sides");
        // Without a value the key is taken out; texts may have bars of their own.
        let given = if given.ends_with(" |") { format!("{given} ") } else { given.to_owned() };
        let [new, key, text] = given.rsplitn(3, " | ").collect::<Vec<_>>().try_into().expect("three parts");
        let (text, expected) = (unescaped(text), unescaped(expected));
        assert_eq!(edited(&text, key, new), Ok(expected.clone()), "{case}");
        let again = edited(&expected, key, new);
        assert_eq!(again, Ok(expected), "a second time: {case}");
    }
}

#[test]
fn what_cannot_be_edited_safely_is_left_alone() {
    let anchored = "port: 1\nzone: &z eu\nlabels: {zone: *z}\n";
    assert_eq!(edited(anchored, "zone", "b"), Err(EditError::Anchored { line: 3 }));
    assert_eq!(edited(anchored, "zone", ""), Err(EditError::Anchored { line: 3 }));
    assert_eq!(edited("port: 1\nzone: a\nport: 2\n", "port", "3"), Err(EditError::Repeated));
    assert_eq!(edited("? zone\n: a\n", "zone", ""), Err(EditError::Form));
    assert_eq!(edited("null\n", "zone", "b"), Err(EditError::Form));
    for broken in ["zone: [", "- a\n", "a: b\n---\nc: d\n", "zone: *nobody\n"] {
        assert!(matches!(edited(broken, "zone", "b"), Err(EditError::Unreadable(_))), "{broken:?}");
    }
}

#[test]
fn every_key_of_the_example_is_set_below_its_explanation_and_taken_out_again() {
    let example = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/coordinator.yaml"));
    for key in keys() {
        let with = edited(example, key.name, "[some, thing]").expect(key.name);
        let line = with.lines().position(|line| line.starts_with(&format!("{}:", key.name))).expect("set");
        let above = with.lines().take(line).last().expect("an explanation");
        let group = above.starts_with('#') || example.contains(&format!("{above}\n{}:", key.name));
        assert!(group, "{}: below {above:?}", key.name);
        let without = edited(&with, key.name, "").expect(key.name);
        let commented = format!("\n# {}:", key.name);
        if example.contains(&commented) {
            assert_eq!(without, example, "{}", key.name);
        }
    }
}

#[test]
fn a_thousand_lines_are_edited_at_once() {
    let text: String = (0..500).map(|n| format!("# about {n}\nkey_{n}: [a, b, {n}]\n")).collect();
    let started = std::time::Instant::now();
    let after = edited(&text, "key_250", "x").expect("edited");
    assert!(after.contains("\nkey_250: x\n"));
    println!("a value in 1,000 lines is edited in {:?}", started.elapsed());
}

/// One entry as people write it, and whether its key may be edited.
fn entry() -> impl Strategy<Value = (&'static str, String)> {
    let word = "[a-z]{1,6}";
    let value = prop_oneof![
        word.prop_map(|word| format!(" {word}")),
        Just(String::new()),
        (0..9999).prop_map(|number| format!(" {number}")),
        word.prop_map(|word| format!(" '{word}, it''s'")),
        word.prop_map(|word| format!("  \"{word}: \\\"#\\t\"")),
        word.prop_map(|word| format!(" {word}\n  and {word}")),
        (word, word).prop_map(|(a, b)| format!(" [{a}, '{b}#', {{c: \"{a}\"}}]")),
        (word, word).prop_map(|(a, b)| format!(" [{a}, # of\n  {b}]")),
        (word, word).prop_map(|(a, b)| format!("\n- {a} # one\n# between\n- {b}")),
        (word, word).prop_map(|(a, b)| format!("\n  - {a}\n\n  - {{x: {b}}}")),
        (word, word).prop_map(|(a, b)| format!("\n  {a}a: x # one\n  {b}b: [y]")),
        word.prop_map(|word| format!(" |\n  {word}\n  # {word}")),
        word.prop_map(|word| format!(" >-\n    {word}\n\n    {word}")),
        word.prop_map(|word| format!(" &{word} {word}")),
        word.prop_map(|word| format!(" !!str {word}")),
    ];
    let keys: Vec<&'static str> = keys().iter().map(|key| key.name).collect();
    (prop::sample::select(keys), value, any::<bool>()).prop_map(|(key, value, quoted)| {
        let written = if quoted { format!("\"{key}\"") } else { key.to_owned() };
        (key, format!("{written}:{value}"))
    })
}

/// A commented file: lines of it, whether they end as in DOS, whether the last one ends.
fn file() -> impl Strategy<Value = String> {
    let comment = prop_oneof![
        Just("\n".to_owned()),
        "[ -~]{0,20}".prop_map(|text| format!("# {text}\n")),
        prop::sample::select(keys()).prop_map(|key| format!("# {}: 5\n", key.name)),
    ];
    let part = (prop::collection::vec(comment, 0..3), entry(), prop::option::of("[ -~]{0,12}"));
    let parts = prop::collection::vec(part, 0..7);
    (parts, any::<[bool; 4]>()).prop_map(|(parts, [dos, ended, bom, marked])| {
        let mut text = if bom { "\u{feff}" } else { "" }.to_owned();
        if marked {
            text.push_str("--- # begins\n");
        }
        let mut seen = Vec::new();
        for (comments, (key, entry), behind) in parts {
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            text.extend(comments);
            text.push_str(&entry);
            // In a block of text a # begins no comment.
            let behind = behind.filter(|_| !entry.contains(": |") && !entry.contains(": >"));
            text.push_str(&behind.map(|behind| format!("  # {behind}\n")).unwrap_or("\n".to_owned()));
        }
        if !ended {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if dos { text.replace('\n', "\r\n") } else { text }
    })
}

fn new_value() -> impl Strategy<Value = Value> {
    let text =
        prop_oneof!["[a-z]{1,8}", "\\PC{0,8}", "(yes|no|5|null|~|a: b|# a|- a|it's|\"q\"|\\{\\}|a\\\\)"];
    let scalar = prop_oneof![
        text.prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ];
    prop_oneof![
        3 => scalar.clone(),
        1 => prop::collection::vec(scalar.clone(), 0..4).prop_map(Value::Sequence),
        1 => prop::collection::vec(("[a-z]{1,5}", scalar), 0..3)
            .prop_map(|fields| Value::Mapping(fields.into_iter().map(|(k, v)| (Value::from(k), v)).collect())),
    ]
}

/// The lines on which the value of `key` stands, from the key on, found without the code under test: up to the next
/// key at the beginning of a line, without the blank and comment lines before that.
fn lines_of(text: &str, key: &str) -> Option<Range<usize>> {
    let mut at = 0;
    let mut range: Option<Range<usize>> = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start_matches('\u{feff}');
        let is_key = bare.starts_with(|c: char| c.is_ascii_lowercase() || c == '"') && bare.contains(':');
        let ours =
            [format!("{key}:"), format!("\"{key}\":")].iter().any(|start| bare.starts_with(start.as_str()));
        let start = at + line.len() - bare.len();
        at += line.len();
        match &mut range {
            None if ours => range = Some(start..at),
            Some(_) if is_key => break,
            Some(range) if !bare.trim().is_empty() && !bare.starts_with('#') => range.end = at,
            None | Some(_) => {}
        }
    }
    range
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_outside_the_edit_stays_and_the_result_is_what_was_meant(
        text in file(),
        which in prop::sample::select(keys()),
        own in any::<prop::sample::Index>(),
        new in prop::option::weighted(0.8, new_value()),
    ) {
        let before = raw::entries(&text, "file").expect("what is generated is YAML");
        // Mostly a key that is there.
        let names: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
        let key = if names.is_empty() || own.index(4) == 0 { which.name } else { names[own.index(names.len())] };
        let current = before.iter().find(|(name, _)| name == key).map(|(_, value)| value);

        let splice = edit(&text, key, new.as_ref()).expect("it can be edited");
        let unchanged = splice.is_none();
        prop_assert_eq!(unchanged, current == new.as_ref());
        let Splice { range, text: replacement } = splice.unwrap_or(Splice { range: 0..0, text: String::new() });
        // The edit lies within the lines of the value, or inserts one line.
        match lines_of(&text, key) {
            Some(lines) if !unchanged => {
                prop_assert!(lines.start <= range.start && range.end <= lines.end, "{range:?} {lines:?}");
                if new.is_some() {
                    let name = text[lines.start..].find(':').expect("a key") + lines.start;
                    prop_assert!(range.start > name, "the key stays");
                }
            }
            Some(_) | None => prop_assert!(range.is_empty()),
        }
        let after = [&text[..range.start], &replacement, &text[range.end..]].concat();
        let mut expected: Vec<_> = before.iter().filter(|(name, _)| name != key).cloned().collect();
        expected.extend(new.map(|value| (key.to_owned(), value)));
        let mut read = raw::entries(&after, "file").expect("still YAML");
        read.sort_by(|(a, _), (b, _)| a.cmp(b));
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        prop_assert_eq!(read, expected);
        // Comments outside of the edited lines are all there, and lines end as they did.
        let plain = after.replace("\r\n", "").contains('\n');
        prop_assert!(!plain || !text.contains("\r\n"), "one way to end lines: {after:?}");
    }
}
