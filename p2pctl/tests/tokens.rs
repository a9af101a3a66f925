//! `p2pctl token` and `--token` against a local cluster, through a worker.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// A cluster of `p2pctl dev`, stopped when dropped.
struct Dev {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

/// The first of two ports in a row that are free now, below those that systems choose themselves.
fn two_free_ports() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = 11_000 + u16::try_from(std::process::id() % 8_000).expect("fits");
    (start..21_000).step_by(2).find(|&port| (port..port + 2).all(free)).expect("two free ports in a row")
}

fn p2pctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pctl"));
    for name in ["ENDPOINT", "CA", "CERT", "KEY", "TOKEN"] {
        command.env_remove(format!("P2PCTL_{name}"));
    }
    command
}

impl Dev {
    fn start() -> Self {
        let (directory, port) = (tempfile::tempdir().expect("a directory"), two_free_ports());
        let mut child = p2pctl()
            .args(["dev", "--workers", "1", "--base-port", &port.to_string(), "--dir"])
            .arg(directory.path().join("dev"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("is ready after"));
        let dev = Self { child, directory, port };
        assert!(ready, "the cluster starts");
        dev
    }

    fn certificate(&self, file: &str) -> PathBuf {
        self.directory.path().join("dev/certs").join(file)
    }

    /// Runs a verb at the worker.
    fn at_worker(&self, as_admin: bool, arguments: &[&str]) -> Output {
        let mut command = p2pctl();
        command.args(["--endpoint", &format!("127.0.0.1:{}", self.port + 1)]);
        command.arg("--ca").arg(self.certificate("ca_cert.pem"));
        if as_admin {
            command.arg("--cert").arg(self.certificate("admin_cert.pem"));
            command.arg("--key").arg(self.certificate("admin_key.pem"));
        }
        command.args(arguments).output().expect("ran")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let id = id.expect("a process id");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a process of ours");
        self.child.wait().expect("a process of ours");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_token_is_issued_through_a_worker_inspected_and_shown() {
    let dev = Dev::start();
    let scope = "p2p.v1.ClusterService/ListNodes";
    let issued = dev.at_worker(true, &["token", "issue", "--subject", "viewer", "--scope", scope]);
    let (token, notes) = (text(&issued.stdout), text(&issued.stderr));
    assert!(issued.status.success(), "{notes}");
    assert!(token.ends_with('\n') && token.trim().split('.').count() == 3, "only the token: {token:?}");
    let coordinator = format!("asking 127.0.0.1:{}", dev.port);
    assert!(notes.contains("is no coordinator") && notes.contains(&coordinator), "{notes}");
    assert!(notes.contains("viewer can call p2p.v1.ClusterService/ListNodes with it"), "{notes}");
    let token = token.trim();

    let nodes = dev.at_worker(false, &["--token", token, "cluster", "nodes", "-o", "json"]);
    assert!(nodes.status.success(), "{}", text(&nodes.stderr));
    assert!(text(&nodes.stdout).contains("worker-1"));
    let denied = dev.at_worker(false, &["--token", token, "cluster", "status"]);
    assert_eq!(denied.status.code(), Some(4));
    let denied = text(&denied.stderr);
    assert!(
        denied.contains("this token's scope does not include p2p.v1.ClusterService/GetStatus"),
        "{denied}"
    );
    assert!(denied.contains("`p2pctl token inspect` shows what your token says"), "{denied}");

    let inspected = dev.at_worker(true, &["token", "inspect", token, "-o", "json"]);
    assert!(inspected.status.success(), "{}", text(&inspected.stderr));
    let inspected = text(&inspected.stdout);
    for part in [
        r#""schema": "p2pctl/v1""#,
        r#""kind": "AccessTokenInspection""#,
        r#""sub": "viewer""#,
        r#""alg": "EdDSA""#,
        r#""accepted": true"#,
    ] {
        assert!(inspected.contains(part), "{part} in {inspected}");
    }
    assert!(!inspected.contains(token), "the token itself is not repeated");

    // With another first letter the signature is another one.
    let (signed, signature) = token.rsplit_once('.').expect("dots");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{first}{}", &signature[1..]);
    let refused = dev.at_worker(true, &["token", "inspect", &forged]);
    assert_eq!(refused.status.code(), Some(4));
    let refused = text(&refused.stdout);
    assert!(
        refused.contains("refuses it: the signature is not by the key that the token names"),
        "{refused}"
    );

    let listed = dev.at_worker(true, &["cluster", "join-token", "list", "-o", "json"]);
    assert!(
        listed.status.success() && text(&listed.stderr).contains(&coordinator),
        "{}",
        text(&listed.stderr)
    );
}

#[test]
fn a_token_is_inspected_without_any_node() {
    // {"alg":"EdDSA"}.{"sub":"ci","exp":1}.x
    let token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjaSIsImV4cCI6MX0.x";
    let output = p2pctl().args(["token", "inspect", token]).output().expect("ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("header.alg   EdDSA"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("No node was asked"), "{}", text(&output.stderr));
    let none = p2pctl().args(["token", "inspect", "no token"]).output().expect("ran");
    assert_eq!(none.status.code(), Some(2));
}
