//! CAs of coordinators, and who is banned with them.

use super::*;
use crate::identity::{
    authority::{CA_DAYS, issuer_cert_path},
    enrolled::complete,
    trust::Trust,
};
use rcgen::PublicKeyData as _;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

fn root(ca: &Ca) -> CertificateDer<'static> {
    pem::certificates(ca.cert_pem().as_bytes()).unwrap().remove(0)
}

fn trust(roots: &[&Ca]) -> Trust {
    Trust::new("c".parse().unwrap(), roots.iter().map(|ca| root(ca)).collect()).unwrap()
}

/// The own CA of coordinator `name`, below `root`.
fn below(root: &Ca, name: &str) -> Ca {
    let key = rcgen::KeyPair::generate().unwrap();
    let public_key = key.subject_public_key_info();
    let der = root.certify_coordinator(&"c".parse().unwrap(), &node(name), &public_key, now()).unwrap();
    Ca::from_issuer_pem(&pem::to_text(&der), &key.serialize_pem()).unwrap()
}

/// A leaf that the key of a coordinator's CA signs although no `Ca` of ours would.
fn forged(ca: &Ca, spiffe: &str) -> Vec<CertificateDer<'static>> {
    let mut again = Ca::from_issuer_pem(ca.cert_pem(), &ca.key_pem()).unwrap();
    again.coordinator = None;
    chain(&again, spiffe)
}

/// A leaf of `ca` with what goes behind it.
fn chain(ca: &Ca, spiffe: &str) -> Vec<CertificateDer<'static>> {
    pem::certificates(ca.issue(&request(spiffe)).unwrap().cert_pem.as_bytes()).unwrap()
}

