//! Backups made, restored, and every way in which one is no use.

use super::*;
use crate::identity::{
    IdentityFiles,
    tests::{files_in, issuer, now},
};
use std::{fs, os::unix::fs::PermissionsExt as _};

/// A directory with a CA in it.
fn with_ca() -> (tempfile::TempDir, IdentityFiles, Ca) {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("shop"));
    let files = files_in(directory.path());
    fs::write(&files.ca_cert, ca.cert_pem()).unwrap();
    fs::write(&files.ca_key, ca.key_pem()).unwrap();
    (directory, files, ca)
}

fn contents(files: &IdentityFiles) -> Contents {
    let made = Contents::of(&files.ca_cert, &files.ca_key, now()).unwrap();
    Contents::parse(&made.to_bytes()).unwrap()
}

#[test]
fn a_ca_comes_back_as_it_was_and_its_key_is_private() {
    let (directory, files, ca) = with_ca();
    assert_eq!(last(&files.ca_key).unwrap(), None);
    let out = directory.path().join("ca.backup");
    let made = contents(&files);
    made.save("encrypted".to_owned(), &out, &files.ca_key).unwrap();
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let marked = last(&files.ca_key).unwrap().unwrap();
    assert!(now().as_secs() - marked.made_at().as_secs() < 60);
    let key_body = ca.key_pem().lines().nth(1).unwrap().to_owned();
    assert!(!format!("{made:?}").contains(&key_body));

    let elsewhere = tempfile::tempdir().unwrap();
    let there = files_in(elsewhere.path());
    let written = made.restore(&there.ca_cert, &there.ca_key).unwrap();
    assert_eq!(written, [there.ca_key.clone(), there.ca_cert.clone()]);
    assert_eq!(fs::metadata(&there.ca_key).unwrap().permissions().mode() & 0o777, 0o600);
    let back = Ca::load(&there.ca_cert, &there.ca_key).unwrap();
    assert_eq!((back.cert_pem(), back.key_pem()), (ca.cert_pem(), ca.key_pem()));
    assert_eq!(last(&there.ca_key).unwrap(), Some(marked), "what was restored is backed up");

    // A new CA is not, nor is one whose marker is damaged.
    let new = issuer("shop");
    fs::write(&files.ca_cert, new.cert_pem()).unwrap();
    fs::write(&files.ca_key, new.key_pem()).unwrap();
    assert_eq!(last(&files.ca_key).unwrap(), None);
    fs::write(elsewhere.path().join("ca_backup.json"), "{").unwrap();
    assert_eq!(last(&there.ca_key).unwrap(), None);
}

#[test]
fn a_coordinators_own_ca_comes_back_below_its_root() {
    let (_directory, files, root) = with_ca();
    let key = rcgen::KeyPair::generate().unwrap();
    let (cluster, node) = ("shop".parse().unwrap(), "c-2".parse().unwrap());
    let public_key = key.subject_public_key_info();
    let der = root.certify_coordinator(&cluster, &node, &public_key, now()).unwrap();
    fs::write(files.issuer_cert(), pem::to_text(&der)).unwrap();
    fs::write(&files.ca_key, key.serialize_pem()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let there = files_in(elsewhere.path());
    assert_eq!(contents(&files).restore(&there.ca_cert, &there.ca_key).unwrap().len(), 3);
    let back = Ca::load(&there.ca_cert, &there.ca_key).unwrap();
    assert_eq!((back.coordinator(), back.chain().len()), (Some(&node), 1));
    assert_eq!(fs::read_to_string(&there.ca_cert).unwrap(), root.cert_pem());
}

#[test]
fn a_ca_that_is_there_is_never_overwritten() {
    let (directory, files, ca) = with_ca();
    let bytes = contents(&files).to_bytes();
    let again = || Contents::parse(&bytes).unwrap().restore(&files.ca_cert, &files.ca_key);
    let error = again().unwrap_err().to_string();
    assert!(error.contains("ca_key.pem exists; a CA is never overwritten"), "{error}");
    assert_eq!(fs::read_to_string(&files.ca_key).unwrap(), ca.key_pem());
    fs::remove_file(&files.ca_key).unwrap();
    fs::write(&files.ca_cert, issuer("shop").cert_pem()).unwrap();
    let error = again().unwrap_err().to_string();
    assert!(error.contains("ca_cert.pem exists; a CA is never overwritten"), "{error}");
    assert!(!files.ca_key.exists(), "nothing half-done stays");
    fs::write(&files.ca_cert, ca.cert_pem()).unwrap();
    again().unwrap();

    let out = directory.path().join("ca.backup");
    fs::write(&out, "precious").unwrap();
    let error = contents(&files).save("new".to_owned(), &out, &files.ca_key).unwrap_err().to_string();
    assert!(error.contains("ca.backup exists"), "{error}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
}

#[test]
fn what_is_no_ca_is_neither_backed_up_nor_restored() {
    let (_directory, files, ca) = with_ca();
    let good = contents(&files);
    for (bytes, says) in [
        ("[]".to_owned(), "holds no backup of a CA"),
        (r#"{"format": "x", "version": 1}"#.to_owned(), "holds no backup of a CA"),
        (format!(r#"{{"format": "{FORMAT}", "version": 1}}"#), "holds no backup of a CA"),
        (
            format!(r#"{{"format": "{FORMAT}", "version": 2}}"#),
            "of version 2, and this release reads up to 1",
        ),
    ] {
        let error = Contents::parse(bytes.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let there = files_in(elsewhere.path());
    let mixed = Contents { ca_key: issuer("shop").key_pem(), ..good };
    let error = mixed.restore(&there.ca_cert, &there.ca_key).unwrap_err().to_string();
    assert!(error.contains("does not belong to the CA certificate"), "{error}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    fs::write(&files.ca_key, issuer("shop").key_pem()).unwrap();
    let error = Contents::of(&files.ca_cert, &files.ca_key, now()).unwrap_err().to_string();
    assert!(error.contains("does not belong to the CA certificate"), "{error}");
    fs::remove_file(&files.ca_key).unwrap();
    let error = Contents::of(&files.ca_cert, &files.ca_key, now()).unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
    drop(ca);
}
