use super::*;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

fn cluster_request(out: &Path) -> GenerateRequest {
    GenerateRequest {
        out: out.to_owned(),
        cluster_id: Some("shop".parse().unwrap()),
        nodes: vec![(node("c-1"), Role::Coordinator), (node("w-1"), Role::Worker)],
        sans: vec!["10.1.2.3".parse().unwrap(), "Node.Example.org".parse().unwrap()],
        days: 3650,
        self_signed: false,
        force: false,
    }
}

/// Names and contents of everything in a directory.
fn snapshot(out: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(out) else { return Vec::new() };
    let mut all: Vec<_> =
        entries.map(|e| e.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    all.sort();
    all
}

fn info(path: &Path) -> CertificateInfo {
    inspect(&fs::read(path).unwrap(), now()).unwrap().remove(0)
}

/// The error of a request that must change nothing.
fn refused(request: &GenerateRequest) -> String {
    let before = snapshot(&request.out);
    let error = generate(request, now()).unwrap_err().to_string();
    assert_eq!(snapshot(&request.out), before, "a refused request changes nothing");
    error
}

#[test]
fn one_run_makes_a_cluster_whose_certificates_verify() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("certs");
    let written = generate(&cluster_request(&out), now()).unwrap();
    let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let all = "ca_key ca_cert c-1_key c-1_cert w-1_key w-1_cert admin_key admin_cert";
    assert_eq!(names, all.split(' ').map(|name| format!("{name}.pem")).collect::<Vec<_>>());
    assert_eq!(snapshot(&out).len(), names.len(), "no temporary file stays");
    for path in &written {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let key = path.to_str().unwrap().ends_with("_key.pem");
        assert_eq!(mode & if key { 0o777 } else { 0o700 }, 0o600, "{}", path.display());
    }
    let ca = fs::read(out.join("ca_cert.pem")).unwrap();
    for name in ["c-1", "w-1", "admin"] {
        let [cert, key] =
            ["cert", "key"].map(|half| fs::read(out.join(format!("{name}_{half}.pem"))).unwrap());
        verify(&ca, &cert, Some(&key), now()).unwrap();
    }
}

#[test]
fn inspect_tells_what_is_in_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    generate(&cluster_request(out), now()).unwrap();
    let worker = info(&out.join("w-1_cert.pem"));
    assert_eq!(worker.subject, "CN=w-1");
    assert_eq!(worker.issuer, "CN=p2p-core cluster shop CA");
    assert_eq!(worker.spiffe_id.as_deref(), Some("spiffe://shop/worker/w-1"));
    assert_eq!((worker.role, worker.is_ca), (Some("worker"), false));
    assert_eq!(worker.cluster_id, Some("shop".parse().unwrap()));
    for name in ["localhost", "w-1", "node.example.org"] {
        assert!(worker.dns_names.iter().any(|dns| dns == name), "{name} in {:?}", worker.dns_names);
    }
    for ip in ["127.0.0.1", "::1", "10.1.2.3"] {
        assert!(worker.ip_addresses.contains(&ip.parse().unwrap()), "{ip}");
    }
    assert_eq!(worker.grant, None);
    assert!((3648..=3650).contains(&worker.days_left), "{}", worker.days_left);
    assert_eq!(worker.key_algorithm, "ECDSA P-256");
    assert_eq!((worker.serial.len(), worker.sha256.len()), (32, 64));
    assert!(worker.not_after.ends_with('Z') && worker.not_before < worker.not_after);

    let ca = info(&out.join("ca_cert.pem"));
    assert!(ca.is_ca);
    assert_eq!((ca.role, ca.cluster_id.clone()), (None, Some("shop".parse().unwrap())));
    assert_eq!(ca.spiffe_id.as_deref(), Some("spiffe://shop"));
    assert!(serde_json::to_string(&ca).unwrap().contains(r#""cluster_id":"shop""#));

    let admin = info(&out.join("admin_cert.pem"));
    assert_eq!((admin.role, admin.dns_names), (Some("admin"), vec![]));
    assert!(matches!(inspect(b"junk", now()), Err(VerifyError::Pem(pem::NotCertificates::None))));
}

#[test]
fn existing_files_are_listed_and_force_replaces_all_but_the_ca() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = cluster_request(directory.path());
    generate(&request, now()).unwrap();
    let error = refused(&request);
    for name in
        ["c-1_cert.pem", "c-1_key.pem", "w-1_cert.pem", "w-1_key.pem", "admin_cert.pem", "admin_key.pem"]
    {
        assert!(error.contains(name), "{name} in: {error}");
    }
    assert!(error.ends_with("use --force to replace them (a CA is never replaced)"), "{error}");

    let before = snapshot(directory.path());
    request.force = true;
    assert_eq!(generate(&request, now()).unwrap().len(), 6);
    for ((path, old), (_, new)) in before.iter().zip(snapshot(directory.path())) {
        let is_ca = path.file_name().unwrap().to_str().unwrap().starts_with("ca_");
        assert_eq!(*old == new, is_ca, "{}", path.display());
    }
}

