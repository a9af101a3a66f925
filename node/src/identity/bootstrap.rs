//! What a node does at start when it has no certificate yet.

use super::{
    ca::{LeafRequest, San, Validity, self_signed},
    error::IdentityError,
    files::{GenerateError, ca_files, cluster_of, load_ca, node_sans},
    local::IdentityFiles,
    write::{NewFile, write_all},
};
use p2p_core::{ClusterId, NodeId, Role, SpiffeId};
use rustls_pki_types::UnixTime;
use std::path::Path;

/// Validity of what is made at start, in days.
const DAYS: u32 = 10 * 365;

/// What the configuration allows a node without certificate.
#[derive(Clone, Debug)]
pub struct BootstrapPolicy {
    /// `node_id`.
    pub node_id: NodeId,
    /// `cluster_id`, if it is set; else the CA's, else [`DEFAULT_CLUSTER_ID`](super::DEFAULT_CLUSTER_ID).
    pub cluster_id: Option<ClusterId>,
    /// `coordinator_mode`: it may make a CA and issue for itself.
    pub coordinator: bool,
    /// `ssl_verify`; when off, a worker may sign its own certificate and stand alone.
    pub ssl_verify: bool,
    /// A join token was given, so a worker enrols instead, and so does a coordinator that has no CA's key.
    pub has_join_token: bool,
    /// Names of the node, beside those of [`node_sans`].
    pub sans: Vec<San>,
}

/// What [`ensure`] found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Certificate and key were there.
    Nothing,
    /// A coordinator issued its certificate below a CA.
    Certificate {
        /// The CA was made, too.
        new_ca: bool,
    },
    /// A self-signed certificate; the node stands alone.
    SelfSigned,
    /// Nothing yet: the node has a join token and must enrol.
    MustEnrol,
}

/// Makes sure that the node has a certificate, as far as it may make one itself. Never overwrites a file.
///
/// A coordinator makes a CA (if there is none) and its certificate. A worker enrols when it has a join
/// token; with `ssl_verify` off it signs its own certificate; else the error says what to run.
pub fn ensure(
    files: &IdentityFiles,
    policy: &BootstrapPolicy,
    now: UnixTime,
) -> Result<Created, IdentityError> {
    let half = |present: &Path, missing: &Path| IdentityError::Half {
        present: present.to_owned(),
        missing: missing.to_owned(),
    };
    match (files.cert.exists(), files.key.exists()) {
        (true, true) => Ok(Created::Nothing),
        (true, false) => Err(half(&files.cert, &files.key)),
        (false, true) => Err(half(&files.key, &files.cert)),
        (false, false) if policy.coordinator && policy.has_join_token && !files.ca_key.exists() => {
            Ok(Created::MustEnrol)
        }
        (false, false) if policy.coordinator => issue_for_coordinator(files, policy, now),
        (false, false) if policy.has_join_token => Ok(Created::MustEnrol),
        (false, false) if !policy.ssl_verify => stand_alone(files, policy, now),
        (false, false) => {
            Err(IdentityError::NoCertificate { node: policy.node_id.clone(), path: files.cert.clone() })
        }
    }
}

fn issue_for_coordinator(
    files: &IdentityFiles,
    policy: &BootstrapPolicy,
    now: UnixTime,
) -> Result<Created, IdentityError> {
    let made = || -> Result<Created, GenerateError> {
        let validity = Validity::days(now, DAYS)?;
        let existing = load_ca(&files.ca_cert, &files.ca_key)?;
        let cluster = cluster_of(policy.cluster_id.as_ref(), existing.as_ref());
        let new_ca = existing.is_none();
        let ca = match existing {
            Some(ca) => ca,
            None => super::Ca::generate(&cluster, validity)?,
        };
        ca.check(&cluster, now)?;
        let issued = ca.issue(&leaf(policy, cluster, Role::Coordinator, validity))?;
        let mut new = Vec::new();
        if new_ca {
            new.extend(ca_files(&ca, files.ca_cert.clone(), files.ca_key.clone()));
        }
        new.push(NewFile::key(files.key.clone(), issued.key_pem, false));
        new.push(NewFile::certificate(files.cert.clone(), issued.cert_pem, false));
        write_all(new)?;
        Ok(Created::Certificate { new_ca })
    };
    let created = made()?;
    tracing::info!(?created, cert = %files.cert.display(), "coordinator made its own certificate");
    Ok(created)
}

fn stand_alone(
    files: &IdentityFiles,
    policy: &BootstrapPolicy,
    now: UnixTime,
) -> Result<Created, IdentityError> {
    let made = || -> Result<(), GenerateError> {
        let cluster = cluster_of(policy.cluster_id.as_ref(), None);
        let issued = self_signed(&leaf(policy, cluster, Role::Worker, Validity::days(now, DAYS)?))?;
        write_all(vec![
            NewFile::key(files.key.clone(), issued.key_pem, false),
            NewFile::certificate(files.cert.clone(), issued.cert_pem, false),
        ])?;
        Ok(())
    };
    made()?;
    tracing::warn!(
        cert = %files.cert.display(),
        "ssl_verify is off and there was no certificate: made a self-signed one that nobody trusts; this node \
         stands alone and joins no cluster"
    );
    Ok(Created::SelfSigned)
}

fn leaf(policy: &BootstrapPolicy, cluster: ClusterId, role: Role, validity: Validity) -> LeafRequest {
    LeafRequest {
        spiffe: SpiffeId::new(cluster, role, policy.node_id.clone()),
        sans: node_sans(&policy.node_id, &policy.sans),
        grant: None,
        vouchers: Vec::new(),
        validity,
    }
}
