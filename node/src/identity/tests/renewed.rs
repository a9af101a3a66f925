use super::*;
use crate::identity::enrolled::complete;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

fn renewing(files: &IdentityFiles) -> PathBuf {
    files.key.with_file_name("node_key.pem.renewing")
}

/// A node `w` with a certificate of `ca` that is due, and its files.
fn due(directory: &Path, ca: &Ca) -> (IdentityFiles, Identity) {
    let validity = Validity { not_before: in_days(-25), not_after: in_days(5) };
    let issued = ca.issue(&LeafRequest { validity, ..request("spiffe://shop/worker/w") }).unwrap();
    let files = place(directory, &issued, ca.cert_pem());
    let identity = load(&files);
    (files, identity)
}

fn load(files: &IdentityFiles) -> Identity {
    Identity::load(files, &expect("w", false), now()).unwrap()
}

/// What a coordinator makes of a request.
type Answer<'a> = &'a dyn Fn(&RenewalKey) -> Enrolled;

fn answer(ca: &Ca, key: &RenewalKey, request: &LeafRequest) -> Enrolled {
    let certificate = ca.certify(request, &proven_key(key.csr()).unwrap()).unwrap();
    Enrolled { chain: vec![certificate.to_vec()], roots: vec![], ca_chain: vec![] }
}

#[test]
fn a_checked_answer_replaces_certificate_and_key() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), old_issuer("shop"));
    let (files, present) = due(directory.path(), &ca);
    let first = RenewalKey::prepare(&files, &node("w")).unwrap();
    assert_eq!(fs::metadata(renewing(&files)).unwrap().permissions().mode() & 0o777, 0o600);
    // A second try shows the same key.
    let key = RenewalKey::prepare(&files, &node("w")).unwrap();
    assert_eq!(proven_key(key.csr()), proven_key(first.csr()));
    let answer = answer(&ca, &key, &request("spiffe://shop/worker/w"));
    key.install(&files, &present, &answer, None, now()).unwrap();

    let renewed = load(&files);
    assert_eq!(renewed.chain_der()[0].to_vec(), answer.chain[0]);
    assert_ne!(renewed.certificate().public_key, present.certificate().public_key);
    assert!(!renewing(&files).exists());
    assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_answer_that_is_not_ours_changes_no_file() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), old_issuer("shop"));
    let (files, present) = due(directory.path(), &ca);
    let refused = |change: Answer<'_>| {
        let key = RenewalKey::prepare(&files, &node("w")).unwrap();
        let answer = change(&key);
        key.install(&files, &present, &answer, None, now()).unwrap_err().to_string()
    };
    let own = request("spiffe://shop/worker/w");
    let cases: [(&str, Answer<'_>); 6] = [
        ("no certificate was given", &|_| Enrolled { chain: vec![], roots: vec![], ca_chain: vec![] }),
        ("for another key", &|_| Enrolled {
            chain: vec![ca.issue(&own).unwrap().der().to_vec()],
            roots: vec![],
            ca_chain: vec![],
        }),
        ("spiffe://shop/worker/x, expected spiffe://shop/worker/w", &|key| {
            answer(&ca, key, &request("spiffe://shop/worker/x"))
        }),
        ("spiffe://shop/coordinator/w, expected", &|key| {
            answer(&ca, key, &request("spiffe://shop/coordinator/w"))
        }),
        ("was issued by another CA", &|key| answer(&old_issuer("shop"), key, &own)),
        ("no later than the present one", &|key| {
            let validity = Validity { not_before: in_days(-1), not_after: present.certificate().not_after };
            answer(&ca, key, &LeafRequest { validity, ..own.clone() })
        }),
    ];
    for (says, change) in cases {
        let error = refused(change);
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!(load(&files).chain_der(), present.chain_der());
    }
}

#[test]
fn a_renewal_that_was_cut_off_is_completed_at_the_next_start() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), old_issuer("shop"));
    let (files, present) = due(directory.path(), &ca);
    // Cut off before the certificate is there: the old pair is whole, and the key waits for the next try.
    let key = RenewalKey::prepare(&files, &node("w")).unwrap();
    assert!(!complete(&files).unwrap());
    assert_eq!(load(&files).chain_der(), present.chain_der());
    // Cut off between certificate and key.
    let answer = answer(&ca, &key, &request("spiffe://shop/worker/w"));
    fs::write(&files.cert, pem::to_text(&answer.chain[0])).unwrap();
    assert!(Identity::load(&files, &expect("w", false), now()).is_err());
    assert!(complete(&files).unwrap());
    assert_eq!(load(&files).chain_der()[0].to_vec(), answer.chain[0]);
    assert!(!complete(&files).unwrap(), "nothing is left to do");
}

#[test]
fn a_damaged_key_of_an_earlier_try_is_made_anew() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), old_issuer("shop"));
    let (files, _) = due(directory.path(), &ca);
    fs::write(renewing(&files), "junk").unwrap();
    assert!(!complete(&files).unwrap());
    assert!(RenewalKey::prepare(&files, &node("w")).is_ok());
}

#[test]
fn what_ends_soon_is_told_unless_its_renewal_is_not_due() {
    let warnings = |ca_ends: i64, begins: i64, ends: i64| {
        let directory = tempfile::tempdir().unwrap();
        let validity = Validity { not_before: in_days(-900), not_after: in_days(ca_ends) };
        let ca = Ca::generate(&"shop".parse().unwrap(), validity).unwrap();
        let validity = Validity { not_before: in_days(begins), not_after: in_days(ends) };
        let issued = ca.issue(&LeafRequest { validity, ..request("spiffe://shop/worker/w") }).unwrap();
        let texts = load(&place(directory.path(), &issued, ca.cert_pem())).warnings().to_vec();
        texts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(warnings(900, -1, 29), "", "fresh, for thirty days");
    assert_eq!(warnings(900, -10, 20), "", "not due yet");
    assert_eq!(warnings(900, -600, 31), "");
    let late = warnings(900, -600, 29);
    assert!(
        late.starts_with("the certificate of w ends on 20") && late.contains("its renewal is late"),
        "{late}"
    );
    let ca = warnings(29, -10, 20);
    assert!(ca.contains("ca_cert.pem ends on 20") && ca.contains("make a new CA in time"), "{ca}");
}
