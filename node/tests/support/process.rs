//! A node as a child process.

use super::PATIENCE;
use std::{
    collections::BTreeMap,
    env, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub enum Binary {
    /// The daemon.
    Node,
    /// The example that provides `demo.v1.Greeter`.
    Greeter,
}

impl Binary {
    fn path(self) -> PathBuf {
        match self {
            Self::Node => env!("CARGO_BIN_EXE_p2p-node").into(),
            Self::Greeter => {
                // <target>/<profile>/deps/<this test>
                let test = env::current_exe().expect("the path of this test");
                let profile = test.ancestors().nth(2).expect("a profile's directory");
                let path = profile.join("examples").join("greeter");
                assert!(
                    path.exists(),
                    "{} is missing; run `cargo build -p p2p-node --example greeter` first (a plain `cargo test` does)",
                    path.display()
                );
                path
            }
        }
    }
}

/// A node's configuration file.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: String,
    pub keys: BTreeMap<String, String>,
    /// The network namespace to run in, and the address at which the test reaches it there.
    pub host: Option<(String, IpAddr)>,
    /// Variables of its environment, beside the test's own.
    pub environment: BTreeMap<String, String>,
    /// Of its command line, beside the configuration file.
    pub arguments: Vec<String>,
}

impl NodeConfig {
    /// The node `name` whose certificate is in `certificates`, on a free port of loopback.
    pub fn new(certificates: &Path, name: &str) -> Self {
        let config = Self {
            name: name.to_owned(),
            keys: BTreeMap::new(),
            host: None,
            environment: BTreeMap::new(),
            arguments: Vec::new(),
        };
        let role = if name.starts_with('c') { "true" } else { "false" };
        let file = |file: String| certificates.join(file).display().to_string();
        config
            .set("node_id", name)
            .set("port", "0")
            .set("bind_address", "127.0.0.1")
            .set("coordinator_mode", role)
            .set("rate_limit_enabled", "false")
            .set("ssl_cert_file", &file(format!("{name}_cert.pem")))
            .set("ssl_key_file", &file(format!("{name}_key.pem")))
            .set("ssl_ca_cert_file", &file("ca_cert.pem".to_owned()))
            .set("log_level", "info,p2p_node::server=debug")
    }

    /// The node `name` that has no certificate yet and joins with the token in the file `token`; its files will
    /// be in its home.
    pub fn joining(name: &str, token: &Path) -> Self {
        let mut config = Self::new(Path::new("."), name).set("join_token_file", &token.display().to_string());
        for key in ["ssl_cert_file", "ssl_key_file", "ssl_ca_cert_file"] {
            config.keys.remove(key);
        }
        config
    }

    /// Sets a key to a YAML value.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets a variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs it in the network namespace `host`, where the test reaches it at `address`.
    pub fn on(mut self, host: &str, address: IpAddr) -> Self {
        self.host = Some((host.to_owned(), address));
        self
    }

    pub fn seeds(self, seeds: &[&str]) -> Self {
        self.set("coordinator_addresses", &format!("[{}]", seeds.join(", ")))
    }

    /// As the configuration file has it.
    pub fn yaml(&self) -> String {
        self.keys.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
    }
}

/// A node's process. It is killed when this is dropped.
pub struct TestNode {
    pub config: NodeConfig,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    log: watch::Receiver<String>,
    /// Holds the configuration file and the state directory.
    home: TempDir,
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    /// What it wrote to standard error.
    pub log: String,
}