#[test]
fn a_node_is_added_beside_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = cluster_request(directory.path());
    generate(&request, now()).unwrap();
    request.nodes = vec![(node("w-2"), Role::Worker)];
    request.cluster_id = None;
    assert_eq!(generate(&request, now()).unwrap().len(), 2);
    let added = info(&directory.path().join("w-2_cert.pem"));
    assert_eq!(added.spiffe_id.as_deref(), Some("spiffe://shop/worker/w-2"), "the CA names the cluster");
    request.nodes = vec![];
    assert!(refused(&request).contains("admin_key.pem"));
}

#[test]
fn an_admin_gets_a_certificate_of_the_cluster_under_a_name_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    let request = AdminRequest { out: out.to_owned(), name: "ann".parse().unwrap(), days: 30, force: false };
    let missing = issue_admin(&request, now()).unwrap_err();
    assert!(matches!(missing, GenerateError::NoCa(_)), "{missing}");
    generate(&cluster_request(out), now()).unwrap();
    let written = issue_admin(&request, now()).unwrap();
    assert_eq!(written, [out.join("ann_key.pem"), out.join("ann_cert.pem")]);
    let ann = info(&out.join("ann_cert.pem"));
    assert!(ann.spiffe_id.is_some_and(|id| id.ends_with("/admin/ann")));

    let before = snapshot(out);
    let again = issue_admin(&request, now()).unwrap_err();
    assert!(matches!(&again, GenerateError::Exists(files) if files.len() == 2), "{again}");
    let reserved = AdminRequest { name: "ca".parse().unwrap(), force: true, ..request.clone() };
    assert!(matches!(issue_admin(&reserved, now()), Err(GenerateError::Reserved(_))));
    assert_eq!(snapshot(out), before);
    issue_admin(&AdminRequest { force: true, ..request }, now()).unwrap();
    assert_ne!(snapshot(out), before);
}

#[test]
fn bad_input_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let good = cluster_request(&directory.path().join("certs"));
    let with = |nodes| refused(&GenerateRequest { nodes, ..good.clone() });
    assert_eq!(
        with(vec![(node("w"), Role::Admin)]),
        "node w cannot have the role admin; use coordinator or worker"
    );
    assert_eq!(with(vec![(node("w"), Role::Worker), (node("w"), Role::Worker)]), "node w is named twice");
    let reserved = "nobody can be called ca: ca_cert.pem is the name of another file";
    assert_eq!(with(vec![(node("ca"), Role::Worker)]), reserved);
    for days in [0, ca::MAX_DAYS + 1] {
        let error = refused(&GenerateRequest { days, ..good.clone() });
        assert_eq!(error, "the validity must be 1 to 36500 days and end before the year 9999");
    }
    assert!(!good.out.exists(), "not even the directory is made");
    fs::write(&good.out, "").unwrap();
    let error = generate(&good, now()).unwrap_err().to_string();
    assert!(error.ends_with("certs is not a directory"), "{error}");
}

