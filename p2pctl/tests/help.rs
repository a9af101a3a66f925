//! What tells people what there is: completions, manual pages, the version, and names that are nearly right.

mod support;

use std::{fs, path::Path, process::Command};
use support::{p2pctl, text};

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = p2pctl(dir).args(args).output().expect("ran");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn completions_know_every_verb_and_flag() {
    let dir = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, errors) = run(dir.path(), &["completions", shell]);
        assert_eq!(code, Some(0), "{errors}");
        for word in ["show-defaults", "join-token", "endpoint", "context"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (_, script, _) = run(dir.path(), &["completions", "bash"]);
    fs::write(dir.path().join("script"), script).expect("written");
    // Where there is no bash, nobody completes with it.
    if let Ok(status) = Command::new("bash").arg("-n").arg(dir.path().join("script")).status() {
        assert!(status.success(), "bash reads it");
    }
    let (code, _, errors) = run(dir.path(), &["completions", "bsh"]);
    assert!(code == Some(2) && errors.contains("'bash'"), "{errors}");
}

#[test]
fn manual_pages_say_what_help_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, page, errors) = run(dir.path(), &["man"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(page.contains(".TH p2pctl 1") && page.contains("Exit codes:"), "{page}");
    let (code, printed, errors) = run(dir.path(), &["man", "--out", "man1"]);
    assert_eq!((code, printed.as_str()), (Some(0), "man1\n"), "{errors}");
    let page = fs::read_to_string(dir.path().join("man1/p2pctl-config-set.1")).expect("a page for each verb");
    assert!(page.contains("Use it instead of an editor"), "{page}");
    assert!(!dir.path().join("man1/p2pctl-dev-node.1").exists(), "what is hidden has no page");
}

#[test]
fn the_version_says_from_what_it_was_built() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, long, _) = run(dir.path(), &["--version"]);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!((code, lines[0]), (Some(0), format!("p2pctl {}", env!("CARGO_PKG_VERSION")).as_str()));
    assert!(lines.iter().any(|line| line.starts_with("built   rustc 1.")), "{long}");
    assert!(lines.iter().any(|line| line.starts_with("target  ")), "{long}");
    let (_, short, _) = run(dir.path(), &["-V"]);
    assert_eq!(short, format!("{}\n", lines[0]));
}

/// Errors follow `error: `, as those of clap, of the library and of nodes do: they begin small.
#[test]
fn errors_begin_with_a_small_letter() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let (mut begun, mut seen) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("sources").map(|entry| entry.expect("readable").path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let source = fs::read_to_string(&entry).expect("text");
            for call in ["Failure::", "context("].iter().flat_map(|call| source.split(call).skip(1)) {
                // `other(format!("...`, `|| format!("...`, `"...`: what stands before the text is short.
                let Some((before, text)) = call.split_once('"').filter(|(before, _)| before.len() < 60)
                else {
                    continue;
                };
                let mut letters = text.chars();
                let capital = letters.next().is_some_and(char::is_uppercase)
                    && letters.next().is_some_and(char::is_lowercase);
                seen += 1;
                // Advice is a sentence of its own.
                if capital && !before.contains("hint(") && !before.contains([';', '}', ',']) {
                    begun.push(format!("{}: {}", entry.display(), text.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    assert!(seen > 60 && begun.is_empty(), "{seen} errors, with a capital: {begun:#?}");
}

#[test]
fn a_name_that_is_nearly_right_gets_the_right_one() {
    let dir = tempfile::tempdir().expect("a directory");
    for (line, right) in [
        ("clutser nodes", "'cluster'"),
        ("cluster nods", "'nodes'"),
        ("config show-default", "'show-defaults'"),
        ("--endpont x cluster nodes", "'--endpoint'"),
        ("cluster nodes -o jsn", "'json'"),
    ] {
        let (code, _, errors) = run(dir.path(), &line.split(' ').collect::<Vec<_>>());
        assert!(code == Some(2) && errors.contains(right), "{line}: {errors}");
    }
}

/// `script` of util-linux makes the terminal; where there is none, nothing is tested.
#[test]
fn colours_are_for_terminals_and_for_who_wants_them() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(run(dir.path(), &["certs", "generate"]).0, Some(0));
    let inspect = ["certs", "inspect", "certs/ca_cert.pem"];
    assert!(!run(dir.path(), &inspect).1.contains('\u{1b}'), "a pipe gets no colours");
    let at_terminal = |environment: &[(&str, &str)]| {
        let line = format!("'{}' {}", env!("CARGO_BIN_EXE_p2pctl"), inspect.join(" "));
        let mut command = Command::new("script");
        command.current_dir(dir.path()).args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::null());
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
        command.output().ok().filter(|output| output.status.success()).map(|output| text(&output.stdout))
    };
    let Some(shown) = at_terminal(&[]) else { return };
    assert!(shown.contains("\u{1b}[2mHOLDER"), "{shown:?}");
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = at_terminal(&[plain]).expect("it ran before");
        assert!(shown.contains("HOLDER") && !shown.contains("\u{1b}["), "{plain:?}: {shown:?}");
    }
}
