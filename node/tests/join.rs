//! Joining with a token and what follows, with real processes over real TLS.

mod support;

use p2p_client::{ConnectOptions, Connection, Identity};
use p2p_node::identity::{GenerateRequest, JoinToken, PeerCertificate, TokenSecret, UnixTime, generate};
use p2p_proto::v1::{CreateJoinTokenRequest, JoinTokenInfo, JoinTokenState, MemberState};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};
use support::eventually;

/// A node as a process, ended when dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().expect("a process of ours");
        self.child.wait().expect("a process of ours");
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port()
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-node"));
    command.current_dir(directory).args(["--config", "node.yaml"]).args(arguments).stdin(Stdio::null());
    command.env_clear().env("NO_COLOR", "1");
    command
}

fn start(directory: &Path, arguments: &[&str]) -> Process {
    let log = directory.join("log");
    let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
    let child = command(directory, arguments).stderr(file).spawn().expect("p2p-node runs");
    Process { child, log }
}

/// Runs a node that is expected to end by itself.
fn fails(directory: &Path, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = command(directory, arguments).output().expect("p2p-node runs");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{stderr}");
    stderr
}

/// A running coordinator `c` and what an admin needs.
struct Cluster {
    directory: tempfile::TempDir,
    address: SocketAddr,
    _coordinator: Process,
}

impl Cluster {
    async fn start(name: &str) -> Self {
        Self::start_with(name, "").await
    }

    /// The same, with more lines in its configuration.
    async fn start_with(name: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let request = GenerateRequest {
            out: directory.path().to_owned(),
            cluster_id: Some(name.parse().expect("an id")),
            nodes: vec![("c".parse().expect("an id"), p2p_core::Role::Coordinator)],
            sans: vec![],
            days: 30,
            self_signed: false,
            force: false,
        };
        generate(&request, UnixTime::now()).expect("certificates");
        let port = free_port();
        let yaml = format!(
            "node_id: c\nport: {port}\nbind_address: 127.0.0.1\ncoordinator_mode: true\n\
             ssl_cert_file: c_cert.pem\nssl_key_file: c_key.pem\nstate_directory: data\n\
             # These tests look often.\nrate_limit_enabled: false\n{more}"
        );
        std::fs::write(directory.path().join("node.yaml"), yaml).expect("written");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let coordinator = start(directory.path(), &[]);
        let cluster = Self { directory, address, _coordinator: coordinator };
        eventually("the coordinator to answer", async || {
            let connected = Connection::connect(&cluster.options()).await;
            connected.map(drop).map_err(|error| format!("{error}\n{}", cluster.log()))
        })
        .await;
        cluster
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }

    fn options(&self) -> ConnectOptions {
        let read = |name: &str| std::fs::read(self.directory.path().join(name)).expect("a file");
        let mut options = ConnectOptions::new(self.address.to_string().parse().expect("an address"));
        options.ca_pem = Some(read("ca_cert.pem"));
        let (cert_pem, key_pem) = (read("admin_cert.pem"), read("admin_key.pem"));
        options.identity = Some(Identity { cert_pem, key_pem });
        options
    }

    async fn admin(&self) -> Connection {
        Connection::connect(&self.options()).await.expect("connects")
    }

    async fn token(&self, request: CreateJoinTokenRequest) -> String {
        self.admin().await.create_join_token(request).await.expect("a token").token
    }

    /// Waits until the coordinator sees `node` alive.
    async fn sees(&self, node: &str) -> u64 {
        self.sees_start_after(node, 0).await
    }

    /// Waits until the coordinator sees a start of `node` above `epoch` alive, and returns the start's epoch.
    async fn sees_start_after(&self, node: &str, epoch: u64) -> u64 {
        let (admin, mut seen) = (self.admin().await, None);
        eventually(&format!("{node} to be alive"), async || {
            let nodes = admin.list_nodes().await.expect("nodes");
            let alive = |state| state == MemberState::Alive;
            let found = nodes.iter().find(|found| found.node_id == node && alive(found.state()));
            seen = found.map(|found| found.epoch).filter(|found| *found > epoch);
            seen.map(drop).ok_or_else(|| format!("{nodes:?}\n{}", self.log()))
        })
        .await;
        seen.expect("seen")
    }

