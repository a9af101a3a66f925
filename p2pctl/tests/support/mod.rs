//! A local cluster, and `p2pctl` against it; sessions as golden files.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod golden;
pub mod node;

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// A cluster of `p2pctl dev` with one worker, stopped when dropped.
pub struct Dev {
    child: Child,
    pub directory: tempfile::TempDir,
    pub port: u16,
}

/// The first of `count` ports in a row that are free now, below those that systems choose themselves.
fn free_ports(count: u16) -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = 11_000 + u16::try_from(std::process::id() % 8_000).expect("fits");
    let step = usize::from(count);
    (start..21_000).step_by(step).find(|&port| (port..port + count).all(free)).expect("free ports in a row")
}

/// What `p2pctl` takes from its environment.
const ENVIRONMENT: [&str; 9] = [
    "P2PCTL_ENDPOINT",
    "P2PCTL_CA",
    "P2PCTL_CERT",
    "P2PCTL_KEY",
    "P2PCTL_TOKEN",
    "P2PCTL_CONTEXT",
    "P2P_CONFIG",
    "NO_COLOR",
    "RUST_LOG",
];

/// The binary in `dir`, with none of our environment and a home of its own.
pub fn p2pctl(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pctl"));
    for name in ENVIRONMENT {
        command.env_remove(name);
    }
    command.current_dir(dir).env("XDG_CONFIG_HOME", dir.join(".config")).stdin(Stdio::null());
    command
}

impl Dev {
    /// Starts it and waits until it is ready.
    pub fn start() -> Self {
        Self::with(1, &[])
    }

    /// The same with so many workers and this environment.
    pub fn with(workers: u16, environment: &[(&str, &str)]) -> Self {
        let (directory, port) = (tempfile::tempdir().expect("a directory"), free_ports(workers + 1));
        let mut child = p2pctl(directory.path())
            .args(["dev", "--workers", &workers.to_string(), "--base-port", &port.to_string(), "--dir"])
            .arg(directory.path().join("dev"))
            .envs(environment.iter().copied())
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

    /// Runs `program` in `dir` as the user whom `dev` tells what to export.
    pub fn environment(&self, program: &str, dir: &Path) -> Command {
        let mut command = Command::new(program);
        for name in ENVIRONMENT {
            command.env_remove(name);
        }
        command.current_dir(dir).stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", self.directory.path().join(".config"));
        command.env("P2PCTL_ENDPOINT", format!("127.0.0.1:{}", self.port));
        for (name, file) in [("CA", "ca_cert.pem"), ("CERT", "admin_cert.pem"), ("KEY", "admin_key.pem")] {
            command.env(format!("P2PCTL_{name}"), self.certificate(file));
        }
        command
    }

    /// The same, to be run.
    pub fn worker_command(&self, as_admin: bool, arguments: &[&str]) -> Command {
        let mut command = p2pctl(self.directory.path());
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
