//! What `p2pctl --version` says of its build: the commit where it is known, the compiler, the target.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=P2P_COMMIT");
    let mut facts = vec![env::var("CARGO_PKG_VERSION").unwrap_or_default()];
    // A tarball has no repository; who packs one may name the commit.
    let given = env::var("P2P_COMMIT").ok().filter(|commit| !commit.is_empty());
    facts.extend(given.or_else(commit).map(|commit| format!("commit  {commit}")));
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    facts.extend(output(&rustc, &["--version"]).map(|rustc| format!("built   {rustc}")));
    facts.extend(env::var("TARGET").ok().map(|target| format!("target  {target}")));
    // Lines of an environment variable cannot be passed on as they are.
    println!("cargo:rustc-env=P2PCTL_BUILD={}", facts.join("|"));
}

/// The commit of the repository that this package lies in.
fn commit() -> Option<String> {
    // A repository around an unpacked tarball is another one.
    let root = Path::new("..");
    if !root.join(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    output("git", arguments)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
