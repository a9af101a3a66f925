//! Trust bundles: who may make them, in which order they are taken, and what they leave on disk.

use super::*;
use crate::{
    identity::{
        anchors::{Anchors, AnchorsFile},
        bundle::{Bundle, BundleError, RootKey, leads_to, needs_reissue},
        rotation,
    },
    persist::StateDirectory,
};
use p2p_core::ClusterId;
use rustls_pki_types::CertificateDer;
use std::{fs, sync::Arc};

fn cluster() -> ClusterId {
    "c".parse().unwrap()
}

fn root(ca: &Ca) -> CertificateDer<'static> {
    pem::certificates(ca.cert_pem().as_bytes()).unwrap().remove(0)
}

fn signed(serial: u64, roots: &[&Ca], signers: &[&Ca]) -> Bundle {
    let roots: Vec<_> = roots.iter().map(|ca| root(ca)).collect();
    let keys: Vec<RootKey> = signers.iter().map(|ca| RootKey::of(ca).unwrap()).collect();
    Bundle::sign(&cluster(), serial, &roots, &keys.iter().collect::<Vec<_>>()).unwrap()
}

/// A worker below `ca` and its anchors.
fn worker(directory: &Path, ca: &Ca) -> (Arc<IdentityStore>, Arc<Anchors>) {
    let files = place(directory, &ca.issue(&request("spiffe://c/worker/w")).unwrap(), ca.cert_pem());
    again(directory, files)
}

fn again(directory: &Path, files: IdentityFiles) -> (Arc<IdentityStore>, Arc<Anchors>) {
    let identity = Arc::new(IdentityStore::load(files, expect("w", false), now()).unwrap());
    let state = StateDirectory::open(directory.join("data")).unwrap();
    let anchors = Anchors::new(AnchorsFile::load(&state).unwrap(), identity.clone());
    (identity, anchors)
}

#[test]
fn a_bundle_signed_by_a_trusted_root_is_taken_and_survives_a_restart() {
    let (directory, old, new) = (tempfile::tempdir().unwrap(), issuer("c"), issuer("c"));
    let (identity, anchors) = worker(directory.path(), &old);
    let bundle = signed(1, &[&old, &new], &[&old, &new]);
    let mut news = anchors.subscribe();
    assert!(anchors.accept(bundle.wire(), now()).unwrap());
    assert!(news.has_changed().unwrap() && *news.borrow_and_update() == 1);
    let by_new = new.issue(&request("spiffe://c/worker/x")).unwrap();
    assert!(identity.current().trust().verify(&[by_new.der()], Usage::Server, now()).is_ok());
    assert!(!anchors.accept(bundle.wire(), now()).unwrap(), "known");

    let files = identity.files().clone();
    drop((identity, anchors));
    let (identity, anchors) = again(directory.path(), files);
    assert_eq!((anchors.serial(), anchors.bundle()), (1, Some(bundle)));
    assert_eq!(identity.current().trust().roots(), [root(&old), root(&new)]);
    // An older one never comes back.
    anchors.accept(signed(3, &[&new, &old], &[&old]).wire(), now()).unwrap();
    assert!(!anchors.accept(signed(2, &[&old], &[&old]).wire(), now()).unwrap());
    assert_eq!(anchors.serial(), 3);
}

