use super::*;
use std::{fs, os::unix::fs::PermissionsExt};

/// Places `leaf` below `ca` and loads it as worker `w`.
fn load(
    ca: &Ca,
    leaf: &LeafRequest,
    change: impl FnOnce(&IdentityFiles, &mut Expected),
) -> Result<Identity, String> {
    let directory = tempfile::tempdir().unwrap();
    let files = place(directory.path(), &ca.issue(leaf).unwrap(), ca.cert_pem());
    let mut expected = expect("w", false);
    change(&files, &mut expected);
    let in_directory = format!("{}/", directory.path().display());
    Identity::load(&files, &expected, now()).map_err(|error| error.to_string().replace(&in_directory, ""))
}

fn refused(ca: &Ca, spiffe: &str, change: impl FnOnce(&IdentityFiles, &mut Expected)) -> String {
    load(ca, &request(spiffe), change).unwrap_err()
}

#[test]
fn a_good_identity_loads_without_warnings() {
    let identity = load(&issuer("c"), &request("spiffe://c/worker/w"), |_, _| {}).unwrap();
    assert_eq!(identity.spiffe().to_string(), "spiffe://c/worker/w");
    assert_eq!(identity.cluster_id().as_str(), "c");
    assert_eq!(identity.trust().cluster_id(), identity.cluster_id());
    assert!(identity.not_after() > in_days(29));
    assert_eq!(identity.warnings(), []);
    assert!(!identity.stands_alone());
    let shown = format!("{identity:?}");
    assert!(shown.starts_with("Identity { spiffe: spiffe://c/worker/w, not_after: \"20"), "{shown}");
}

#[test]
fn the_certificate_must_be_the_configured_nodes() {
    let ca = issuer("c");
    let other = refused(&ca, "spiffe://c/worker/x", |_, _| {});
    assert_eq!(other, "the certificate in node_cert.pem is spiffe://c/worker/x's, but node_id is w");
    let cluster = refused(&ca, "spiffe://c/worker/w", |_, e| e.cluster_id = Some("d".parse().unwrap()));
    assert_eq!(
        cluster,
        "the certificate in node_cert.pem belongs to cluster c, but this node's cluster is d"
    );
    let role = refused(&ca, "spiffe://c/worker/w", |_, e| e.coordinator = true);
    let expected =
        "the certificate in node_cert.pem grants the role worker, but coordinator_mode asks for coordinator";
    assert_eq!(role, expected);
    let admin = refused(&ca, "spiffe://c/admin/w", |_, _| {});
    assert!(admin.ends_with("grants the role admin, but coordinator_mode asks for worker"), "{admin}");
}

#[test]
fn missing_files_are_named_with_their_key_and_what_to_run() {
    let ca = issuer("c");
    let missing = |change: fn(&IdentityFiles)| refused(&ca, "spiffe://c/worker/w", |files, _| change(files));
    let cert = missing(|files| fs::remove_file(&files.cert).unwrap());
    let expected = "ssl_cert_file names node_cert.pem, which does not exist; run `p2pctl certs generate`";
    assert!(cert.starts_with(expected), "{cert}");
    let key = missing(|files| fs::remove_file(&files.key).unwrap());
    assert!(key.starts_with("ssl_key_file names node_key.pem, which does not exist; run"), "{key}");
    let roots = missing(|files| fs::remove_file(&files.ca_cert).unwrap());
    let expected = "ssl_ca_cert_file names ca_cert.pem, which does not exist; copy ca_cert.pem here";
    assert!(roots.starts_with(expected), "{roots}");
}