    /// Waits until the coordinator counts `token` as expired.
    async fn sees_expired(&self, token: &str) {
        let id = token.parse::<JoinToken>().expect("a token").id.to_string();
        let admin = self.admin().await;
        eventually("the token to expire", async || {
            let tokens = admin.list_join_tokens().await.expect("a list");
            let expired = |known: &JoinTokenInfo| known.id == id && known.state() == JoinTokenState::Expired;
            if tokens.iter().any(expired) { Ok(()) } else { Err(format!("{tokens:?}")) }
        })
        .await;
    }

    /// Waits for a line of the audit log.
    async fn audited(&self, act: &str, by: &str, result: &str, note: &str) {
        let path = self.directory.path().join("audit.jsonl");
        eventually(&format!("a line about {act}"), async || {
            let text = std::fs::read_to_string(&path).expect("the log");
            let mut lines =
                text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
            let method = format!("p2p.v1.EnrollmentService/{act}");
            let fits = |line: serde_json::Value| {
                [("act", method.as_str()), ("by", by), ("result", result), ("note", note)]
                    .iter()
                    .all(|(field, value)| line[field].as_str().unwrap_or_default() == *value)
            };
            if lines.any(fits) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    async fn metric(&self, result: &str) -> u64 {
        let name = format!("p2p_enrolments_total{{result=\"{result}\"}} ");
        let certificate = std::fs::read(self.directory.path().join("ca_cert.pem")).expect("a file");
        let certificate = reqwest::Certificate::from_pem(&certificate).expect("a certificate");
        let client = reqwest::Client::builder().tls_certs_only([certificate]).build().expect("a client");
        let text = client.get(format!("https://{}/metrics", self.address)).send().await.expect("an answer");
        let text = text.text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric");
        value.parse().expect("a number")
    }
}

/// An empty directory with one YAML, for `node`.
fn host(node: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let yaml = format!("node_id: {node}\nport: 0\nbind_address: 127.0.0.1\n");
    std::fs::write(directory.path().join("node.yaml"), yaml).expect("written");
    directory
}

fn certificate_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("listed");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.contains(".pem") || name.starts_with(".tmp"));
    names.sort();
    names
}

#[tokio::test]
async fn a_worker_with_one_yaml_and_one_token_joins_and_needs_the_token_no_more() {
    let cluster = Cluster::start("shop").await;
    let token = cluster.token(CreateJoinTokenRequest { ..Default::default() }).await;
    let host = host("w-1");
    std::fs::write(host.path().join("token"), format!("{token}\n")).expect("written");

    let since = Instant::now();
    let worker = start(host.path(), &["--join", "@token"]);
    let epoch = cluster.sees("w-1").await;
    println!("alive in the coordinator's view after {:?}", since.elapsed());
    assert_eq!(certificate_files(host.path()), ["ca_cert.pem", "node_cert.pem", "node_key.pem"]);
    let mode = std::fs::metadata(host.path().join("node_key.pem")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(cluster.metric("ok").await, 1);

    // Without the token, and without seeds in its configuration, it finds its cluster again.
    drop(worker);
    std::fs::remove_file(host.path().join("token")).expect("removed");
    let worker = start(host.path(), &[]);
    cluster.sees_start_after("w-1", epoch).await;
    drop(worker);

    // A token that is still given is not even read.
    let worker = start(host.path(), &["--join", "@token"]);
    eventually("a line about the token", async || {
        let log = std::fs::read_to_string(&worker.log).expect("a log");
        let ignored = log.contains("this node has a certificate; the join token is not used");
        if ignored { Ok(()) } else { Err(log) }
    })
    .await;
    let logs = cluster.log() + &std::fs::read_to_string(&worker.log).expect("a log");
    let secret = token.strip_prefix("p2pjoin1.").expect("a token");
    assert!(!logs.contains(secret) && !logs.contains("p2pjoin1."), "the token is in a log");
}

#[tokio::test]
async fn a_token_that_is_not_valid_ends_the_start_with_one_sentence() {
    let cluster = Cluster::start("shop").await;
    let admin = cluster.admin().await;
    let used = cluster.token(CreateJoinTokenRequest::default()).await;
    let first = host("w-1");
    let _worker = start(first.path(), &["--join", &used]);
    cluster.sees("w-1").await;

    let revoked = cluster.token(CreateJoinTokenRequest::default()).await;
    let id = revoked.parse::<JoinToken>().expect("a token").id.to_string();
    admin.revoke_join_token(&id).await.expect("revoked");
    let mut wrong: JoinToken =
        cluster.token(CreateJoinTokenRequest::default()).await.parse().expect("a token");
    wrong.secret = TokenSecret::new([1; 32]);
    let second = host("w-2");
    for token in [&used, &revoked, &wrong.to_text()] {
        let stderr = fails(second.path(), &["--join", token]);
        let sentence = format!("the coordinator at {} refused: the join token is not valid", cluster.address);
        assert!(stderr.lines().last().is_some_and(|line| line.ends_with(&sentence)), "{stderr}");
        assert!(!stderr.contains(token.as_str()), "the token is in the log");
    }
    for result in ["used", "revoked", "wrong_secret"] {
        assert_eq!(cluster.metric(result).await, 1, "{result}");
    }

    let taken = cluster.token(CreateJoinTokenRequest::default()).await;
    let thief = host("w-1");
    let stderr = fails(thief.path(), &["--join", &taken]);
    assert!(stderr.contains("node id w-1 is taken: a member that is alive"), "{stderr}");
    let bound = CreateJoinTokenRequest { node_id: "w-9".to_owned(), ..Default::default() };
    let stderr = fails(second.path(), &["--join", &cluster.token(bound).await]);
    assert!(stderr.contains("the join token is for node w-9, and node_id is w-2"), "{stderr}");
    let short = CreateJoinTokenRequest { ttl_seconds: 1, ..Default::default() };
    let expired = cluster.token(short).await;
    cluster.sees_expired(&expired).await;
    let stderr = fails(second.path(), &["--join", &expired]);
    assert!(stderr.contains("the join token has expired, or this host's clock is ahead"), "{stderr}");
    let stderr = fails(second.path(), &["--join", "p2pjoin1.nonsense"]);
    assert!(stderr.contains("what --join gives is no join token"), "{stderr}");
    // The key of a try waits for the next one; nothing else is left.
    assert_eq!(certificate_files(second.path()), ["node_key.pem.joining"]);
}

#[tokio::test]
async fn a_coordinator_of_another_ca_gets_nothing() {
    let (cluster, fake) = (Cluster::start("shop").await, Cluster::start("shop").await);
    let mut token: JoinToken =
        cluster.token(CreateJoinTokenRequest::default()).await.parse().expect("a token");
    token.coordinators = vec![fake.address.to_string().parse().expect("an address")];
    let host = host("w-1");
    let stderr = fails(host.path(), &["--join", &token.to_text()]);
    assert!(stderr.contains(&format!("{} is not the coordinator that the join token is for", fake.address)));
    assert!(stderr.contains("shows no CA certificate that the join token pins"), "{stderr}");
    for result in ["unknown", "wrong_secret", "limited", "malformed"] {
        assert_eq!(fake.metric(result).await, 0, "no request arrived");
    }
    // The token is as good as before where it belongs.
    token.coordinators = vec![cluster.address.to_string().parse().expect("an address")];
    let _worker = start(host.path(), &["--join", &token.to_text()]);
    cluster.sees("w-1").await;
}

#[tokio::test]
async fn a_worker_without_certificate_and_token_is_told_of_both_ways() {
    let host = host("w-1");
    let stderr = fails(host.path(), &[]);
    assert!(stderr.contains("p2pctl certs generate --node w-1:worker"), "{stderr}");
    assert!(stderr.contains("p2pctl cluster join-token create --node w-1"), "{stderr}");
    assert!(stderr.contains("--join TOKEN"), "{stderr}");
    let stderr = fails(host.path(), &["--set", "join_token_file=missing"]);
    assert!(stderr.contains("the join token cannot be read from missing"), "{stderr}");
}

#[tokio::test]
async fn join_tokens_are_for_admins_with_their_own_evidence() {
    let cluster = Cluster::start("shop").await;
    let mut anonymous = cluster.options();
    anonymous.identity = None;
    let error = Connection::connect(&anonymous).await.expect("connects").list_join_tokens().await;
    assert!(error.expect_err("refused").to_string().contains("needs a client certificate"));
    let mut node = cluster.options();
    let read = |name: &str| std::fs::read(cluster.directory.path().join(name)).expect("a file");
    node.identity = Some(Identity { cert_pem: read("c_cert.pem"), key_pem: read("c_key.pem") });
    let node = Connection::connect(&node).await.expect("connects");
    let error = node.create_join_token(CreateJoinTokenRequest::default()).await.expect_err("refused");
    assert!(error.to_string().contains("an admin's certificate, shown to the node that acts"), "{error}");
}

/// Last second of the certificate in `directory`.
fn not_after(directory: &Path) -> u64 {
    let leaf = CertificateDer::from_pem_file(directory.join("node_cert.pem")).expect("a certificate");
    PeerCertificate::parse(&leaf).expect("a certificate").not_after.as_secs()
}

#[tokio::test]
async fn a_worker_that_was_off_for_longer_than_its_certificate_comes_back_without_a_token() {
    let settings = "enrolled_certificate_ttl: 10s\naudit_log: audit.jsonl\n";
    let cluster = Cluster::start_with("shop", settings).await;
    let token = cluster.token(CreateJoinTokenRequest::default()).await;
    let host = host("w-1");
    let worker = start(host.path(), &["--join", &token]);
    let epoch = cluster.sees("w-1").await;
    let joined_until = not_after(host.path());
    eventually("a renewal", async || {
        let until = not_after(host.path());
        if until != joined_until { Ok(()) } else { Err(format!("it ends at {until}")) }
    })
    .await;

    drop(worker);
    eventually("the end of the certificate", async || {
        let until = not_after(host.path());
        if UnixTime::now().as_secs() > until { Ok(()) } else { Err(format!("it ends at {until}")) }
    })
    .await;
    let worker = start(host.path(), &[]);
    cluster.sees_start_after("w-1", epoch).await;
    let log = std::fs::read_to_string(&worker.log).expect("a log");
    assert!(log.contains("recovered; a new certificate and key are written"), "{log}");
    assert_eq!(cluster.metric("recovered").await, 1);
    assert_eq!(certificate_files(host.path()), ["ca_cert.pem", "node_cert.pem", "node_key.pem"]);

    // How it came in, and came back, is in the coordinator's audit log; its token's secret is not.
    let made = "certificate of spiffe://shop/worker/w-1";
    let id = token.parse::<JoinToken>().expect("a token").id;
    let (stranger, node) = ("anonymous", "spiffe://shop/worker/w-1");
    for (act, by, note) in [
        ("Enroll", stranger, format!("{made}, join token {id}")),
        ("Renew", node, made.to_owned()),
        ("Recover", stranger, made.to_owned()),
    ] {
        cluster.audited(act, by, "OK", &note).await;
    }
    let audit = std::fs::read_to_string(cluster.directory.path().join("audit.jsonl")).expect("the log");
    assert!(!audit.contains(&token), "no token is ever in it");
}

#[tokio::test]
async fn a_worker_whose_recovery_is_refused_says_why_and_ends() {
    let short = "enrolled_certificate_ttl: 10s\nrecover_window: 0\naudit_log: audit.jsonl\n";
    let cluster = Cluster::start_with("shop", short).await;
    let token = cluster.token(CreateJoinTokenRequest::default()).await;
    let host = host("w-1");
    let worker = start(host.path(), &["--join", &token]);
    cluster.sees("w-1").await;
    drop(worker);
    eventually("a second after the end of the certificate", async || {
        let until = not_after(host.path()) + 1;
        if UnixTime::now().as_secs() > until { Ok(()) } else { Err(format!("that is at {until}")) }
    })
    .await;
    let stderr = fails(host.path(), &[]);
    assert!(stderr.contains("it could not be recovered: the coordinator at"), "{stderr}");
    assert!(stderr.contains("longer ago than recover_window (0s); join anew with a token of"), "{stderr}");
    cluster.audited("Recover", "anonymous", "PERMISSION_DENIED", "").await;
}
