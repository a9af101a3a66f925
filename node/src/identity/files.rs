//! `certs generate`: a cluster's certificate files in one go. Everything is checked and made in memory
//! before the first byte is written, so bad input changes nothing.

use super::{
    DEFAULT_CLUSTER_ID,
    ca::{Ca, CaError, Issued, LeafRequest, San, Validity, self_signed},
    write::{NewFile, WriteError, write_all},
};
use p2p_core::{ClusterId, NodeId, Role, SpiffeId};
use rustls_pki_types::UnixTime;
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The directory for the files; made if it does not exist.
    pub out: PathBuf,
    /// The cluster. `None`: the one that an existing CA in `out` names, else
    /// [`DEFAULT_CLUSTER_ID`].
    pub cluster_id: Option<ClusterId>,
    /// The nodes: coordinators and workers. An admin's certificate is made beside them.
    pub nodes: Vec<(NodeId, Role)>,
    /// Names of every node, beside `localhost`, both loopback addresses, its id and the host's name.
    pub sans: Vec<San>,
    /// Validity of all certificates, in days. Leaves never outlive an existing CA.
    pub days: u32,
    /// Stand-alone certificates without a CA.
    pub self_signed: bool,
    /// Replace existing certificates and keys of nodes and admin. A CA is never replaced.
    pub force: bool,
}

/// Why nothing was generated. Unless it is [`GenerateError::Write`], no file was touched.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A role that is no node's.
    #[error("node {0} cannot have the role {1}; use coordinator or worker")]
    NotANode(NodeId, Role),
    /// `admin` and `ca` are names of other files.
    #[error("nobody can be called {0}: {0}_cert.pem is the name of another file")]
    Reserved(NodeId),
    /// The same node twice.
    #[error("node {0} is named twice")]
    Twice(NodeId),
    /// Files in the way.
    #[error("these files exist already: {}; use --force to replace them (a CA is never replaced)", list(.0))]
    Exists(Vec<PathBuf>),
    /// Half of a CA.
    #[error("{} exists but {} does not; put the missing half back, or move this one away to make a new CA", present.display(), missing.display())]
    HalfCa {
        /// The file that exists.
        present: PathBuf,
        /// The one that does not.
        missing: PathBuf,
    },
    /// No CA to issue with.
    #[error("there is no {}; name the directory of a root's ca_cert.pem and ca_key.pem", .0.display())]
    NoCa(PathBuf),
    /// `out` is something else than a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The CA cannot issue, or the request cannot be issued.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Writing failed; files newly created by the call are removed again.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Makes `ca_cert.pem`, `ca_key.pem`, `<node>_cert.pem`, `<node>_key.pem` for each node and