/// A root as releases before several coordinators made it.
fn root_of_path_length_0() -> Ca {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.distinguished_name = ca::common_name("old");
    Ca::from_pem(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap()
}

fn names(nodes: &[&str]) -> BTreeSet<NodeId> {
    nodes.iter().map(|name| node(name)).collect()
}

#[test]
fn what_a_coordinators_ca_issues_is_believed_below_the_root() {
    let ca = issuer("c");
    let own = below(&ca, "c-2");
    assert_eq!(own.coordinator(), Some(&node("c-2")));
    assert_eq!(own.subject(), "CN=p2p-core cluster c CA of c-2");
    let days = own.not_after().as_secs().abs_diff(now().as_secs()).div_ceil(DAY);
    assert_eq!(days, u64::from(CA_DAYS));
    for (spiffe, usage) in [
        ("spiffe://c/worker/w", Usage::Client),
        ("spiffe://c/worker/w", Usage::Server),
        ("spiffe://c/coordinator/c-2", Usage::Manifest),
        ("spiffe://c/token-signer/c-2", Usage::TokenSigning),
    ] {
        let chain = chain(&own, spiffe);
        assert_eq!(chain.len(), 2);
        assert_eq!(trust(&[&ca]).verify(&chain, usage, now()).unwrap().spiffe.to_string(), spiffe);
        let alone = trust(&[&ca]).verify(&chain[..1], usage, now());
        assert!(matches!(alone, Err(TrustError::OtherCa { .. })), "{alone:?}");
        let elsewhere = trust(&[&issuer("c")]).verify(&chain, usage, now());
        assert!(matches!(elsewhere, Err(TrustError::OtherCa { .. })), "{elsewhere:?}");
    }
    let short = Ca::generate(&"c".parse().unwrap(), Validity::days(now(), 10).unwrap()).unwrap();
    assert_eq!(below(&short, "c-2").not_after(), short.not_after(), "it does not outlive the root");
}

#[test]
fn nobody_makes_cas_below_a_coordinators_or_below_an_old_root() {
    let ca = issuer("c");
    let own = below(&ca, "c-2");
    let error = own.check_cas_below().unwrap_err().to_string();
    assert!(
        error.starts_with("this is the own CA of coordinator c-2, which vouches for no other"),
        "{error}"
    );
    let error = root_of_path_length_0().check_cas_below().unwrap_err().to_string();
    assert!(error.contains(r#""CN=old" was made with path length 0"#), "{error}");
    assert!(ca.check_cas_below().is_ok());

    // Its key signs one nevertheless.
    let (key, forged) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let own_pair = rcgen::KeyPair::from_pem(&own.key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(own.cert_pem(), own_pair).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = ca::common_name("third");
    let third = params.signed_by(&key, &issuer).unwrap();
    let third_issuer = rcgen::Issuer::from_ca_cert_der(third.der(), key).unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names.push(rcgen::SanType::URI("spiffe://c/worker/w".try_into().unwrap()));
    let leaf = leaf.signed_by(&forged, &third_issuer).unwrap();
    let chain = [leaf.der().to_vec(), third.der().to_vec(), root(&own).to_vec()];
    let result = trust(&[&ca]).verify(&chain, Usage::Manifest, now());
    assert!(result.is_err(), "{result:?}");
}

#[test]
fn a_ca_below_a_root_of_no_cluster_speaks_for_the_cluster_it_names() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let shared = Ca::from_pem(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap();
    let own_key = rcgen::KeyPair::generate().unwrap();
    let public_key = own_key.subject_public_key_info();
    let der = shared.certify_coordinator(&"d".parse().unwrap(), &node("x"), &public_key, now()).unwrap();
    // The key of cluster d's coordinator signs a certificate that says cluster c.
    let issuer = rcgen::Issuer::from_ca_cert_der(&der, own_key).unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names.push(rcgen::SanType::URI("spiffe://c/worker/w".try_into().unwrap()));
    let leaf = leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
    let result = trust(&[&shared]).verify(&[leaf.der(), &der], Usage::Manifest, now());
    assert!(matches!(result, Err(TrustError::OtherCa { .. })), "{result:?}");
}

#[test]
fn a_coordinators_ca_vouches_for_no_admin_and_no_other_coordinator() {
    let ca = issuer("c");
    let own = below(&ca, "c-2");
    for (spiffe, usage) in [
        ("spiffe://c/coordinator/c-1", Usage::Client),
        ("spiffe://c/coordinator/c-1", Usage::Server),
        ("spiffe://c/coordinator/c-1", Usage::Manifest),
        ("spiffe://c/token-signer/c-1", Usage::TokenSigning),
        ("spiffe://c/admin/a", Usage::Client),
        ("spiffe://c/admin/c-2", Usage::Client),
    ] {
        assert!(matches!(own.issue(&request(spiffe)), Err(CaError::NotARoot(_))));
        let error = trust(&[&ca]).verify(&forged(&own, spiffe), usage, now()).unwrap_err();
        assert!(
            matches!(&error, TrustError::OtherCoordinator { coordinator, .. } if *coordinator == node("c-2")),
            "{spiffe}: {error}"
        );
        assert!(trust(&[&ca]).verify(&chain(&ca, spiffe), usage, now()).is_ok(), "a root's may");
    }
}

#[test]
fn a_certificate_falls_with_whoever_issued_those_that_it_replaced() {
    let ca = issuer("c");
    let (three, bans) = (below(&ca, "c-3"), Bans::default());
    let trust = trust(&[&ca]).with_bans(bans.clone());
    let renewed = LeafRequest { vouchers: vec![node("c-2")], ..request("spiffe://c/worker/w") };
    let by_root = pem::certificates(ca.issue(&renewed).unwrap().cert_pem.as_bytes()).unwrap();
    let by_three = pem::certificates(three.issue(&renewed).unwrap().cert_pem.as_bytes()).unwrap();
    assert_eq!(trust.verify(&by_root, Usage::Server, now()).unwrap().vouchers, [node("c-2")]);
    let vouchers = [node("c-2"), node("c-3")];
    assert_eq!(trust.verify(&by_three, Usage::Server, now()).unwrap().vouchers, vouchers);
    bans.set(names(&["c-2"]));
    for chain in [&by_root, &by_three] {
        assert!(matches!(trust.verify(chain, Usage::Server, now()), Err(TrustError::Banned(_))));
        assert_eq!(bans.banned_in(chain), Some(node("c-2")));
    }
    bans.set(names(&["c-3"]));
    assert!(trust.verify(&by_root, Usage::Server, now()).is_ok());
    assert!(matches!(trust.verify(&by_three, Usage::Server, now()), Err(TrustError::Banned(_))));
    let many = (0..33).map(|number| node(&format!("c-{number}"))).collect();
    let refused = ca.issue(&LeafRequest { vouchers: many, ..request("spiffe://c/worker/w") });
    assert!(matches!(refused, Err(CaError::Vouchers(33))));
}

#[test]
fn evicting_a_coordinator_bans_what_it_signed_and_nothing_else() {
    let ca = issuer("c");
    let (two, three, bans) = (below(&ca, "c-2"), below(&ca, "c-3"), Bans::default());
    let trust = trust(&[&ca]).with_bans(bans.clone());
    let by_two = chain(&two, "spiffe://c/worker/w");
    let by_three = chain(&three, "spiffe://c/worker/w");
    let admin_by_two = forged(&two, "spiffe://c/admin/a");
    assert!(trust.verify(&by_two, Usage::Server, now()).is_ok());

    bans.set(names(&["c-2"]));
    for (chain, usage) in [
        (&by_two, Usage::Client),
        (&by_two, Usage::Server),
        (&by_two, Usage::Manifest),
        (&admin_by_two, Usage::Client),
        (&chain(&ca, "spiffe://c/coordinator/c-2"), Usage::Server),
        (&chain(&ca, "spiffe://c/token-signer/c-2"), Usage::TokenSigning),
        (&forged(&two, "spiffe://c/token-signer/other"), Usage::TokenSigning),
    ] {
        let error = trust.verify(chain, usage, now()).unwrap_err();
        assert!(matches!(&error, TrustError::Banned(who) if *who == node("c-2")), "{usage:?}: {error}");
        assert_eq!(bans.banned_in(chain), Some(node("c-2")));
    }
    // With another coordinator's CA beside it, the path that counts is the one that was used.
    let both = [by_two[0].clone(), root(&three), root(&two)];
    assert!(matches!(trust.verify(&both, Usage::Server, now()), Err(TrustError::Banned(_))));
    for chain in [&by_three, &chain(&ca, "spiffe://c/worker/w"), &chain(&ca, "spiffe://c/admin/c-2")] {
        assert!(trust.verify(chain, Usage::Client, now()).is_ok());
        assert_eq!(bans.banned_in(chain), None);
    }

    bans.set(names(&["w"]));
    assert!(matches!(trust.verify(&by_three, Usage::Manifest, now()), Err(TrustError::Banned(_))));
    bans.set(BTreeSet::new());
    assert!(trust.verify(&by_two, Usage::Server, now()).is_ok(), "readmitted");
}

#[test]
fn bans_survive_a_reload_of_certificates() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("c"));
    let files = place(directory.path(), &ca.issue(&request("spiffe://c/worker/w")).unwrap(), ca.cert_pem());
    let store = IdentityStore::load(files, expect("w", false), now()).unwrap();
    store.bans().set(names(&["x", "w"]));
    place(directory.path(), &ca.issue(&request("spiffe://c/worker/w")).unwrap(), ca.cert_pem());
    assert_eq!(store.reload(now()).unwrap(), Reloaded::Replaced, "a node may hold what peers refuse");
    let other = chain(&ca, "spiffe://c/worker/x");
    let error = store.current().trust().verify(&other, Usage::Client, now()).unwrap_err().to_string();
    assert!(error.starts_with("x was evicted from the cluster"), "{error}");
}

#[test]
fn the_ca_is_found_by_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("ca_cert.pem"), directory.path().join("ca_key.pem"));
    let (old, new) = (issuer("c"), issuer("c"));
    fs::write(&cert, format!("{}{}", old.cert_pem(), new.cert_pem())).unwrap();
    fs::write(&key, new.key_pem()).unwrap();
    let loaded = Ca::load(&cert, &key).unwrap();
    assert_eq!((loaded.cert_pem(), loaded.chain().len()), (new.cert_pem(), 0));

    let own = below(&old, "c-2");
    assert_eq!(issuer_cert_path(&key), directory.path().join("ca_issuer_cert.pem"));
    fs::write(issuer_cert_path(&key), own.cert_pem()).unwrap();
    assert!(matches!(Ca::load(&cert, &key), Err(CaError::KeyMismatch(_))));
    fs::write(&key, own.key_pem()).unwrap();
    let loaded = Ca::load(&cert, &key).unwrap();
    assert_eq!((loaded.coordinator(), loaded.chain()), (Some(&node("c-2")), [root(&own)].as_slice()));
    // Whoever issues with it by hand gets the whole chain, too.
    let leaf = loaded.issue(&request("spiffe://c/worker/w")).unwrap();
    assert!(verify(old.cert_pem().as_bytes(), leaf.cert_pem.as_bytes(), None, now()).is_ok());
}

