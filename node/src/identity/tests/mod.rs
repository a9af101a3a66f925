//! Tests that need several parts at once: files, trust, handshakes, start.

mod authority;
mod bundle;
mod enrolled;
mod files;
mod handshake;
mod identity;
mod renewed;
mod start;
mod trust;

use super::*;
use p2p_core::{NodeId, Role, SpiffeId};
use std::{path::Path, time::Duration};

pub(super) const DAY: u64 = 24 * 60 * 60;

pub(super) fn now() -> UnixTime {
    UnixTime::now()
}

/// `days` from now, backwards if negative.
pub(super) fn in_days(days: i64) -> UnixTime {
    let seconds = now().as_secs().saturating_add_signed(days * DAY as i64);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(super) fn issuer(cluster: &str) -> Ca {
    Ca::generate(&cluster.parse().unwrap(), Validity::days(now(), 3650).unwrap()).unwrap()
}

pub(super) fn request(spiffe: &str) -> LeafRequest {
    let validity = Validity::days(now(), 30).unwrap();
    LeafRequest { spiffe: spiffe.parse().unwrap(), sans: vec![], grant: None, vouchers: Vec::new(), validity }
}

/// A request whose validity ended yesterday.
pub(super) fn expired(spiffe: &str) -> LeafRequest {
    let validity = Validity { not_before: in_days(-10), not_after: in_days(-1) };
    LeafRequest { validity, ..request(spiffe) }
}

/// A CA that was there before [`expired`] certificates were issued.
pub(super) fn old_issuer(cluster: &str) -> Ca {
    let validity = Validity { not_before: in_days(-100), not_after: in_days(3000) };
    Ca::generate(&cluster.parse().unwrap(), validity).unwrap()
}

pub(super) fn files_in(directory: &Path) -> IdentityFiles {
    let at = |name: &str| directory.join(name);
    IdentityFiles {
        cert: at("node_cert.pem"),
        key: at("node_key.pem"),
        ca_cert: at("ca_cert.pem"),
        ca_key: at("ca_key.pem"),
    }
}

/// Writes certificate, key and trusted certificates as a node finds them.
pub(super) fn place(directory: &Path, issued: &Issued, ca_pem: &str) -> IdentityFiles {
    use std::os::unix::fs::PermissionsExt;
    let files = files_in(directory);
    std::fs::write(&files.cert, &issued.cert_pem).unwrap();
    std::fs::write(&files.key, &issued.key_pem).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&files.ca_cert, ca_pem).unwrap();
    files
}

pub(super) fn expect(node: &str, coordinator: bool) -> Expected {
    Expected { node_id: node.parse().unwrap(), cluster_id: None, coordinator, may_stand_alone: false }
}

/// The identity of a node, from a certificate of `ca`.
pub(super) fn identity(ca: &Ca, spiffe: &str) -> Identity {
    let directory = tempfile::tempdir().unwrap();
    let issued = ca.issue(&request(spiffe)).unwrap();
    let files = place(directory.path(), &issued, ca.cert_pem());
    let id: SpiffeId = spiffe.parse().unwrap();
    Identity::load(&files, &expect(id.name.as_str(), id.role == Role::Coordinator), now()).unwrap()
}

pub(super) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}
