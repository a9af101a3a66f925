use super::*;
use crate::identity::{enrolled::complete, trust::Trust};
use p2p_core::ClusterId;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

fn pins(ca: &Ca) -> Vec<RootPin> {
    Trust::new("shop".parse().unwrap(), vec![root(ca)]).unwrap().pins()
}

fn root(ca: &Ca) -> CertificateDer<'static> {
    pem::certificates(ca.cert_pem().as_bytes()).unwrap().remove(0)
}

fn token(ca: &Ca) -> JoinToken {
    JoinToken {
        id: TokenId::new([1; 16]),
        secret: TokenSecret::new([2; 32]),
        pins: pins(ca),
        cluster: "shop".parse().unwrap(),
        coordinators: vec!["127.0.0.1:1".parse().unwrap()],
        role: Role::Worker,
        node: None,
        expires: in_days(1),
    }
}

/// What `ca` makes of a request.
fn certified(ca: &Ca, csr: &[u8], spiffe: &str) -> Vec<u8> {
    ca.certify(&request(spiffe), &proven_key(csr).unwrap()).unwrap().to_vec()
}

fn pending(files: &IdentityFiles) -> PathBuf {
    files.key.with_file_name("node_key.pem.joining")
}

#[test]
fn a_checked_answer_becomes_three_files_that_hold_together() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("shop"));
    let (files, token) = (files_in(directory.path()), token(&ca));
    let first = PendingKey::prepare(&files, &node("n"), &token.pins).unwrap();
    assert_eq!(fs::metadata(pending(&files)).unwrap().permissions().mode() & 0o777, 0o600);
    // A second try shows the same key.
    let key = PendingKey::prepare(&files, &node("n"), &token.pins).unwrap();
    assert_eq!(proven_key(key.csr()), proven_key(first.csr()));

    let stranger = issuer("shop");
    let chain = vec![certified(&ca, key.csr(), "spiffe://shop/worker/n")];
    let answer =
        Enrolled { chain, roots: vec![root(&stranger).to_vec(), root(&ca).to_vec()], ca_chain: vec![] };
    key.install(&files, &token, &node("n"), &answer, now()).unwrap();
    assert!(!pending(&files).exists());
    assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    let identity = Identity::load(&files, &expect("n", false), now()).unwrap();
    assert_eq!(identity.trust().roots(), [root(&ca)], "only what the token pins is trusted");
}

#[test]
fn an_answer_that_is_not_for_us_changes_nothing() {
    let (ca, other) = (issuer("shop"), issuer("shop"));
    let token = token(&ca);
    let stranger = rcgen::KeyPair::generate().unwrap();
    let strangers = rcgen::CertificateParams::default().serialize_request(&stranger).unwrap();
    type Make<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;
    let ours = |spiffe: &'static str| -> Make<'_> { Box::new(|csr| certified(&ca, csr, spiffe)) };
    let cases: [(Make<'_>, &Ca, &str); 7] = [
        (ours("spiffe://shop/worker/n"), &other, "no CA certificate that the join token pins"),
        (ours("spiffe://shop/worker/m"), &ca, "the certificate of spiffe://shop/worker/m, expected"),
        (ours("spiffe://shop/coordinator/n"), &ca, "the certificate of spiffe://shop/coordinator/n"),
        (ours("spiffe://shop/admin/n"), &ca, "the certificate of spiffe://shop/admin/n"),
        (Box::new(|csr| certified(&other, csr, "spiffe://shop/worker/n")), &ca, "issued by another CA"),
        (Box::new(|_| certified(&ca, strangers.der(), "spiffe://shop/worker/n")), &ca, "for another key"),
        (Box::new(|_| vec![1, 2, 3]), &ca, "unusable"),
    ];
    for (make, sent, says) in cases {
        let directory = tempfile::tempdir().unwrap();
        let files = files_in(directory.path());
        let key = PendingKey::prepare(&files, &node("n"), &token.pins).unwrap();
        let answer =
            Enrolled { chain: vec![make(key.csr())], roots: vec![root(sent).to_vec()], ca_chain: vec![] };
        let error = key.install(&files, &token, &node("n"), &answer, now()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "only the waiting key: {says}");
    }
}

#[test]
fn a_join_that_was_cut_off_before_its_last_step_is_completed() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("shop"));
    let (files, token) = (files_in(directory.path()), token(&ca));
    assert!(!complete(&files).unwrap());
    let key = PendingKey::prepare(&files, &node("n"), &token.pins).unwrap();
    assert!(!complete(&files).unwrap(), "there is no certificate yet");
    fs::write(&files.ca_cert, ca.cert_pem()).unwrap();
    let der = certified(&ca, key.csr(), "spiffe://shop/worker/n");
    fs::write(&files.cert, pem::to_text(&der)).unwrap();
    assert!(complete(&files).unwrap());
    assert!(Identity::load(&files, &expect("n", false), now()).is_ok());
    // Another certificate's key is left where it is.
    fs::rename(&files.key, pending(&files)).unwrap();
    fs::write(&files.cert, &ca.issue(&request("spiffe://shop/worker/n")).unwrap().cert_pem).unwrap();
    assert!(!complete(&files).unwrap() && pending(&files).exists());
}

