//! `p2pctl doctor` against a real node.

mod support;

use p2p_core::Role;
use p2p_node::identity::{GenerateRequest, UnixTime, generate};
use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};
use support::{p2pctl as p2pctl_in, text};

/// What only a defect takes longer than.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.kill().expect("a process of ours");
        self.0.wait().expect("a process of ours");
    }
}

fn p2pctl(directory: &Path, port: u16, args: &[&str]) -> Output {
    let mut command = p2pctl_in(directory);
    command.args(["--endpoint", &format!("127.0.0.1:{port}")]);
    command.args(["--ca", "ca_cert.pem", "--cert", "admin_cert.pem", "--key", "admin_key.pem"]);
    command.args(args).output().expect("p2pctl runs")
}

#[test]
fn doctor_finds_certificates_that_end_soon_and_ends_with_six() {
    let directory = tempfile::tempdir().expect("a directory");
    let request = GenerateRequest {
        out: directory.path().to_owned(),
        cluster_id: Some("shop".parse().expect("an id")),
        nodes: vec![("c".parse().expect("an id"), Role::Coordinator)],
        sans: vec![],
        days: 60,
        self_signed: false,
        force: false,
    };
    generate(&request, UnixTime::now()).expect("certificates");
    let port = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();

    // Nobody answers, but the files are looked at all the same.
    let output = p2pctl(directory.path(), port, &["doctor", "--expires-within", "90d"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ca_cert.pem"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("refuse"), "{}", text(&output.stderr));

    let yaml = format!(
        "node_id: c\nport: {port}\nbind_address: 127.0.0.1\ncoordinator_mode: true\nssl_cert_file: c_cert.pem\n\
         ssl_key_file: c_key.pem\nrate_limit_enabled: false\n"
    );
    std::fs::write(directory.path().join("node.yaml"), yaml).expect("written");
    let node = p2pctl_in(directory.path())
        .args(["dev-node", "--config", "node.yaml"])
        // It ends when its stdin closes.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a node runs");
    let _node = Node(node);
    let since = Instant::now();
    let output = loop {
        let output = p2pctl(directory.path(), port, &["doctor", "--expires-within", "30d"]);
        if output.status.code() != Some(5) {
            break output;
        }
        assert!(since.elapsed() < PATIENCE, "{}", text(&output.stderr));
        std::thread::sleep(Duration::from_millis(25));
    };
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "no findings\n");

    let output = p2pctl(directory.path(), port, &["doctor", "--expires-within", "90d", "-o", "json"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["schema"], &document["kind"]), (&"p2pctl/v1".into(), &"Findings".into()));
    let items = document["items"].as_array().expect("a list");
    let subjects: Vec<_> = items.iter().filter_map(|item| item["subject"].as_str()).collect();
    assert_eq!(subjects, ["ca_cert.pem", "admin_cert.pem", "c"]);
    for item in items {
        for field in ["check", "what", "why", "mend"] {
            assert!(item[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {item}");
        }
    }
}
