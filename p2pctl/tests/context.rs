//! Contexts: who writes them, and what they stand back behind.

mod support;

use std::{fs, path::Path};
use support::{
    Dev,
    golden::{assert_golden, session},
    p2pctl, text,
};

#[test]
fn contexts_are_written_chosen_and_never_replaced_in_silence() {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = session(
        dir.path(),
        &[
            "context list",
            "context current",
            "context list -o json",
            "certs generate --out shop --cluster-id shop --node a --san 10.0.0.5 --san shop.example",
            "context current",
            "certs generate --out bank --cluster-id bank --node a --san bank.example",
            "context list",
            "certs generate --out shop --node b",
            "context use bank",
            "context use bank",
            "context current -o yaml",
            "context list -o json",
            "context use bnk",
            "context use nothing-like-it",
            "--context sho cluster nodes",
            "certs generate --self-signed --out alone",
            "certs verify shop/a_cert.pem",
        ],
    );
    // How wide columns are depends on the directory.
    let line = |line: &str| match line.contains("DIR/") && !line.contains('"') {
        true => {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("  ")
        }
        false => line.to_owned(),
    };
    let shown: Vec<String> = shown.lines().map(line).collect();
    assert_golden("contexts", &(shown.join("\n") + "\n"));
}

#[test]
fn a_file_that_holds_no_contexts_is_named_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(".config/p2pctl/config.yaml");
    fs::create_dir_all(file.parent().expect("a directory")).expect("made");
    fs::write(&file, "contexts: 5\n").expect("written");
    let shown = session(dir.path(), &["context list", "cluster nodes", "certs generate", "config get prot"]);
    assert_golden("contexts_broken", &shown);
    assert_eq!(fs::read_to_string(&file).expect("there"), "contexts: 5\n");
}

#[test]
fn what_a_context_says_holds_where_no_flag_and_no_variable_does() {
    let dev = Dev::start();
    let dir = dev.directory.path();
    let run = |dir: &Path, args: &[&str]| {
        let output = p2pctl(dir).args(args).output().expect("ran");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, nodes, errors) = run(dir, &["cluster", "nodes"]);
    assert!(code == Some(0) && nodes.contains("worker-1"), "{errors}");
    let endpoint = format!("127.0.0.1:{}", dev.port + 1);
    let (code, answer, errors) =
        run(dir, &["--endpoint", &endpoint, "rpc", "call", "p2p.v1.SystemService/Echo", "{}"]);
    assert!(
        code == Some(0) && answer.contains("worker-1"),
        "the certificate stays that of the context: {errors}"
    );
    let nobody =
        p2pctl(dir).env("P2PCTL_ENDPOINT", "127.0.0.1:1").args(["cluster", "nodes"]).output().expect("ran");
    assert_eq!(nobody.status.code(), Some(5), "{}", text(&nobody.stderr));
    let ca = dir.join("dev/certs/ca_cert.pem");
    let (code, _, errors) = run(dir, &["--ca", ca.to_str().expect("text"), "cluster", "nodes"]);
    assert_eq!(code, Some(4), "who names a CA is not taken for the context's admin: {errors}");

    // A second user, to whom the same cluster is not the current one.
    let other = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(other.path().join(".config/p2pctl")).expect("made");
    let contexts = fs::read_to_string(dir.join(".config/p2pctl/config.yaml")).expect("written by dev");
    let contexts = contexts.replace("current: dev\n", "");
    fs::write(other.path().join(".config/p2pctl/config.yaml"), contexts).expect("written");
    let (code, ..) = run(other.path(), &["cluster", "nodes"]);
    assert_ne!(code, Some(0), "none is current");
    let (code, _, errors) = run(other.path(), &["--context", "dev", "cluster", "nodes"]);
    assert_eq!(code, Some(0), "{errors}");
}