#[test]
fn trusted_certificates_of_another_cluster_are_in_the_way() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("shop"));
    let files = files_in(directory.path());
    fs::write(&files.ca_cert, issuer("shop").cert_pem()).unwrap();
    let error = PendingKey::prepare(&files, &node("n"), &pins(&ca)).unwrap_err().to_string();
    assert!(error.contains("exists and holds no CA that the join token pins"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn only_a_coordinator_below_a_pinned_root_may_be_told_a_secret() {
    let (ca, other) = (issuer("shop"), issuer("shop"));
    let asked = |issuer: &Ca, leaf: &LeafRequest, sent: &[&Ca], cluster: &str| {
        let cluster: ClusterId = cluster.parse().unwrap();
        let verifier = PinnedCoordinator::new(&JoinToken { cluster, ..token(&ca) });
        let leaf = issuer.issue(leaf).unwrap();
        let rest: Vec<_> = sent.iter().map(|ca| root(ca)).collect();
        let name = ServerName::try_from("anything").unwrap();
        let verified = verifier.verify_server_cert(leaf.der(), &rest, &name, &[], now());
        assert_eq!(verified.is_err(), verifier.take_refusal().is_some());
        verified.map(drop).map_err(|error| explain::tls(&error))
    };
    let good = request("spiffe://shop/coordinator/c");
    assert_eq!(asked(&ca, &good, &[&ca], "shop"), Ok(()));
    assert_eq!(asked(&ca, &good, &[&other, &ca], "shop"), Ok(()));
    let old = old_issuer("shop");
    for (result, says) in [
        (asked(&ca, &good, &[], "shop"), "no CA certificate that the join token pins"),
        (asked(&other, &good, &[&other], "shop"), "no CA certificate that the join token pins"),
        (asked(&other, &good, &[&ca], "shop"), "issued by another CA"),
        (
            asked(&ca, &request("spiffe://shop/worker/w"), &[&ca], "shop"),
            "spiffe://shop/worker/w is no coordinator",
        ),
        (asked(&ca, &request("spiffe://shop/admin/a"), &[&ca], "shop"), "may not serve as a node"),
        (asked(&ca, &good, &[&ca], "other"), "belongs to cluster shop"),
    ] {
        let error = result.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let verifier = PinnedCoordinator::new(&JoinToken { pins: pins(&old), ..token(&ca) });
    let leaf = old.issue(&expired("spiffe://shop/coordinator/c")).unwrap();
    let name = ServerName::try_from("anything").unwrap();
    assert!(verifier.verify_server_cert(leaf.der(), &[root(&old)], &name, &[], now()).is_err());
    assert!(verifier.take_refusal().unwrap().to_string().contains("expired on"));
}
