//! Holds the import order of `src/` to the table at the top of `src/lib.rs`: a module uses those on lines
//! below its own, and none beside or above it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Line of each module in the table, counted from the top.
fn documented_lines() -> BTreeMap<String, usize> {
    let library = fs::read_to_string(source().join("lib.rs")).expect("lib.rs");
    let rows = library.lines().filter_map(|line| line.strip_prefix("//! | ")).filter(|row| row.contains('['));
    let mut lines = BTreeMap::new();
    for (number, row) in rows.enumerate() {
        let modules = row.split('|').next().expect("a first column");
        for name in modules.split(['[', ']', '`', ' ']).filter(|name| !name.is_empty()) {
            assert!(lines.insert(name.to_owned(), number).is_none(), "{name} is listed twice");
        }
    }
    lines
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules of `text`, each with its line number: what follows `prefix`, alone or in braces.
fn uses(text: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices(prefix) {
        // `some_crate::x` and `super::super::x` are other paths.
        let before = text[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
            continue;
        }
        let rest = &text[start + prefix.len()..];
        let names = match rest.strip_prefix('{') {
            Some(braces) => top_level_names(braces),
            None => vec![(0, identifier(rest))],
        };
        let line = |offset: usize| text[..start + prefix.len() + offset].matches('\n').count() + 1;
        found.extend(names.into_iter().map(|(offset, name)| (line(offset), name.to_owned())));
    }
    found
}

/// The first name of each path in `a::{b, c}, d::e}`, with its offset before the opening brace's content.
fn top_level_names(braces: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let (mut depth, mut expects_name) = (1, true);
    for (offset, c) in braces.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expects_name = true,
            _ if depth == 1 && expects_name && (c.is_alphabetic() || c == '_') => {
                names.push((offset + 1, identifier(&braces[offset..])));
                expects_name = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The text without comments, with its line ends.
fn code_of(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.split("//").next().unwrap_or_default())).collect()
}

/// How often `super::` must be repeated in this file, outside of inline modules, to reach the crate's root.
fn depth(relative: &Path) -> usize {
    let parts = relative.components().count();
    if relative.ends_with("mod.rs") { parts - 1 } else { parts }
}

#[test]
fn every_module_is_in_the_table() {
    let lines = documented_lines();
    let library = fs::read_to_string(source().join("lib.rs")).expect("lib.rs");
    let declared: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(declared.len() > 10, "the modules of lib.rs are found: {declared:?}");
    for module in &declared {
        assert!(lines.contains_key(*module), "{module} is missing from the table in lib.rs");
    }
    for module in lines.keys() {
        assert!(
            declared.contains(&module.as_str()),
            "the table names {module}, which lib.rs does not declare"
        );
    }
}

#[test]
fn imports_go_only_downward() {
    let lines = documented_lines();
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    paths.sort();
    let mut offences = Vec::new();
    let mut seen = 0;
    for path in paths {
        let relative = path.strip_prefix(source()).expect("below src");
        let first = relative.components().next().expect("a name").as_os_str().to_string_lossy();
        let module = first.strip_suffix(".rs").unwrap_or(&first);
        // lib.rs only declares; main.rs may use everything.
        let Some(own) = lines.get(module) else { continue };
        let text = code_of(&fs::read_to_string(&path).expect("a source file"));
        let mut used = uses(&text, "crate::");
        used.extend(uses(&text, &"super::".repeat(depth(relative))));
        seen += used.len();
        for (line, name) in used {
            if lines.get(&name).is_some_and(|line| line <= own && name != module) {
                offences.push(format!("{}:{line}: {module} may not use {name}", path.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports found: the test does not see what it should");
    assert!(offences.is_empty(), "imports against the table in src/lib.rs:\n{}", offences.join("\n"));
}

#[test]
fn the_test_itself_sees_paths_in_every_form() {
    let text = "use crate::{\n    a::{x, y},\n    b,\n};\nfn f() { crate::c::g(); other_crate::d::g(); }\n";
    let found = uses(text, "crate::");
    let expected = [(2, "a"), (3, "b"), (5, "c")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(uses("super::super::e::f; super::g", "super::super::"), [(1, "e".to_owned())]);
}