/// `admin_cert.pem`, `admin_key.pem` in `request.out`, and returns what it wrote. Keys get mode 0600. A CA
/// that is there already is used and kept, and so is the admin's pair when nodes are added beside it.
///
/// ```
/// use p2p_core::Role;
/// use p2p_node::identity::{GenerateRequest, UnixTime, generate};
///
/// let directory = tempfile::tempdir()?;
/// let request = GenerateRequest {
///     out: directory.path().join("certs"),
///     cluster_id: Some("shop".parse()?),
///     nodes: vec![("coordinator".parse()?, Role::Coordinator), ("worker".parse()?, Role::Worker)],
///     sans: vec!["10.0.0.5".parse()?],
///     days: 3650,
///     self_signed: false,
///     force: false,
/// };
/// let written = generate(&request, UnixTime::now())?;
/// assert_eq!(written.len(), 8);
/// assert!(request.out.join("worker_key.pem").exists());
///
/// // A second run changes nothing and says why.
/// assert!(generate(&request, UnixTime::now()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn generate(request: &GenerateRequest, now: UnixTime) -> Result<Vec<PathBuf>, GenerateError> {
    check_names(&request.nodes)?;
    let validity = Validity::days(now, request.days)?;
    if request.out.exists() && !request.out.is_dir() {
        return Err(GenerateError::NotADirectory(request.out.clone()));
    }
    check_free(request)?;

    let (ca, mut files) =
        if request.self_signed { (None, Vec::new()) } else { existing_or_new_ca(request, validity)? };
    let cluster = cluster_of(request.cluster_id.as_ref(), ca.as_ref());
    if let Some(ca) = &ca {
        ca.check(&cluster, now)?;
    }
    let issue = |leaf: &LeafRequest| ca.as_ref().map_or_else(|| self_signed(leaf), |ca| ca.issue(leaf));
    for (node, role) in &request.nodes {
        let sans = node_sans(node, &request.sans);
        let spiffe = SpiffeId::new(cluster.clone(), *role, node.clone());
        let issued = issue(&LeafRequest { spiffe, sans, grant: None, vouchers: Vec::new(), validity })?;
        push_pair(&mut files, &request.out, node.as_str(), issued, request.force);
    }
    if keeps_admin(request) {
        return Ok(write_all(files)?);
    }
    let admin = "admin".parse().expect("admin is a valid id");
    let spiffe = SpiffeId::new(cluster, Role::Admin, admin);
    let issued =
        issue(&LeafRequest { spiffe, sans: Vec::new(), grant: None, vouchers: Vec::new(), validity })?;
    push_pair(&mut files, &request.out, "admin", issued, request.force);
    Ok(write_all(files)?)
}

/// An admin's certificate and key, made beside the CA that issues them.
#[derive(Clone, Debug)]
pub struct AdminRequest {
    /// Directory with `ca_cert.pem` and `ca_key.pem`, where the new files go, too.
    pub out: PathBuf,
    /// Who it is; the files are `NAME_cert.pem` and `NAME_key.pem`.
    pub name: NodeId,
    /// How long the certificate is valid.
    pub days: u32,
    /// Replace files that are there.
    pub force: bool,
}

/// Makes an admin's certificate with the CA in `request.out`, and returns the files written.
///
/// # Errors
///
/// When there is no whole CA, the files are there and may not be replaced, or the disk refuses them. Nothing is written
/// then.
pub fn issue_admin(request: &AdminRequest, now: UnixTime) -> Result<Vec<PathBuf>, GenerateError> {
    let name = request.name.as_str();
    if name == "ca" {
        return Err(GenerateError::Reserved(request.name.clone()));
    }
    let validity = Validity::days(now, request.days)?;
    let [cert, key] = pair(&request.out, "ca");
    let ca = load_ca(&cert, &key)?.ok_or(GenerateError::NoCa(cert))?;
    let taken: Vec<PathBuf> =
        pair(&request.out, name).into_iter().filter(|path| path.symlink_metadata().is_ok()).collect();
    if !taken.is_empty() && !request.force {
        return Err(GenerateError::Exists(taken));
    }
    let cluster = cluster_of(None, Some(&ca));
    ca.check(&cluster, now)?;
    let spiffe = SpiffeId::new(cluster, Role::Admin, request.name.clone());
    let issued =
        ca.issue(&LeafRequest { spiffe, sans: Vec::new(), grant: None, vouchers: Vec::new(), validity })?;
    let mut files = Vec::new();
    push_pair(&mut files, &request.out, name, issued, request.force);
    Ok(write_all(files)?)
}

/// The names that every certificate of `node` carries: `localhost`, the loopback addresses, the node id and
/// the host's name (as far as they are DNS names) and `extra`, each once.
pub fn node_sans(node: &NodeId, extra: &[San]) -> Vec<San> {
    let host = sysinfo::System::host_name().ok();
    let named =
        [Some(node.as_str()), host.as_deref()].into_iter().flatten().filter_map(|name| name.parse().ok());
    let local = [
        San::Dns("localhost".into()),
        San::Ip(Ipv4Addr::LOCALHOST.into()),
        San::Ip(Ipv6Addr::LOCALHOST.into()),
    ];
    let mut seen = BTreeSet::new();
    let all = local.into_iter().chain(named).chain(extra.iter().cloned());
    all.filter(|san| seen.insert(san.clone())).collect()
}

