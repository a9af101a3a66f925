//! `p2pctl doctor` against real nodes.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Output,
};
use support::{
    Dev,
    golden::{assert_golden, session},
    node::Node,
    text,
};

/// The findings of a run that is to have some.
fn findings(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(6), "{}{}", text(&output.stdout), text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["schema"], &document["kind"]), (&"p2pctl/v1".into(), &"Findings".into()));
    document["items"].as_array().expect("a list").clone()
}

/// Backs the CA up, which doctor asks for.
fn back_up(node: &Node) {
    fs::write(node.path().join("passphrase"), "correct horse battery staple\n").expect("written");
    let backup = ["ca", "backup", "--ca-dir", ".", "--out", "ca.backup", "--passphrase-file", "passphrase"];
    let output = node.p2pctl(&backup);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn doctor_finds_certificates_that_end_soon_and_ends_with_six() {
    let mut node = Node::new(60);
    back_up(&node);
    // Nobody answers, but the files are looked at all the same.
    let output = node.p2pctl(&["doctor", "--expires-within", "90d"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ca_cert.pem"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("refuse"), "{}", text(&output.stderr));

    node.start(&[]);
    let output = node.p2pctl(&["doctor", "--expires-within", "30d"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stdout), "no findings\n");

    let items = findings(&node.p2pctl(&["doctor", "--expires-within", "90d", "-o", "json"]));
    let subjects: Vec<_> = items.iter().filter_map(|item| item["subject"].as_str()).collect();
    assert_eq!(subjects, ["ca_cert.pem", "admin_cert.pem", "c"]);
    for item in &items {
        for field in ["check", "what", "why", "mend"] {
            assert!(item[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {item}");
        }
    }
}

#[test]
fn what_a_node_finds_at_itself_is_told_with_what_mends_it() {
    let mut node = Node::new(3650);
    node.start(&[]);
    let never_backed_up = session(node.path(), &["doctor"]);
    back_up(&node);
    let sound = session(node.path(), &["doctor"]);

    let file = |name: &str| node.path().join(name);
    let open =
        |name: &str, mode| fs::set_permissions(file(name), Permissions::from_mode(mode)).expect("ours");
    for (name, mode) in
        [("admin_key.pem", 0o640), ("c_key.pem", 0o644), ("node.yaml", 0o666), ("data", 0o750)]
    {
        open(name, mode);
    }
    fs::write(file("data/gossip_state.json.corrupt-1767225600"), "{").expect("written");
    let yaml = fs::read_to_string(file("node.yaml")).expect("there");
    let drifted = yaml.replace("connections_max: 100", "connections_max: 4000000000") + "log_format: json\n";
    fs::write(file("node.yaml"), drifted).expect("written");
    let reload = node.p2pctl(&["config", "reload"]);
    assert!(reload.status.success(), "{}", text(&reload.stderr));
    let much = session(node.path(), &["doctor"]);

    // Everything mended, in the words of the findings.
    fs::write(file("node.yaml"), format!("{yaml}prot: 1\n")).expect("written");
    for (name, mode) in
        [("admin_key.pem", 0o600), ("c_key.pem", 0o600), ("node.yaml", 0o644), ("data", 0o700)]
    {
        open(name, mode);
    }
    fs::remove_file(file("data/gossip_state.json.corrupt-1767225600")).expect("there");
    let wrong = session(node.path(), &["config set connections_max 100 --file node.yaml --reload"]);
    fs::write(file("node.yaml"), &yaml).expect("written");
    let mended = session(node.path(), &["config reload", "doctor"]);

    let told = [never_backed_up, sound, much, wrong, mended].concat();
    // The limit of open files is that of whoever runs the tests.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.expect("a limit");
    let told = node.steady(&told).replace(&format!("have {limit} files"), "have LIMIT files");
    let told =
        told.replace(&format!("connections_max {} --reload", limit / 2), "connections_max HALF --reload");
    assert_golden("doctor", &told);
}

#[test]
fn who_cannot_reach_whom_is_told_as_the_nodes_see_it() {
    let dev = Dev::with(2, &[("P2PNODE_CONNECTIONS_MAX", "100"), ("P2PNODE_RATE_LIMIT_ENABLED", "false")]);
    let doctor = || dev.at_worker(true, &["doctor", "-o", "json"]);
    let checks = |items: &[Value]| -> Vec<String> {
        items.iter().map(|item| format!("{} {}", item["subject"], item["check"]).replace('"', "")).collect()
    };
    assert_eq!(checks(&findings(&doctor())), ["coordinator-1 ca_backup"]);

    let info = dev.at_worker(true, &["rpc", "call", "p2p.v1.SystemService/GetInfo", "--node", "worker-2"]);
    let info: Value = serde_json::from_slice(&info.stdout).expect("JSON");
    let id = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let id = id.expect("a process id");
    kill_process(id, Signal::STOP).expect("a process of ours");
    let items = findings(&doctor());
    kill_process(id, Signal::CONT).expect("a process of ours");
    let leg = items.iter().find(|item| item["check"] == "unreachable_leg").expect("a broken leg");
    assert_eq!(leg["subject"], "worker-2");
    let what = leg["what"].as_str().expect("text");
    assert!(
        what.starts_with("no node that was asked (coordinator-1, worker-1) reaches it at 127.0.0.1:"),
        "{what}"
    );

    // Who is no admin learns what members may know, and that this is not all.
    let shown = |name: &str| dev.directory.path().join("dev/certs").join(name);
    let mut worker = dev.worker_command(false, &["doctor"]);
    worker.arg("--cert").arg(shown("worker-1_cert.pem")).arg("--key").arg(shown("worker-1_key.pem"));
    let worker = worker.output().expect("ran");
    let note = text(&worker.stderr);
    assert!(
        note.contains("Not examined, because that takes an admin's --cert and --key: coordinator-1"),
        "{note}"
    );
}
