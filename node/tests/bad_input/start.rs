//! What keeps a node from starting: the exit code, and the sentence on standard error.

use crate::support::{Binary, Certificates, NodeConfig, TestNode, in_days};
use p2p_node::identity::{Ca, UnixTime, Validity};
use std::{fs, os::unix::fs::PermissionsExt as _};

const BAD_CONFIG: i32 = 78;
const FAILURE: i32 = 1;

/// Runs a node with a bad configuration file and returns its complaint.
async fn refused_yaml(yaml: &str) -> String {
    let outcome = TestNode::run_yaml(yaml).await;
    assert_eq!(outcome.code, Some(BAD_CONFIG), "{yaml}\n{}", outcome.log);
    outcome.log
}

/// Runs a node that must fail and returns its complaint.
async fn refused(config: &NodeConfig) -> String {
    let outcome = TestNode::run(config).await;
    assert_eq!(outcome.code, Some(FAILURE), "{}", outcome.log);
    assert!(!outcome.log.contains("panicked"), "{}", outcome.log);
    outcome.log
}

#[track_caller]
fn says(log: &str, parts: &[&str]) {
    for part in parts {
        assert!(log.contains(part), "{part:?} is missing from:\n{log}");
    }
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let log = refused_yaml("node_id: w1\nprot: 8001\n").await;
    says(&log, &["node.yaml:2: prot: unknown key, did you mean port?"]);
    let log = refused_yaml("node_id: w1\nport: eighty\n").await;
    says(&log, &["node.yaml:2: port: found \"eighty\", expected"]);
    let log = refused_yaml("node_id: w1\nport: 1\nport: 2\n").await;
    says(&log, &["node.yaml:3: port: given more than once, first on line 2; keep one of them"]);
    let log = refused_yaml("node_id: w1\nadvertise_addresses: [0.0.0.0]\n").await;
    says(&log, &["node.yaml:2: advertise_addresses", "0.0.0.0"]);
    // All at once.
    let log = refused_yaml("node_id: w1\nprot: 8001\nport: eighty\nzone: a\nzone: b\n").await;
    says(&log, &["node.yaml:2: prot", "node.yaml:3: port", "node.yaml:5: zone"]);
}

#[tokio::test]
async fn a_missing_configuration_file_is_named() {
    let mut node = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2p-node"));
    let output = node.args(["--config", "/nonexistent/node.yaml"]).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(BAD_CONFIG));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    says(
        &log,
        &["/nonexistent/node.yaml: cannot be read", "name the node's configuration file with --config"],
    );
}

#[tokio::test]
async fn a_port_or_a_state_directory_has_one_user() {
    let certificates = Certificates::new(&["w1:worker", "w2:worker"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let log = refused(&certificates.config("w1").set("port", &address.port().to_string())).await;
    says(
        &log,
        &[&format!("{address} is in use by another process; stop that one, or set port or bind_address")],
    );

    let holder = TestNode::start(Binary::Node, certificates.config("w1")).await;
    let directory = holder.state_directory().display().to_string();
    let log = refused(&certificates.config("w2").set("state_directory", &directory)).await;
    says(&log, &[&directory, "is in use by process", "set state_directory to one of this node's own"]);
}

#[tokio::test]
async fn a_worker_without_certificate_is_told_what_to_run() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let log = refused(&certificates.config("w1")).await;
    says(
        &log,
        &["node w1 has no certificate", "w1_cert.pem", "run `p2pctl certs generate --node w1:worker`"],
    );

    let certificates = Certificates::new(&["w1:worker"]);
    fs::remove_file(certificates.path("ca_cert.pem")).expect("removed");
    let log = refused(&certificates.config("w1")).await;
    says(&log, &["ssl_ca_cert_file", "ca_cert.pem, which does not exist"]);
    fs::remove_file(certificates.path("w1_key.pem")).expect("removed");
    let log = refused(&certificates.config("w1")).await;
    says(&log, &["w1_cert.pem exists but", "w1_key.pem does not"]);
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_with_the_time() {
    let certificates = Certificates::new(&[]);
    let spiffe = "spiffe://test/worker/w1";
    let validity = |from, to| Validity { not_before: in_days(from), not_after: in_days(to) };
    // A CA that was there before.
    let ca = Ca::generate(&"test".parse().expect("a cluster"), validity(-100, 100)).expect("a CA");
    fs::write(certificates.path("ca_cert.pem"), ca.cert_pem()).expect("written");

    certificates.issue_by(&ca, "w1", spiffe, validity(-10, -1));
    let log = refused(&certificates.config("w1")).await;
    says(&log, &["w1_cert.pem expired on 20", "p2pctl certs generate --node w1:worker --force"]);

    certificates.issue_by(&ca, "w1", spiffe, validity(1, 10));
    let log = refused(&certificates.config("w1")).await;
    says(&log, &["w1_cert.pem is not accepted by ssl_ca_cert_file", "not valid until 20"]);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let certificates = Certificates::new(&["w1:worker", "w2:worker"]);
    let day = Validity::days(UnixTime::now(), 1).expect("a day");
    let config = certificates.config("w1");
    let other = Certificates::new(&[]).ca();
    certificates.issue_by(&other, "w1", "spiffe://test/worker/w1", day);
    says(&refused(&config).await, &["w1_cert.pem is not accepted by ssl_ca_cert_file"]);

    let elsewhere = Ca::generate(&"elsewhere".parse().expect("a cluster"), day).expect("a CA");
    certificates.issue_by(&elsewhere, "w1", "spiffe://elsewhere/worker/w1", day);
    let log = refused(&config.clone().set("cluster_id", "test")).await;
    says(&log, &["w1_cert.pem belongs to cluster elsewhere, but this node's cluster is test"]);

    let mixed = config.clone().set("ssl_key_file", &certificates.path("w2_key.pem").display().to_string());
    says(
        &refused(&mixed).await,
        &["w2_key.pem does not belong to the certificate in", "copy both files of the same node"],
    );

    let w2 = config.set("node_id", "w2");
    says(&refused(&w2).await, &["spiffe://elsewhere/worker/w1's, but node_id is w2"]);
}

#[tokio::test]
async fn a_key_that_others_can_read_is_warned_of() {
    let certificates = Certificates::new(&["w1:worker"]);
    let key = certificates.path("w1_key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions");
    let node = TestNode::start(Binary::Node, certificates.config("w1")).await;
    let log = node.log();
    says(&log, &["WARN", "w1_key.pem can be read by others (mode 644); run chmod 600 on it"]);
}