fn check_names(nodes: &[(NodeId, Role)]) -> Result<(), GenerateError> {
    let mut seen = BTreeSet::new();
    for (node, role) in nodes {
        if !role.is_node() {
            return Err(GenerateError::NotANode(node.clone(), *role));
        }
        if matches!(node.as_str(), "admin" | "ca") {
            return Err(GenerateError::Reserved(node.clone()));
        }
        if !seen.insert(node) {
            return Err(GenerateError::Twice(node.clone()));
        }
    }
    Ok(())
}

/// Refuses to run into existing files of the nodes or the admin, unless `force` allows it.
fn check_free(request: &GenerateRequest) -> Result<(), GenerateError> {
    let taken =
        |name: &str| pair(&request.out, name).into_iter().filter(|path| path.symlink_metadata().is_ok());
    let nodes: Vec<PathBuf> = request.nodes.iter().flat_map(|(node, _)| taken(node.as_str())).collect();
    if request.force || (nodes.is_empty() && keeps_admin(request)) {
        return Ok(());
    }
    let all: Vec<PathBuf> = nodes.into_iter().chain(taken("admin")).collect();
    if all.is_empty() { Ok(()) } else { Err(GenerateError::Exists(all)) }
}

/// An admin's certificate and key that are there already stay when nodes are added beside them.
fn keeps_admin(request: &GenerateRequest) -> bool {
    let exists = pair(&request.out, "admin").iter().all(|path| path.exists());
    exists && !request.force && !request.nodes.is_empty()
}

/// The CA of the directory, or a new one with the files to write for it.
fn existing_or_new_ca(
    request: &GenerateRequest,
    validity: Validity,
) -> Result<(Option<Ca>, Vec<NewFile>), GenerateError> {
    let [cert, key] = pair(&request.out, "ca");
    if let Some(ca) = load_ca(&cert, &key)? {
        return Ok((Some(ca), Vec::new()));
    }
    let ca = Ca::generate(&cluster_of(request.cluster_id.as_ref(), None), validity)?;
    let files = ca_files(&ca, cert, key);
    Ok((Some(ca), files))
}

/// The CA in the two files; `None` if neither exists, [`GenerateError::HalfCa`] if one does.
pub(super) fn load_ca(cert: &Path, key: &Path) -> Result<Option<Ca>, GenerateError> {
    let half = |present: &Path, missing: &Path| GenerateError::HalfCa {
        present: present.to_owned(),
        missing: missing.to_owned(),
    };
    match (cert.exists(), key.exists()) {
        (true, true) => Ok(Some(Ca::load(cert, key)?)),
        (false, false) => Ok(None),
        (true, false) => Err(half(cert, key)),
        (false, true) => Err(half(key, cert)),
    }
}

/// The files of a new CA, key first: a certificate whose key was never written would be of no use.
pub(super) fn ca_files(ca: &Ca, cert: PathBuf, key: PathBuf) -> Vec<NewFile> {
    vec![NewFile::key(key, ca.key_pem(), false), NewFile::certificate(cert, ca.cert_pem().to_owned(), false)]
}

/// The cluster asked for, else the CA's, else the default.
pub(super) fn cluster_of(asked: Option<&ClusterId>, ca: Option<&Ca>) -> ClusterId {
    let known = asked.or_else(|| ca.and_then(Ca::cluster_id)).cloned();
    known.unwrap_or_else(|| DEFAULT_CLUSTER_ID.parse().expect("the default is a valid id"))
}

fn pair(out: &Path, name: &str) -> [PathBuf; 2] {
    [out.join(format!("{name}_cert.pem")), out.join(format!("{name}_key.pem"))]
}

fn push_pair(files: &mut Vec<NewFile>, out: &Path, name: &str, issued: Issued, replace: bool) {
    let [cert, key] = pair(out, name);
    files.push(NewFile::key(key, issued.key_pem, replace));
    files.push(NewFile::certificate(cert, issued.cert_pem, replace));
}
