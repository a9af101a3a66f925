//! Signing keys: made, kept, replaced; and what is issued.

use crate::{
    identity::{Expected, GenerateRequest, IdentityFiles, IdentityStore, UnixTime, generate},
    persist::PersistError,
    telemetry::Metrics,
    token::{
        IssueError, Issuer, KeepSigners, NewAccessToken, Signers, StoredSigner, Verifier,
        issuer::{DEFAULT_TTL, MAX_TTL, RevokedBefore},
    },
};
use p2p_core::Role;
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

#[derive(Default)]
struct Memory(Mutex<Vec<StoredSigner>>);

impl KeepSigners for Memory {
    fn signers(&self) -> Vec<StoredSigner> {
        self.0.lock().expect("not poisoned").clone()
    }

    fn keep_signers(&self, signers: Vec<StoredSigner>) -> Result<(), PersistError> {
        *self.0.lock().expect("not poisoned") = signers;
        Ok(())
    }
}

struct Node {
    issuer: Issuer,
    verifier: Arc<Verifier>,
}

fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let node = |name: &str, role| (name.parse().expect("an id"), role);
    let request = GenerateRequest {
        out: directory.path().to_owned(),
        cluster_id: Some("shop".parse().expect("an id")),
        nodes: vec![node("c1", Role::Coordinator), node("w1", Role::Worker)],
        sans: vec![],
        days: 365,
        self_signed: false,
        force: false,
    };
    generate(&request, UnixTime::now()).expect("certificates");
    directory
}

fn node(directory: &Path, name: &str, keeper: &Arc<Memory>, revoked: Box<RevokedBefore>) -> Node {
    let files = IdentityFiles {
        cert: directory.join(format!("{name}_cert.pem")),
        key: directory.join(format!("{name}_key.pem")),
        ca_cert: directory.join("ca_cert.pem"),
        ca_key: directory.join("ca_key.pem"),
    };
    let expected = Expected {
        node_id: name.parse().expect("an id"),
        cluster_id: None,
        coordinator: name == "c1",
        may_stand_alone: false,
    };
    let identity = Arc::new(IdentityStore::load(files, expected, UnixTime::now()).expect("an identity"));
    let verifier = Arc::new(Verifier::new(Signers::default(), Box::new(|_| None), &Metrics::default()));
    Node { issuer: Issuer::new(identity, keeper.clone(), verifier.clone(), revoked), verifier }
}

fn coordinator(directory: &Path, keeper: &Arc<Memory>) -> Node {
    node(directory, "c1", keeper, Box::new(|_| None))
}

fn in_days(days: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + days * 86_400))
}

fn new(ttl: Duration) -> NewAccessToken {
    let (subject, scope) = ("ci".parse().expect("a subject"), "shop.*".parse().expect("a scope"));
    NewAccessToken { subject, scope, ttl }
}

#[test]
fn what_a_coordinator_issues_its_own_node_and_the_next_start_verify() {
    let (directory, keeper) = (certificates(), Arc::new(Memory::default()));
    let c1 = coordinator(directory.path(), &keeper);
    let now = UnixTime::now();
    let (token, issued) = c1.issuer.issue(&new(Duration::ZERO), now).expect("issued");
    let verified = c1.verifier.verify(&token, now).expect("genuine");
    assert_eq!(*verified.holder.jti, *issued.jti);
    assert_eq!(verified.expires_at - verified.issued_at, DEFAULT_TTL.as_secs());
    assert_eq!(issued.issuer.to_string(), "spiffe://shop/coordinator/c1");

    let again = coordinator(directory.path(), &keeper);
    again.issuer.rotate(now).expect("the kept key");
    assert_eq!(again.issuer.chains(), c1.issuer.chains());
    assert!(again.verifier.verify(&token, now).is_ok());
    assert_eq!(format!("{:?}", keeper.signers()).matches("created_at").count(), 1);
    assert!(!format!("{:?}", keeper.signers()).contains("key"), "no secret in debug output");
}

#[test]
fn a_signer_is_replaced_at_two_thirds_of_its_life_with_overlap() {
    let (directory, keeper) = (certificates(), Arc::new(Memory::default()));
    let c1 = coordinator(directory.path(), &keeper);
    let now = UnixTime::now();
    let (old_token, old) = c1.issuer.issue(&new(MAX_TTL), now).expect("issued");
    assert!(!c1.issuer.rotate(in_days(59)).expect("nothing to do"));
    let (token, _) = c1.issuer.issue(&new(MAX_TTL), in_days(59)).expect("the longest life still fits");
    assert!(c1.issuer.rotate(in_days(61)).expect("a new key"));
    assert_eq!(c1.issuer.chains().len(), 2);
    // The new key is published before it signs.
    let (_, first) = c1.issuer.issue(&new(DEFAULT_TTL), in_days(61)).expect("issued");
    assert_eq!(first.kid, old.kid);
    let (_, later) = c1.issuer.issue(&new(DEFAULT_TTL), in_days(62)).expect("issued");
    assert_ne!(later.kid, old.kid);
    assert!(c1.verifier.verify(&token, in_days(88)).is_ok(), "the old key still verifies");
    assert!(c1.verifier.verify(&old_token, in_days(61)).is_err(), "its own time is over");
    assert!(c1.issuer.rotate(in_days(91)).expect("the old key ends"));
    assert_eq!(c1.issuer.chains().len(), 1);
}

#[test]
fn what_cannot_be_issued_is_refused() {
    let (directory, keeper) = (certificates(), Arc::new(Memory::default()));
    let now = UnixTime::now();
    let w1 = node(directory.path(), "w1", &keeper, Box::new(|_| None));
    assert!(matches!(w1.issuer.issue(&new(DEFAULT_TTL), now), Err(IssueError::NotHere(_))));
    let c1 = coordinator(directory.path(), &keeper);
    for ttl in [MAX_TTL + Duration::from_secs(1), Duration::from_millis(1)] {
        assert!(matches!(c1.issuer.issue(&new(ttl), now), Err(IssueError::Ttl)));
    }
    std::fs::remove_file(directory.path().join("ca_key.pem")).expect("removed");
    let lost = coordinator(directory.path(), &Arc::new(Memory::default()));
    assert!(matches!(lost.issuer.issue(&new(DEFAULT_TTL), now), Err(IssueError::NotHere(_))));
}

#[test]
fn nothing_older_than_its_revocation_is_issued_for_a_subject() {
    let (directory, keeper) = (certificates(), Arc::new(Memory::default()));
    let now = UnixTime::now();
    let revoked = |ahead: u64| -> Box<RevokedBefore> {
        let before = now.as_secs() + ahead;
        Box::new(move |_| Some(before))
    };
    let soon = node(directory.path(), "c1", &keeper, revoked(60));
    let (_, issued) = soon.issuer.issue(&new(DEFAULT_TTL), now).expect("issued");
    assert_eq!(issued.issued_at, now.as_secs() + 60);
    let late = node(directory.path(), "c1", &keeper, revoked(61));
    assert!(matches!(late.issuer.issue(&new(DEFAULT_TTL), now), Err(IssueError::Revoked(_))));
}
