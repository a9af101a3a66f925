//! A local cluster, and `p2pctl` against it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// A cluster of `p2pctl dev` with one worker, stopped when dropped.
pub struct Dev {
    child: Child,
    pub directory: tempfile::TempDir,
    pub port: u16,
}

/// The first of two ports in a row that are free now, below those that systems choose themselves.
fn two_free_ports() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = 11_000 + u16::try_from(std::process::id() % 8_000).expect("fits");
    (start..21_000).step_by(2).find(|&port| (port..port + 2).all(free)).expect("two free ports in a row")
}

/// The binary, with none of our environment.
pub fn p2pctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pctl"));
    for name in ["ENDPOINT", "CA", "CERT", "KEY", "TOKEN"] {
        command.env_remove(format!("P2PCTL_{name}"));
    }
    command
}

impl Dev {
    /// Starts it and waits until it is ready.
    pub fn start() -> Self {
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
    pub fn at_worker(&self, as_admin: bool, arguments: &[&str]) -> Output {
        self.worker_command(as_admin, arguments).output().expect("ran")
    }

    /// The same, to be run.
    pub fn worker_command(&self, as_admin: bool, arguments: &[&str]) -> Command {
        let mut command = p2pctl();
        command.args(["--endpoint", &format!("127.0.0.1:{}", self.port + 1)]);
        command.arg("--ca").arg(self.certificate("ca_cert.pem"));
        if as_admin {
            command.arg("--cert").arg(self.certificate("admin_cert.pem"));
            command.arg("--key").arg(self.certificate("admin_key.pem"));
        }
        command.args(arguments);
        command
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

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
