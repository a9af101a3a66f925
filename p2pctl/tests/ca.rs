//! `p2pctl ca backup` and `restore`, as scripts run them.

mod support;

use std::{fs, path::Path, process::Output};

fn p2pctl(dir: &Path, args: &[&str]) -> Output {
    support::p2pctl(dir).args(args).output().expect("p2pctl runs")
}

fn works(dir: &Path, args: &[&str]) -> String {
    let output = p2pctl(dir, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn fails(dir: &Path, args: &[&str], code: i32) -> String {
    let output = p2pctl(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn a_lost_ca_comes_back_from_its_backup() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    fs::write(dir.join("pass"), "correct horse battery\n").expect("written");
    fs::write(dir.join("wrong"), "wrong horse battery\n").expect("written");
    works(dir, &["certs", "generate", "--cluster-id", "shop"]);
    let backup = ["ca", "backup", "--out", "ca.backup", "--passphrase-file", "pass"];
    assert_eq!(works(dir, &backup), "ca.backup\n");
    assert!(fails(dir, &backup, 1).contains("ca.backup exists and is not overwritten"));

    let text = fs::read_to_string(dir.join("ca.backup")).expect("a backup");
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    let restore = |file: &'static str, pass: &'static str| {
        ["ca", "restore", file, "--ca-dir", "new", "--passphrase-file", pass]
    };
    assert!(fails(dir, &restore("ca.backup", "wrong"), 4).contains("the passphrase is not this backup's"));
    fs::write(dir.join("cut"), &text[..text.len() / 2]).expect("written");
    assert!(fails(dir, &restore("cut", "pass"), 1).contains("cut: the backup is damaged or cut short"));
    assert!(fails(dir, &restore("pass", "pass"), 1).contains("pass: not an age file"));
    assert!(fails(dir, &restore("nowhere", "pass"), 3).contains("cannot read nowhere"));
    assert!(!dir.join("new").exists());

    works(dir, &restore("ca.backup", "pass"));
    for file in ["ca_cert.pem", "ca_key.pem"] {
        let read = |folder: &str| fs::read_to_string(dir.join(folder).join(file)).expect("a file");
        assert_eq!(read("certs"), read("new"), "{file}");
    }
    assert!(
        fails(dir, &restore("ca.backup", "pass"), 1).contains("ca_key.pem exists; a CA is never overwritten")
    );
    // It issues as before.
    works(dir, &["certs", "generate", "--out", "new", "--node", "w-2"]);
    works(dir, &["certs", "verify", "--ca", "certs/ca_cert.pem", "new/w-2_cert.pem"]);
}

#[test]
fn what_is_no_ca_or_no_passphrase_ends_with_one_sentence() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    let json = fails(dir, &["-o", "json", "ca", "backup", "--out", "x"], 1);
    assert!(json.contains(r#""schema":"p2pctl/v1""#) && json.contains("ca_cert.pem"), "{json}");
    works(dir, &["certs", "generate"]);
    fs::write(dir.join("short"), "hunter2\n").expect("written");
    let short = fails(dir, &["ca", "backup", "--out", "x", "--passphrase-file", "short"], 2);
    assert!(short.contains("at least 12 characters"), "{short}");
    let missing = fails(dir, &["ca", "backup", "--out", "x", "--passphrase-file", "nowhere"], 2);
    assert!(missing.contains("cannot read the passphrase from nowhere"), "{missing}");
    assert!(!dir.join("x").exists());
}
