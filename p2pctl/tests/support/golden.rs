//! What `p2pctl` prints, as files: `tests/golden/<name>.txt`.

use super::{p2pctl, text};
use std::path::Path;

/// The session as one would see it in `dir`, which is shown as DIR: command, stdout, stderr, exit code.
pub fn session(dir: &Path, commands: &[&str]) -> String {
    let mut shown = String::new();
    for line in commands {
        let output = p2pctl(dir).args(words(line)).output().expect("p2pctl runs");
        shown.push_str(&format!("$ p2pctl {line}\n{}", text(&output.stdout)));
        for line in text(&output.stderr).lines() {
            shown.push_str(&format!("[stderr] {line}\n"));
        }
        shown.push_str(&format!("[exit {}]\n\n", output.status.code().expect("not killed")));
    }
    shown.replace(&dir.display().to_string(), "DIR")
}

/// The words of a line, as a shell splits them; quotes are single ones.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut in_word, mut quoted) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, in_word) = (!quoted, true),
            ' ' if !quoted => {
                if in_word {
                    words.push(std::mem::take(&mut word));
                }
                in_word = false;
            }
            c => {
                word.push(c);
                in_word = true;
            }
        }
    }
    if in_word {
        words.push(word);
    }
    words
}

/// Compares with the golden file; with `UPDATE_GOLDEN=1` in the environment, writes it.
pub fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("golden file is writable");
    }
    let golden = std::fs::read_to_string(&path).expect("golden file exists; make it with UPDATE_GOLDEN=1");
    assert_eq!(text, golden, "{} differs; if that is right, run with UPDATE_GOLDEN=1", path.display());
}
