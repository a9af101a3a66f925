use super::*;
use rustls_pki_types::CertificateDer;

fn roots(ca: &Ca) -> Vec<CertificateDer<'static>> {
    pem::certificates(ca.cert_pem().as_bytes()).unwrap()
}

fn trust(cluster: &str, ca: &Ca) -> Trust {
    Trust::new(cluster.parse().unwrap(), roots(ca)).unwrap()
}

fn refused(ca: &Ca, issued: &Issued, key: Option<&[u8]>) -> String {
    verify(ca.cert_pem().as_bytes(), issued.cert_pem.as_bytes(), key, now()).unwrap_err().to_string()
}

#[test]
fn verify_says_what_is_wrong() {
    let (ca, worker) = (old_issuer("c"), "spiffe://c/worker/w");
    let late = refused(&ca, &ca.issue(&expired(worker)).unwrap(), None);
    let yesterday = instant::rfc3339(in_days(-1));
    assert!(
        late.starts_with(&format!("the certificate of {worker} expired on {}", &yesterday[..10])),
        "{late}"
    );

    let validity = Validity { not_before: in_days(2), not_after: in_days(9) };
    let early = refused(&ca, &ca.issue(&LeafRequest { validity, ..request(worker) }).unwrap(), None);
    assert!(early.starts_with(&format!("the certificate of {worker} is not valid until 20")), "{early}");
    assert!(early.ends_with("; check both clocks"), "{early}");

    let own = ca.issue(&request(worker)).unwrap();
    let key = refused(&ca, &own, Some(ca.key_pem().as_bytes()));
    assert_eq!(key, format!("the key does not belong to the certificate of {worker}"));
    assert!(refused(&ca, &own, Some(b"junk")).contains("no unencrypted PEM private key"));

    let as_leaf = verify(ca.cert_pem().as_bytes(), ca.cert_pem().as_bytes(), None, now()).unwrap_err();
    assert!(as_leaf.to_string().starts_with(r#""CN=p2p-core cluster c CA" is a CA certificate"#));
    let junk = verify(b"junk", own.cert_pem.as_bytes(), None, now()).unwrap_err().to_string();
    assert_eq!(junk, "the CA file is unusable: it holds no PEM certificate");
}

#[test]
fn verify_names_both_cas_even_when_they_share_a_name() {
    let (old, new) = (issuer("c"), issuer("c"));
    let issued = old.issue(&request("spiffe://c/worker/w")).unwrap();
    let error = refused(&new, &issued, None);
    let name = r#""CN=p2p-core cluster c CA" (key "#;
    assert_eq!(error.matches(name).count(), 2, "{error}");
    let keys: Vec<&str> = error.split("(key ").skip(1).map(|rest| &rest[..8]).collect();
    assert_ne!(keys[0], keys[1]);

    let other = refused(&issuer("d"), &issued, None);
    assert_eq!(other, "spiffe://c/worker/w belongs to cluster c, not to cluster d");
}

#[test]
fn every_role_verifies_for_its_own_use_only() {
    let ca = issuer("c");
    let trust = trust("c", &ca);
    use Usage::{Client, Manifest, Server, TokenSigning};
    for (spiffe, allowed) in [
        ("spiffe://c/coordinator/n", vec![Client, Server, Manifest]),
        ("spiffe://c/worker/n", vec![Client, Server, Manifest]),
        ("spiffe://c/admin/n", vec![Client]),
        ("spiffe://c/token-signer/n", vec![TokenSigning]),
    ] {
        let issued = ca.issue(&request(spiffe)).unwrap();
        verify(ca.cert_pem().as_bytes(), issued.cert_pem.as_bytes(), None, now()).unwrap();
        for usage in [Client, Server, Manifest, TokenSigning] {
            let result = trust.verify(&[issued.der()], usage, now());
            assert_eq!(result.is_ok(), allowed.contains(&usage), "{spiffe} {usage:?}: {result:?}");
        }
    }
    let signer = ca.issue(&request("spiffe://c/token-signer/n")).unwrap();
    let error = trust.verify(&[signer.der()], Client, now()).unwrap_err().to_string();
    let why =
        "the certificate of spiffe://c/token-signer/n may not connect as a client: its role is token-signer";
    assert_eq!(error, why);
}

#[test]
fn a_signed_message_is_its_owners_and_unchanged() {
    let ca = issuer("c");
    let node = identity(&ca, "spiffe://c/worker/w");
    let trust = trust("c", &ca);
    let signature = node.sign(b"manifest");
    let peer = trust.verify_signed(node.chain_der(), b"manifest", &signature, now()).unwrap();
    assert_eq!(&peer, node.certificate());

    let changed = trust.verify_signed(node.chain_der(), b"Manifest", &signature, now()).unwrap_err();
    assert_eq!(changed.to_string(), "the signature is not by the key of spiffe://c/worker/w");
    let other = identity(&ca, "spiffe://c/worker/x");
    let stolen = trust.verify_signed(other.chain_der(), b"manifest", &signature, now());
    assert!(matches!(stolen, Err(TrustError::Signature(_))));
    let none: [&[u8]; 0] = [];
    assert!(matches!(trust.verify_signed(&none, b"", b"", now()), Err(TrustError::NoCertificate)));
    let long = vec![node.chain_der()[0].clone(); crate::identity::trust::MAX_CHAIN + 1];
    assert!(matches!(trust.verify_signed(&long, b"", b"", now()), Err(TrustError::LongChain(5))));
    let oversized = [node.chain_der()[0].to_vec(), vec![0; certificate::MAX_CERTIFICATE_LEN + 1]];
    assert!(matches!(trust.verify_signed(&oversized, b"", b"", now()), Err(TrustError::Certificate(_))));
}

#[test]
fn an_expired_owner_is_told_apart_from_a_forger() {
    let ca = issuer("c");
    let node = identity(&ca, "spiffe://c/worker/w");
    let (trust, later) = (trust("c", &ca), in_days(60));
    let signature = node.sign(b"manifest");
    match trust.verify_signed(node.chain_der(), b"manifest", &signature, later) {
        Err(TrustError::Expired(owner)) => assert_eq!(&*owner, node.certificate()),
        other => panic!("{other:?}"),
    }
    let forged = trust.verify_signed(node.chain_der(), b"another", &signature, later);
    assert!(matches!(forged, Err(TrustError::Signature(_))));
    let foreign = identity(&issuer("c"), "spiffe://c/worker/w");
    let signature = foreign.sign(b"manifest");
    let unknown = trust.verify_signed(foreign.chain_der(), b"manifest", &signature, later);
    assert!(matches!(unknown, Err(TrustError::OtherCa { .. })));
}

#[test]
fn a_listed_stand_alone_certificate_vouches_for_itself_only() {
    let issued = self_signed(&request("spiffe://c/worker/w")).unwrap();
    let listed = Trust::new("c".parse().unwrap(), vec![issued.der().clone()]).unwrap();
    listed.verify(&[issued.der()], Usage::Server, now()).unwrap();

    // Its key signs a certificate that says "coordinator".
    let key = rcgen::KeyPair::from_pem(&issued.key_pem).unwrap();
    let own = rcgen::Issuer::from_ca_cert_der(issued.der(), key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let uri = "spiffe://c/coordinator/king".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let forged = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &own).unwrap();
    let alone = listed.verify(&[forged.der()], Usage::Server, now());
    assert!(matches!(alone, Err(TrustError::OtherCa { .. })), "{alone:?}");
    let chain = [forged.der(), issued.der()];
    assert!(listed.verify(&chain, Usage::Server, now()).is_err());

    // Nor does a node's certificate below a CA issue others.
    let ca = issuer("c");
    let node = ca.issue(&request("spiffe://c/worker/w")).unwrap();
    let key = rcgen::KeyPair::from_pem(&node.key_pem).unwrap();
    let own = rcgen::Issuer::from_ca_cert_der(node.der(), key).unwrap();
    let forged = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &own).unwrap();
    let chained = trust("c", &ca).verify(&[forged.der(), node.der()], Usage::Server, now());
    assert!(chained.is_err(), "{chained:?}");
}

#[test]
fn a_ca_vouches_for_no_cluster_but_its_own() {
    // The key of cluster d's CA signs a certificate that says cluster c.
    let (c, d) = (issuer("c"), issuer("d"));
    let key = rcgen::KeyPair::from_pem(&d.key_pem()).unwrap();
    let stolen = rcgen::Issuer::from_ca_cert_pem(d.cert_pem(), key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://c/worker/w".try_into().unwrap()));
    let forged = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &stolen).unwrap();
    let both = Trust::new("c".parse().unwrap(), [roots(&c), roots(&d)].concat()).unwrap();
    let result = both.verify(&[forged.der()], Usage::Client, now());
    assert!(matches!(result, Err(TrustError::OtherCa { .. })), "{result:?}");
}

#[test]
fn roots_are_bounded_and_must_parse() {
    let root = roots(&issuer("c")).remove(0);
    let many =
        Trust::new("c".parse().unwrap(), vec![root; crate::identity::trust::MAX_ROOTS + 1]).unwrap_err();
    assert_eq!(many.to_string(), "65 trusted certificates, at most 64 are allowed");
    let junk = Trust::new("c".parse().unwrap(), vec![CertificateDer::from(vec![1, 2, 3])]).unwrap_err();
    assert!(junk.to_string().starts_with("trusted certificate 1 is unusable"), "{junk}");
}
