//! `p2pctl token` and `--token` against a local cluster, through a worker.

mod support;

use support::{Dev, p2pctl, text};

#[test]
fn a_token_is_issued_through_a_worker_inspected_and_shown() {
    let dev = Dev::start();
    let scope = "p2p.v1.ClusterService/ListNodes";
    let issued = dev.at_worker(true, &["token", "issue", "--subject", "viewer", "--scope", scope]);
    let (token, notes) = (text(&issued.stdout), text(&issued.stderr));
    assert!(issued.status.success(), "{notes}");
    assert!(token.ends_with('\n') && token.trim().split('.').count() == 3, "only the token: {token:?}");
    let coordinator = format!("asking 127.0.0.1:{}", dev.port);
    assert!(notes.contains("is no coordinator") && notes.contains(&coordinator), "{notes}");
    assert!(notes.contains("viewer can call p2p.v1.ClusterService/ListNodes with it"), "{notes}");
    let token = token.trim();

    let nodes = dev.at_worker(false, &["--token", token, "cluster", "nodes", "-o", "json"]);
    assert!(nodes.status.success(), "{}", text(&nodes.stderr));
    assert!(text(&nodes.stdout).contains("worker-1"));
    let denied = dev.at_worker(false, &["--token", token, "cluster", "status"]);
    assert_eq!(denied.status.code(), Some(4));
    let denied = text(&denied.stderr);
    assert!(
        denied.contains("this token's scope does not include p2p.v1.ClusterService/GetStatus"),
        "{denied}"
    );
    assert!(denied.contains("`p2pctl token inspect` shows what your token says"), "{denied}");

    let inspected = dev.at_worker(true, &["token", "inspect", token, "-o", "json"]);
    assert!(inspected.status.success(), "{}", text(&inspected.stderr));
    let inspected = text(&inspected.stdout);
    for part in [
        r#""schema": "p2pctl/v1""#,
        r#""kind": "AccessTokenInspection""#,
        r#""sub": "viewer""#,
        r#""alg": "EdDSA""#,
        r#""accepted": true"#,
    ] {
        assert!(inspected.contains(part), "{part} in {inspected}");
    }
    assert!(!inspected.contains(token), "the token itself is not repeated");

    // With another first letter the signature is another one.
    let (signed, signature) = token.rsplit_once('.').expect("dots");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{first}{}", &signature[1..]);
    let refused = dev.at_worker(true, &["token", "inspect", &forged]);
    assert_eq!(refused.status.code(), Some(4));
    let refused = text(&refused.stdout);
    assert!(
        refused.contains("refuses it: the signature is not by the key that the token names"),
        "{refused}"
    );

    let listed = dev.at_worker(true, &["cluster", "join-token", "list", "-o", "json"]);
    assert!(
        listed.status.success() && text(&listed.stderr).contains(&coordinator),
        "{}",
        text(&listed.stderr)
    );
}

#[test]
fn a_token_is_inspected_without_any_node() {
    let directory = tempfile::tempdir().expect("a directory");
    // {"alg":"EdDSA"}.{"sub":"ci","exp":1}.x
    let token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjaSIsImV4cCI6MX0.x";
    let output = p2pctl(directory.path()).args(["token", "inspect", token]).output().expect("ran");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("header.alg  EdDSA"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("No node was asked"), "{}", text(&output.stderr));
    let none = p2pctl(directory.path()).args(["token", "inspect", "no token"]).output().expect("ran");
    assert_eq!(none.status.code(), Some(2));
}