#[test]
fn unusable_files_are_named() {
    let ca = issuer("c");
    let with = |change: fn(&IdentityFiles)| refused(&ca, "spiffe://c/worker/w", |files, _| change(files));
    let junk = with(|files| fs::write(&files.cert, "junk").unwrap());
    assert_eq!(junk, "ssl_cert_file: node_cert.pem: it holds no PEM certificate");
    let key = with(|files| fs::write(&files.key, "junk").unwrap());
    assert_eq!(key, "ssl_key_file node_key.pem: it holds no unencrypted PEM private key");
    let mismatch = with(|files| fs::write(&files.key, issuer("c").key_pem()).unwrap());
    let expected =
        "the key in node_key.pem does not belong to the certificate in node_cert.pem; copy both files";
    assert!(mismatch.starts_with(expected), "{mismatch}");
    let long = with(|files| fs::write(&files.cert, vec![b'x'; pem::MAX_FILE_LEN as usize + 1]).unwrap());
    assert_eq!(long, "ssl_cert_file: node_cert.pem is longer than 1048576 bytes");
    let many = with(|files| {
        let root = fs::read_to_string(&files.ca_cert).unwrap();
        fs::write(&files.ca_cert, root.repeat(pem::MAX_CERTIFICATES + 1)).unwrap();
    });
    assert_eq!(many, "ssl_ca_cert_file: ca_cert.pem: it holds more than 64 certificates");
    let other = with(|files| fs::write(&files.ca_cert, issuer("c").cert_pem()).unwrap());
    let expected = "the certificate in node_cert.pem is not accepted by ssl_ca_cert_file ca_cert.pem: ";
    assert!(other.starts_with(expected) && other.contains("was issued by another CA"), "{other}");
}

#[test]
fn an_expired_certificate_says_how_to_renew() {
    let ca = old_issuer("c");
    let error = load(&ca, &expired("spiffe://c/worker/w"), |_, _| {}).unwrap_err();
    assert!(error.starts_with("the certificate in node_cert.pem expired on 20"), "{error}");
    assert!(error.contains("run `p2pctl certs generate --node w:worker --force`"), "{error}");
}

#[test]
fn a_key_that_others_can_read_is_a_warning() {
    let identity = load(&issuer("c"), &request("spiffe://c/worker/w"), |files, _| {
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    });
    let [warning] = identity.unwrap().warnings().to_vec().try_into().unwrap();
    let text = warning.to_string();
    assert!(text.contains("can be read by others (mode 644); run chmod 600"), "{text}");
}

#[test]
fn a_self_signed_certificate_needs_to_be_listed_or_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let issued = self_signed(&request("spiffe://c/worker/w")).unwrap();
    let files = place(directory.path(), &issued, issuer("c").cert_pem());
    let error = Identity::load(&files, &expect("w", false), now()).unwrap_err().to_string();
    assert!(error.contains("is self-signed and not listed in ssl_ca_cert_file"), "{error}");

    fs::write(&files.ca_cert, &issued.cert_pem).unwrap();
    assert!(!Identity::load(&files, &expect("w", false), now()).unwrap().stands_alone());

    fs::remove_file(&files.ca_cert).unwrap();
    let allowed = Expected { may_stand_alone: true, ..expect("w", false) };
    let identity = Identity::load(&files, &allowed, now()).unwrap();
    assert!(identity.stands_alone());
    assert_eq!(identity.warnings(), [Warning::StandsAlone(node("w"))]);
}

#[test]
fn a_reload_is_all_or_nothing() {
    let (ca, directory) = (issuer("c"), tempfile::tempdir().unwrap());
    let files = place(directory.path(), &ca.issue(&request("spiffe://c/worker/w")).unwrap(), ca.cert_pem());
    let store = IdentityStore::load(files.clone(), expect("w", false), now()).unwrap();
    let before = store.current();

    fs::write(&files.cert, ca.issue(&request("spiffe://c/worker/w")).unwrap().cert_pem).unwrap();
    assert!(matches!(store.reload(now()), Err(IdentityError::KeyMismatch { .. })));
    let other = issuer("d");
    place(directory.path(), &other.issue(&request("spiffe://d/worker/w")).unwrap(), other.cert_pem());
    let error = store.reload(now()).unwrap_err().to_string();
    assert!(error.ends_with("belongs to cluster d, but this node's cluster is c"), "{error}");
    assert_eq!(store.current().chain_der(), before.chain_der());
}