#[test]
fn what_is_not_to_be_believed_changes_nothing() {
    let (directory, old, new) = (tempfile::tempdir().unwrap(), issuer("c"), issuer("c"));
    let (identity, anchors) = worker(directory.path(), &old);
    anchors.accept(signed(5, &[&old], &[&old]).wire(), now()).unwrap();
    let before = fs::read_to_string(&identity.files().ca_cert).unwrap();
    let mut unsigned = signed(6, &[&old, &new], &[&old]).wire().clone();
    unsigned.signatures.clear();
    let mut swapped = signed(6, &[&old, &new], &[&old]).wire().clone();
    swapped.body = signed(7, &[&new], &[&new]).wire().body.clone();
    let mut borrowed = signed(6, &[&new], &[&new]).wire().clone();
    borrowed.signatures[0].signer_root = root(&old).to_vec().into();
    let foreign = {
        let key = RootKey::of(&old).unwrap();
        let other = issuer("d");
        Bundle::sign(&"d".parse().unwrap(), 6, &[root(&other)], &[&key]).unwrap()
    };
    for (wire, says) in [
        (signed(6, &[&new], &[&new]).wire(), "trust bundle 6 is signed by no root that is trusted here"),
        (&unsigned, "signed by no root"),
        (&swapped, "signed by no root"),
        (&borrowed, "signed by no root"),
        (signed(5, &[&old, &new], &[&old]).wire(), "another trust bundle of serial 5"),
        (foreign.wire(), "is cluster d's, this is cluster c"),
        (signed(6, &[&new], &[&old]).wire(), "this node's own certificate would lead to no trusted root"),
    ] {
        let error = anchors.accept(wire, now()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!((anchors.serial(), fs::read_to_string(&identity.files().ca_cert).unwrap()), (5, before));
}

#[test]
fn a_malformed_bundle_is_not_even_looked_at() {
    let ca = issuer("c");
    let key = RootKey::of(&ca).unwrap();
    let make = |serial, roots: Vec<CertificateDer<'static>>| {
        Bundle::sign(&cluster(), serial, &roots, &[&key]).map(drop).map_err(|error| error.to_string())
    };
    let leaf = ca.issue(&request("spiffe://c/worker/w")).unwrap();
    let many: Vec<_> = (0..9).map(|_| root(&issuer("c"))).collect();
    for (made, says) in [
        (make(0, vec![root(&ca)]), "its serial is 0"),
        (make(1, vec![]), "no root, or too many"),
        (make(1, many), "no root, or too many"),
        (make(1, vec![root(&ca), root(&ca)]), "a root is named twice"),
        (make(1, vec![leaf.der().clone()]), "a root is no CA of its cluster"),
        (make(1, vec![root(&issuer("d"))]), "a root is no CA of its cluster"),
        (make(1, vec![CertificateDer::from(vec![1, 2, 3])]), "a root is no certificate"),
    ] {
        let error = made.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let mut wire = signed(1, &[&ca], &[&ca]).wire().clone();
    wire.body = vec![0xff; 10].into();
    assert!(matches!(Bundle::parse(&wire), Err(BundleError::Malformed(_))));
    wire.body = vec![0; crate::identity::bundle::MAX_BODY_LEN + 1].into();
    assert!(matches!(Bundle::parse(&wire), Err(BundleError::Malformed("it is too long"))));
}

#[test]
fn the_last_bundle_is_followed_from_either_root_and_stand_alone_certificates_stay() {
    let (old, new) = (issuer("c"), issuer("c"));
    let last = signed(3, &[&new], &[&old, &new]);
    // A node that was made after the rotation began and knows only the new root.
    let directory = tempfile::tempdir().unwrap();
    let alone = self_signed(&request("spiffe://c/worker/alone")).unwrap();
    let issued = new.issue(&request("spiffe://c/worker/w")).unwrap();
    let files = place(directory.path(), &issued, &format!("{}{}", new.cert_pem(), alone.cert_pem));
    let (identity, anchors) = again(directory.path(), files);
    assert!(anchors.accept(last.wire(), now()).unwrap());
    assert_eq!(identity.current().trust().roots(), [root(&new), alone.der().clone()]);
    // One that slept through everything but has a certificate below the new root.
    let directory = tempfile::tempdir().unwrap();
    let files = place(directory.path(), &issued, &format!("{}{}", old.cert_pem(), new.cert_pem()));
    let (_, anchors) = again(directory.path(), files);
    assert!(anchors.accept(last.wire(), now()).unwrap());
}

#[test]
fn a_certificate_is_issued_anew_when_another_root_issues() {
    let (old, new) = (issuer("c"), issuer("c"));
    let node = identity(&old, "spiffe://c/worker/w");
    assert!(!needs_reissue(&node, &signed(1, &[&old, &new], &[&old]), now()), "the old root still issues");
    assert!(needs_reissue(&node, &signed(2, &[&new, &old], &[&old]), now()));
    assert!(!needs_reissue(
        &identity(&new, "spiffe://c/worker/w"),
        &signed(2, &[&new, &old], &[&old]),
        now()
    ));
    let expired = old_issuer("c");
    let issued = expired.issue(&super::expired("spiffe://c/worker/w")).unwrap();
    assert!(leads_to(&[issued.der()], &cluster(), &root(&expired), now()), "its time is another matter");
}

#[test]
fn the_roots_keys_are_staged_switched_and_found_at_each_step() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("c"));
    let mut leaf = request("spiffe://c/coordinator/k");
    leaf.sans = vec!["k.example".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    let files = place(directory.path(), &ca.issue(&leaf).unwrap(), ca.cert_pem());
    fs::write(&files.ca_key, ca.key_pem()).unwrap();
    let staged = rotation::stage(&files, &cluster(), now()).unwrap();
    let find = |pem: &str| rotation::root(&files, pem, 1).map(|ca| ca.key_pem());
    let (old_key, new_key) = (find(&staged.old).unwrap(), find(&staged.new).unwrap());
    assert_eq!(old_key, ca.key_pem());
    fs::write(&files.ca_cert, format!("{}{}", staged.old, staged.new)).unwrap();
    assert_eq!(Ca::load(&files.ca_cert, &files.ca_key).unwrap().cert_pem(), staged.old, "it issues still");
    for _ in 0..2 {
        rotation::switch(&files, 1).unwrap();
        assert_eq!(Ca::load(&files.ca_cert, &files.ca_key).unwrap().cert_pem(), staged.new);
        assert_eq!(
            (find(&staged.old).unwrap(), find(&staged.new).unwrap()),
            (old_key.clone(), new_key.clone())
        );
    }
    assert!(directory.path().join("ca_key.pem.retired-1").exists());

    let new = Ca::load(&files.ca_cert, &files.ca_key).unwrap();
    let bundle = signed(2, &[&new, &ca], &[&new]);
    let before = Identity::load(&files, &expect("k", true), now()).unwrap();
    assert!(rotation::reissue_own(&files, &before, &bundle, now()).unwrap());
    let after = Identity::load(&files, &expect("k", true), now()).unwrap();
    assert_eq!(after.certificate().public_key, before.certificate().public_key);
    let info = inspect(&fs::read(&files.cert).unwrap(), now()).unwrap().remove(0);
    assert_eq!(
        (info.dns_names, info.ip_addresses),
        (vec!["k.example".to_owned()], vec![[10, 0, 0, 1].into()])
    );
    assert!(!rotation::reissue_own(&files, &after, &bundle, now()).unwrap(), "once");
    fs::remove_file(&files.ca_key).unwrap();
    let error = rotation::root(&files, &staged.new, 1).unwrap_err().to_string();
    assert!(error.contains("put it back"), "{error}");
}
