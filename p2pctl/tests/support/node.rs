//! One coordinator with its configuration file in a directory, and `p2pctl` as its admin there.

use super::{p2pctl, text};
use p2p_core::Role;
use p2p_node::identity::{GenerateRequest, UnixTime, generate};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

/// What only a defect takes longer than.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A coordinator `c` of the cluster `shop`, whose file is `node.yaml`; stopped when dropped. A context names it, so that
/// p2pctl in its directory connects to it as an admin.
pub struct Node {
    directory: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Node {
    /// Its files, with certificates for so many days. It does not run yet.
    pub fn new(days: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let request = GenerateRequest {
            out: directory.path().to_owned(),
            cluster_id: Some("shop".parse().expect("an id")),
            nodes: vec![("c".parse().expect("an id"), Role::Coordinator)],
            sans: vec![],
            days,
            self_signed: false,
            force: false,
        };
        generate(&request, UnixTime::now()).expect("certificates");
        let port = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();
        let yaml = format!(
            "node_id: c\nport: {port}\nbind_address: 127.0.0.1\ncoordinator_mode: true\nssl_cert_file: c_cert.pem\n\
             ssl_key_file: c_key.pem\nrate_limit_enabled: false\nconnections_max: 100\n"
        );
        fs::write(directory.path().join("node.yaml"), yaml).expect("written");
        let context = format!(
            "current: c\ncontexts:\n- {{name: c, endpoint: \"127.0.0.1:{port}\", ca: ca_cert.pem, cert: admin_cert.pem, \
             key: admin_key.pem}}\n"
        );
        fs::create_dir_all(directory.path().join(".config/p2pctl")).expect("made");
        fs::write(directory.path().join(".config/p2pctl/config.yaml"), context).expect("written");
        Self { directory, port, child: None }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it, with this environment, and waits until it answers.
    pub fn start(&mut self, environment: &[(&str, &str)]) {
        let child = p2pctl(self.path())
            .args(["dev-node", "--config", "node.yaml"])
            .envs(environment.iter().copied())
            // It ends when its stdin closes.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a node runs");
        self.child = Some(child);
        let since = Instant::now();
        loop {
            let output = self.p2pctl(&["health"]);
            if output.status.success() {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{}", text(&output.stderr));
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Runs a verb in its directory.
    pub fn p2pctl(&self, arguments: &[&str]) -> Output {
        p2pctl(self.path()).args(arguments).output().expect("p2pctl runs")
    }

    /// Text without what is another one each time.
    pub fn steady(&self, text: &str) -> String {
        text.replace(&self.port.to_string(), "PORT")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().expect("a process of ours");
            child.wait().expect("a process of ours");
        }
    }
}
