//! Certificates of a test's cluster.

use super::{Client, NodeConfig, TestNode};
use p2p_core::Role;
use p2p_node::identity::{self, Ca, GenerateRequest, LeafRequest, UnixTime, Validity, files::node_sans};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// The name of the cluster that all tests build.
pub const CLUSTER: &str = "test";

/// `days` from now, backwards if negative.
pub fn in_days(days: i64) -> UnixTime {
    let seconds = UnixTime::now().as_secs().saturating_add_signed(days * 24 * 60 * 60);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// A directory with the CA of a cluster, its admin and its nodes, as `p2pctl certs generate` makes it.
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// For nodes given as `name:role`.
    pub fn new(nodes: &[&str]) -> Self {
        Self::of_cluster(CLUSTER, nodes)
    }

    /// A CA of its own for the cluster `cluster`.
    pub fn of_cluster(cluster: &str, nodes: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nodes = nodes.iter().map(|node| {
            let (name, role) = node.split_once(':').expect("name:role");
            (name.parse().expect("a node id"), role.parse().expect("a role"))
        });
        let request = GenerateRequest {
            out: directory.path().to_owned(),
            cluster_id: Some(cluster.parse().expect("a cluster id")),
            nodes: nodes.collect(),
            sans: Vec::new(),
            days: 30,
            self_signed: false,
            force: false,
        };
        identity::generate(&request, UnixTime::now()).expect("certificates");
        Self { directory }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("a file of the test")
    }

    pub fn ca(&self) -> Ca {
        Ca::load(&self.path("ca_cert.pem"), &self.path("ca_key.pem")).expect("the CA")
    }

    /// A certificate of this CA for any SPIFFE id and time, as `<file>_cert.pem` and `<file>_key.pem`.
    pub fn issue(&self, file: &str, spiffe: &str, validity: Validity) {
        self.issue_by(&self.ca(), file, spiffe, validity);
    }

    /// The same, by the CA of another cluster.
    pub fn issue_by(&self, ca: &Ca, file: &str, spiffe: &str, validity: Validity) {
        let spiffe: p2p_core::SpiffeId = spiffe.parse().expect("a SPIFFE id");
        let sans = if spiffe.role == Role::Admin { Vec::new() } else { node_sans(&spiffe.name, &[]) };
        let issued = ca
            .issue(&LeafRequest { spiffe, sans, grant: None, vouchers: Vec::new(), validity })
            .expect("issued");
        self.place(&format!("{file}_cert.pem"), &issued.cert_pem, 0o644);
        self.place(&format!("{file}_key.pem"), &issued.key_pem, 0o600);
    }

    fn place(&self, file: &str, text: &str, mode: u32) {
        write_with_mode(&self.path(file), text, mode);
    }

    /// A configuration of the node `name` with its certificate.
    pub fn config(&self, name: &str) -> NodeConfig {
        NodeConfig::new(self.directory.path(), name)
    }

    /// A client of `node` with the certificate `name`.
    pub async fn client(&self, node: &TestNode, name: &str) -> Client {
        Client::connect(node.address, &self.read("ca_cert.pem"), Some(self.pair(name))).await
    }

    /// A client without a certificate.
    pub async fn stranger(&self, node: &TestNode) -> Client {
        Client::connect(node.address, &self.read("ca_cert.pem"), None).await
    }

    /// A client that no rate limit stops, to look at `node` as often as it takes.
    pub async fn observer(&self, node: &TestNode) -> Client {
        if !self.path("observer_cert.pem").exists() {
            let validity = Validity::days(UnixTime::now(), 1).expect("a day");
            self.issue("observer", &format!("spiffe://{CLUSTER}/worker/observer"), validity);
        }
        self.client(node, "observer").await
    }

    /// TLS of a client that speaks the protocols `alpn`, with the certificate `name` if one is given.
    pub fn tls_client(&self, name: Option<&str>, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca_cert.pem")).expect("the CA's certificate");
        roots.add(ca).expect("a root");
        let builder = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let leaf = CertificateDer::from_pem_file(self.path(&format!("{name}_cert.pem")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}_key.pem")));
                let chain = vec![leaf.expect("a certificate")];
                builder.with_client_auth_cert(chain, key.expect("a key")).expect("a pair")
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// Certificate and key of `name`, as PEM.
    pub fn pair(&self, name: &str) -> (String, String) {
        (self.read(&format!("{name}_cert.pem")), self.read(&format!("{name}_key.pem")))
    }
}

pub fn write_with_mode(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}
