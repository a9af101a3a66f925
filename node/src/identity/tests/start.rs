use super::*;
use std::fs;

fn policy(coordinator: bool) -> BootstrapPolicy {
    BootstrapPolicy {
        node_id: node("n-1"),
        cluster_id: None,
        coordinator,
        ssl_verify: true,
        has_join_token: false,
        sans: vec!["10.0.0.7".parse().unwrap()],
    }
}

#[test]
fn a_coordinator_makes_its_ca_and_certificate_once() {
    let directory = tempfile::tempdir().unwrap();
    let files = files_in(&directory.path().join("not/yet/there"));
    let made = ensure(&files, &policy(true), now()).unwrap();
    assert_eq!(made, Created::Certificate { new_ca: true });
    let identity = Identity::load(&files, &expect("n-1", true), now()).unwrap();
    assert_eq!(identity.spiffe().to_string(), "spiffe://p2p-core/coordinator/n-1");
    assert_eq!(identity.warnings(), []);
    assert_eq!(ensure(&files, &policy(true), now()).unwrap(), Created::Nothing);
    let names = inspect(&fs::read(&files.cert).unwrap(), now()).unwrap().remove(0).ip_addresses;
    assert!(names.contains(&"10.0.0.7".parse().unwrap()));
}

#[test]
fn a_coordinator_issues_below_the_ca_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (files, ca) = (files_in(directory.path()), issuer("shop"));
    fs::write(&files.ca_cert, ca.cert_pem()).unwrap();
    let half = ensure(&files, &policy(true), now()).unwrap_err().to_string();
    assert!(half.contains("ca_key.pem does not; put the missing half back"), "{half}");
    fs::write(&files.ca_key, ca.key_pem()).unwrap();

    let other = BootstrapPolicy { cluster_id: Some("other".parse().unwrap()), ..policy(true) };
    let error = ensure(&files, &other, now()).unwrap_err().to_string();
    assert!(error.ends_with("the CA belongs to cluster shop, not to cluster other"), "{error}");
    assert!(!files.cert.exists() && !files.key.exists());

    assert_eq!(ensure(&files, &policy(true), now()).unwrap(), Created::Certificate { new_ca: false });
    assert_eq!(fs::read_to_string(&files.ca_cert).unwrap(), ca.cert_pem());
    let identity = Identity::load(&files, &expect("n-1", true), now()).unwrap();
    assert_eq!(identity.cluster_id().as_str(), "shop");
}

#[test]
fn a_worker_without_certificate_is_told_what_to_run() {
    let directory = tempfile::tempdir().unwrap();
    let files = files_in(directory.path());
    let error = ensure(&files, &policy(false), now()).unwrap_err().to_string();
    assert!(error.starts_with("node n-1 has no certificate: "), "{error}");
    assert!(error.contains("run `p2pctl certs generate --node n-1:worker` and copy n-1_cert.pem"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let joining = BootstrapPolicy { has_join_token: true, ..policy(false) };
    assert_eq!(ensure(&files, &joining, now()).unwrap(), Created::MustEnrol);
}

#[test]
fn with_ssl_verify_off_a_worker_stands_alone() {
    let directory = tempfile::tempdir().unwrap();
    let files = files_in(directory.path());
    let unverified = BootstrapPolicy { ssl_verify: false, ..policy(false) };
    assert_eq!(ensure(&files, &unverified, now()).unwrap(), Created::SelfSigned);
    let expected = Expected { may_stand_alone: true, ..expect("n-1", false) };
    assert!(Identity::load(&files, &expected, now()).unwrap().stands_alone());
    assert_eq!(ensure(&files, &unverified, now()).unwrap(), Created::Nothing);
}

#[test]
fn half_a_pair_is_an_error_and_nothing_is_overwritten() {
    for coordinator in [true, false] {
        for present in ["node_cert.pem", "node_key.pem"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(present), "precious").unwrap();
            let unverified = BootstrapPolicy { ssl_verify: false, ..policy(coordinator) };
            let error = ensure(&files_in(directory.path()), &unverified, now()).unwrap_err();
            assert!(matches!(error, IdentityError::Half { .. }), "{error}");
            assert!(error.to_string().ends_with("move this one away (nothing is overwritten)"));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
            assert_eq!(fs::read_to_string(directory.path().join(present)).unwrap(), "precious");
        }
    }
}