#[test]
fn a_join_token_pins_the_root_above_a_coordinators_ca() {
    let ca = issuer("c");
    let own = below(&ca, "c-2");
    let token = |pins: Vec<RootPin>| JoinToken {
        id: TokenId::new([1; 16]),
        secret: TokenSecret::new([2; 32]),
        pins,
        cluster: "c".parse().unwrap(),
        coordinators: vec!["127.0.0.1:1".parse().unwrap()],
        role: Role::Worker,
        node: None,
        expires: in_days(1),
    };
    let name = ServerName::try_from("anything").unwrap();
    let coordinator = chain(&own, "spiffe://c/coordinator/c-2");
    let verifier = PinnedCoordinator::new(&token(trust(&[&ca]).pins()));
    let sent = [coordinator[1].clone(), root(&ca)];
    verifier.verify_server_cert(&coordinator[0], &sent, &name, &[], now()).unwrap();
    assert!(verifier.verify_server_cert(&coordinator[0], &sent[..1], &name, &[], now()).is_err());
    let worker = chain(&own, "spiffe://c/worker/w");
    assert!(verifier.verify_server_cert(&worker[0], &sent, &name, &[], now()).is_err());

    // The node sends what a token needs.
    let directory = tempfile::tempdir().unwrap();
    let issued = own.issue(&request("spiffe://c/coordinator/c-2")).unwrap();
    let identity =
        Identity::load(&place(directory.path(), &issued, ca.cert_pem()), &expect("c-2", true), now());
    let identity = identity.unwrap();
    assert_eq!(identity.chain_der().len(), 2);
    assert_eq!(identity.trust().root_of(identity.chain_der(), now()), Some(&root(&ca)));
}