impl TestNode {
    /// Starts a node and waits until it listens.
    pub async fn start(binary: Binary, config: NodeConfig) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(binary, config, home).await
    }

    async fn start_in(binary: Binary, config: NodeConfig, home: TempDir) -> Self {
        let (child, log) = spawn(binary, &config, home.path());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Self { config, address, child, log, home };
        let line = node.logs("listening").await;
        let address = line.split_whitespace().find_map(|field| field.strip_prefix("address="));
        node.address = address.and_then(|text| text.parse().ok()).expect("the log names the address");
        if let Some((_, address)) = node.config.host {
            node.address.set_ip(address);
        }
        node
    }

    /// Starts the node again, with the state that it left, on a new port.
    pub async fn start_again(mut self, binary: Binary) -> Self {
        self.child.wait().await.expect("the first process has ended");
        Self::start_in(binary, self.config, self.home).await
    }

    /// Runs a node that is expected to end by itself.
    pub async fn run(config: &NodeConfig) -> Outcome {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (child, log) = spawn(Binary::Node, config, home.path());
        outcome(child, log).await
    }

    /// Runs a node with the text `yaml` as its configuration file.
    pub async fn run_yaml(yaml: &str) -> Outcome {
        let home = tempfile::tempdir().expect("a temporary directory");
        let file = home.path().join("node.yaml");
        fs::write(&file, yaml).expect("written");
        let (child, log) = spawn_command(Command::new(Binary::Node.path()), &file, home.path());
        outcome(child, log).await
    }

    /// Changes its configuration file, asks it to read that again, and waits until it says `text` about it.
    pub async fn reloads(&mut self, adjust: impl FnOnce(NodeConfig) -> NodeConfig, text: &str) -> String {
        self.rewrite(adjust);
        let before = self.log().len();
        self.signal(rustix::process::Signal::HUP);
        self.logs_after(before, text).await
    }

    /// Changes its configuration file.
    pub fn rewrite(&mut self, adjust: impl FnOnce(NodeConfig) -> NodeConfig) {
        self.config = adjust(self.config.clone());
        write(&self.config, self.home.path());
    }

    /// Where it keeps its state.
    pub fn state_directory(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// A file of its working directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Waits for a log line with `text` and returns it.
    pub async fn logs(&mut self, text: &str) -> String {
        self.logs_after(0, text).await
    }

    /// The same behind the first `skipped` bytes of the log.
    async fn logs_after(&mut self, skipped: usize, text: &str) -> String {
        let seen = self.log.wait_for(|log| log[skipped..].contains(text));
        let found = tokio::time::timeout(PATIENCE, seen).await.is_ok_and(|seen| seen.is_ok());
        let log = self.log();
        assert!(found, "{} did not log {text:?}:\n{log}", self.config.name);
        log[skipped..].lines().find(|line| line.contains(text)).expect("it contains the text").to_owned()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its resident memory.
    pub fn resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process_id().expect("it runs"));
        let status = std::fs::read_to_string(status).expect("this is Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        line.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()).expect("a number")
            * 1024
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        let id = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(id, signal).expect("signalled");
        // A process on another core runs on until it is told: its state says when it has stopped (proc_pid_stat(5)).
        let stops = signal == rustix::process::Signal::STOP;
        let state =
            || std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap_or_default();
        let until = std::time::Instant::now() + PATIENCE;
        while stops && !state().rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")) {
            assert!(std::time::Instant::now() < until, "it does not stop");
            std::thread::yield_now();
        }
    }

    /// Waits for its end.
    pub async fn ends(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} does not end:\n{}", self.config.name, self.log()))
            .expect("waited")
    }
}

fn spawn(binary: Binary, config: &NodeConfig, home: &Path) -> (Child, watch::Receiver<String>) {
    let file = write(config, home);
    let mut command = match &config.host {
        None => Command::new(binary.path()),
        Some((host, _)) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{host}")).arg(binary.path());
            command
        }
    };
    command.envs(&config.environment).args(&config.arguments);
    spawn_command(command, &file, home)
}

/// Writes the configuration file of a node whose home is `home`.
fn write(config: &NodeConfig, home: &Path) -> PathBuf {
    let file = home.join("node.yaml");
    let state = home.join("state").display().to_string();
    let mut config = config.clone();
    config.keys.entry("state_directory".to_owned()).or_insert(state);
    fs::write(&file, config.yaml()).expect("written");
    file
}

fn spawn_command(mut command: Command, file: &Path, home: &Path) -> (Child, watch::Receiver<String>) {
    let own_keys = env::vars_os().map(|(key, _)| key);
    for key in own_keys.filter(|key| key.to_string_lossy().starts_with("P2PNODE_")) {
        command.env_remove(key);
    }
    let mut child = command
        .arg("--config")
        .arg(file)
        .current_dir(home)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the node starts");
    let (sender, log) = watch::channel(String::new());
    tokio::spawn(keep(child.stderr.take().expect("piped"), sender));
    (child, log)
}

/// Reads the log until the process closes it.
async fn keep(stderr: impl AsyncRead + Unpin, log: watch::Sender<String>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.send_modify(|log| {
            log.push_str(&line);
            log.push('\n');
        });
    }
}

async fn outcome(mut child: Child, mut log: watch::Receiver<String>) -> Outcome {
    let limit = Duration::from_secs(10);
    let Ok(status) = tokio::time::timeout(limit, child.wait()).await else {
        panic!("the node does not end by itself:\n{}", *log.borrow());
    };
    // The reader ends, and drops its side, at the end of the log.
    while log.changed().await.is_ok() {}
    let log = log.borrow().clone();
    Outcome { code: status.expect("waited").code(), log }
}