#[test]
fn a_ca_that_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let request = cluster_request(directory.path());
    generate(&request, now()).unwrap();
    let more = GenerateRequest { nodes: vec![(node("w-9"), Role::Worker)], ..request };
    let other = GenerateRequest { cluster_id: Some("other".parse().unwrap()), force: true, ..more.clone() };
    assert_eq!(refused(&other), "the CA belongs to cluster shop, not to cluster other");

    let in_20_years = generate(&more, in_days(20 * 365)).unwrap_err().to_string();
    assert!(in_20_years.starts_with("the CA certificate expired on 20"), "{in_20_years}");

    let [cert, key] = ["ca_cert.pem", "ca_key.pem"].map(|name| directory.path().join(name));
    fs::write(&key, issuer("shop").key_pem()).unwrap();
    let mismatch = r#"the CA key does not belong to the CA certificate "CN=p2p-core cluster shop CA""#;
    assert_eq!(refused(&more), mismatch);
    fs::write(&key, "nonsense").unwrap();
    assert!(refused(&more).starts_with("the CA key is not an unencrypted PEM private key"));
    fs::remove_file(&key).unwrap();
    assert!(refused(&more).contains("ca_key.pem does not; put the missing half back"));
    fs::remove_file(&cert).unwrap();
    fs::write(&key, "").unwrap();
    assert!(refused(&more).contains("ca_cert.pem does not; put the missing half back"));
}

#[test]
fn a_leaf_is_no_ca_and_never_outlives_one() {
    let ca = Ca::generate(&"c".parse().unwrap(), Validity::days(now(), 10).unwrap()).unwrap();
    let issued = ca.issue(&request("spiffe://c/worker/w")).unwrap();
    assert_eq!(issued.not_after, ca.not_after());
    assert_eq!(PeerCertificate::parse(issued.der()).unwrap().not_after, ca.not_after());
    let error = Ca::from_pem(&issued.cert_pem, &issued.key_pem).unwrap_err();
    assert_eq!(error.to_string(), r#""CN=w" is not a CA certificate"#);
    let other = ca.issue(&request("spiffe://d/worker/w")).unwrap_err();
    assert_eq!(other.to_string(), "the CA belongs to cluster c, not to cluster d");
}

#[test]
fn issued_certificates_carry_what_rfc_5280_asks() {
    let ca = issuer("c");
    let der = |pem: &str| pem::certificates(pem.as_bytes()).unwrap().remove(0);
    let (ca_der, leaf_der) = (der(ca.cert_pem()), ca.issue(&request("spiffe://c/admin/a")).unwrap());
    let x509 = certificate::parse_x509(&ca_der).unwrap();
    let constraints = x509.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(1));
    assert!(x509.key_usage().unwrap().unwrap().value.key_cert_sign());

    let leaf = certificate::parse_x509(leaf_der.der()).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth, "an admin is no server");
    let text = format!("{:?}", leaf.extensions());
    assert!(text.contains("AuthorityKeyIdentifier") && text.contains("SubjectKeyIdentifier"));
    assert!(!format!("{leaf_der:?}{ca:?}").contains("PRIVATE"), "Debug shows no key");
}

#[test]
fn a_key_made_elsewhere_is_certified() {
    use rcgen::PublicKeyData;
    let (ca, key) = (issuer("c"), rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    let signer = request("spiffe://c/token-signer/c-1");
    let der = ca.certify(&signer, &key.subject_public_key_info()).unwrap();
    assert_eq!(PeerCertificate::parse(&der).unwrap().public_key, key.subject_public_key_info());
    assert!(matches!(ca.certify(&signer, b"junk"), Err(CaError::PublicKey)));
}

#[test]
fn self_signed_certificates_need_no_ca() {
    let directory = tempfile::tempdir().unwrap();
    let request = GenerateRequest { self_signed: true, ..cluster_request(directory.path()) };
    assert_eq!(generate(&request, now()).unwrap().len(), 6);
    assert!(!directory.path().join("ca_cert.pem").exists());
    let worker = fs::read(directory.path().join("w-1_cert.pem")).unwrap();
    let coordinator = fs::read(directory.path().join("c-1_cert.pem")).unwrap();
    verify(&worker, &worker, None, now()).unwrap();
    let error = verify(&coordinator, &worker, None, now()).unwrap_err().to_string();
    assert!(error.contains("was issued by another CA"), "{error}");
}

#[test]
fn names_are_host_names_or_addresses() {
    assert_eq!("::1".parse(), Ok(San::Ip("::1".parse().unwrap())));
    assert_eq!("Web.Example".parse(), Ok(San::Dns("web.example".into())));
    let error = "no spaces".parse::<San>().unwrap_err().to_string();
    assert_eq!(error, r#""no spaces" is neither a host name nor an IP address"#);
}