/// What a joining coordinator `c-2` has, and the token for it.
fn joining(ca: &Ca, directory: &Path) -> (IdentityFiles, JoinToken) {
    let token = JoinToken {
        id: TokenId::new([1; 16]),
        secret: TokenSecret::new([2; 32]),
        pins: trust(&[ca]).pins(),
        cluster: "c".parse().unwrap(),
        coordinators: vec!["127.0.0.1:1".parse().unwrap()],
        role: Role::Coordinator,
        node: None,
        expires: in_days(1),
    };
    (files_in(directory), token)
}

fn prepared(files: &IdentityFiles, token: &JoinToken) -> PendingKey {
    let key = PendingKey::prepare(files, &node("c-2"), &token.pins).unwrap();
    key.with_ca(PendingCa::prepare(files, &node("c-2")).unwrap())
}

fn answered(ca: &Ca, key: &PendingKey, ca_of: &str, ca_key: &[u8]) -> Enrolled {
    let leaf = ca.certify(&request("spiffe://c/coordinator/c-2"), &proven_key(key.csr()).unwrap()).unwrap();
    let own = ca.certify_coordinator(&"c".parse().unwrap(), &node(ca_of), ca_key, now()).unwrap();
    Enrolled { chain: vec![leaf.to_vec()], roots: vec![root(ca).to_vec()], ca_chain: vec![own.to_vec()] }
}

#[test]
fn a_joining_coordinator_gets_a_ca_whose_key_never_left_it() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("c"));
    let (files, token) = joining(&ca, directory.path());
    let key = prepared(&files, &token);
    let again = prepared(&files, &token);
    assert_eq!(proven_key(key.ca_csr()), proven_key(again.ca_csr()), "a second try shows the same key");
    let answer = answered(&ca, &key, "c-2", &proven_key(key.ca_csr()).unwrap());
    key.install(&files, &token, &node("c-2"), &answer, now()).unwrap();
    assert_eq!(fs::metadata(&files.ca_key).unwrap().permissions().mode() & 0o777, 0o600);
    let own = Ca::load(&files.ca_cert, &files.ca_key).unwrap();
    assert_eq!(own.coordinator(), Some(&node("c-2")));
    let identity = Identity::load(&files, &expect("c-2", true), now()).unwrap();
    let leaf = chain(&own, "spiffe://c/worker/w");
    assert!(identity.trust().verify(&leaf, Usage::Server, now()).is_ok());
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");

    // With a CA key in force it joins no more.
    fs::remove_file(&files.cert).unwrap();
    let error = PendingCa::prepare(&files, &node("c-2")).unwrap_err().to_string();
    assert!(error.contains("ca_key.pem (ssl_ca_key_file) exists"), "{error}");
}

#[test]
fn a_ca_that_is_not_this_coordinators_changes_nothing() {
    let (ca, stranger) = (issuer("c"), issuer("c"));
    let other_key = rcgen::KeyPair::generate().unwrap().subject_public_key_info();
    type Damage<'a> = Box<dyn Fn(&PendingKey) -> Vec<Vec<u8>> + 'a>;
    let own = |key: &PendingKey| proven_key(key.ca_csr()).unwrap();
    let cases: [(Damage<'_>, &str); 5] = [
        (Box::new(|_| vec![]), "holds no CA certificate for this node"),
        (Box::new(|_| vec![vec![1, 2, 3]]), "unusable"),
        (Box::new(|key| answered(&ca, key, "c-3", &own(key)).ca_chain), "not one of coordinator c-2"),
        (
            Box::new(|key| answered(&ca, key, "c-2", &other_key).ca_chain),
            "does not belong to the CA certificate",
        ),
        (Box::new(|key| answered(&stranger, key, "c-2", &own(key)).ca_chain), "issued by another CA"),
    ];
    for (damage, says) in cases {
        let directory = tempfile::tempdir().unwrap();
        let (files, token) = joining(&ca, directory.path());
        let key = prepared(&files, &token);
        let good = answered(&ca, &key, "c-2", &own(&key));
        let answer = Enrolled { ca_chain: damage(&key), ..good };
        let error = key.install(&files, &token, &node("c-2"), &answer, now()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "only the waiting keys: {says}");
    }
}

#[test]
fn a_coordinators_join_that_was_cut_off_is_completed() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), issuer("c"));
    let (files, token) = joining(&ca, directory.path());
    let key = prepared(&files, &token);
    let answer = answered(&ca, &key, "c-2", &proven_key(key.ca_csr()).unwrap());
    fs::write(&files.ca_cert, ca.cert_pem()).unwrap();
    fs::write(files.issuer_cert(), pem::to_text(&answer.ca_chain[0])).unwrap();
    assert!(complete(&files).unwrap(), "the CA's key is put in its place");
    assert!(files.ca_key.exists() && !files.key.exists());
    fs::write(&files.cert, pem::to_text(&answer.chain[0])).unwrap();
    assert!(complete(&files).unwrap(), "and the node's");
    assert!(Identity::load(&files, &expect("c-2", true), now()).is_ok());
    assert!(!complete(&files).unwrap());
}
