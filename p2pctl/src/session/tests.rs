use super::*;
use crate::{cli::Cli, error::Exit};
use clap::Parser as _;
use std::time::Duration;
use tonic::{Code, Status};

fn global(flags: &[&str]) -> GlobalOptions {
    let words = ["p2pctl", "health"].into_iter().chain(flags.iter().copied());
    Cli::try_parse_from(words).expect("flags parse").global
}

fn failure_of(flags: &[&str], code: Code, message: &str) -> Failure {
    let global = global(flags);
    let error = CallError::new(Status::new(code, message), &global.endpoint, Duration::from_secs(1));
    Session::new(&global).call_failure(&error)
}

#[test]
fn a_status_of_the_node_becomes_its_exit_code() {
    for (code, exit) in [
        (Code::NotFound, Exit::NotFound),
        (Code::Unimplemented, Exit::NotFound),
        (Code::Unauthenticated, Exit::Denied),
        (Code::PermissionDenied, Exit::Denied),
        (Code::Unavailable, Exit::Unreachable),
        (Code::DeadlineExceeded, Exit::TimedOut),
        (Code::ResourceExhausted, Exit::Failure),
        (Code::Internal, Exit::Failure),
    ] {
        assert_eq!(failure_of(&[], code, "why").exit, exit, "{code:?}");
    }
    assert_eq!(failure_of(&[], Code::ResourceExhausted, "slow down").code, "resource_exhausted");
}

#[test]
fn the_anonymous_are_told_which_flags_to_pass() {
    let failure = failure_of(&[], Code::Unauthenticated, "who are you");
    assert!(
        failure.message.starts_with("who are you. Pass --cert FILE --key FILE of an admin"),
        "{failure:?}"
    );
}

#[test]
fn a_certificate_is_looked_at_only_where_another_would_help() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let told = |metadata: &[(&str, &str)]| {
        let facts = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let details = ErrorDetails::with_error_info(
            "PERMISSION_DENIED",
            "p2p.v1",
            facts.collect::<std::collections::HashMap<_, _>>(),
        );
        let status = Status::with_error_details(Code::PermissionDenied, "no", details);
        let global = global(&["--cert", "x.pem", "--key", "x.key"]);
        let error = CallError::new(status, &global.endpoint, Duration::from_secs(1));
        Session::new(&global).call_failure(&error).message
    };
    assert!(told(&[("principal", "spiffe://c/worker/w")]).contains("p2pctl certs inspect"));
    assert_eq!(told(&[]), "no");
}

#[test]
fn an_unreachable_node_is_named_with_the_way_on() {
    let global = global(&["--endpoint", "10.0.0.9:8001"]);
    let error =
        ConnectError::Unreachable { endpoint: global.endpoint.clone(), reason: "connection refused".into() };
    let failure = Session::new(&global).connect_failure(&error);
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(
        failure.message.starts_with(
            "cannot reach 10.0.0.9:8001: connection refused. Is the node running there? Name another"
        ),
        "{failure:?}"
    );
}

#[test]
fn a_certificate_without_its_key_is_a_usage_error() {
    let global = global(&["--cert", "x.pem"]);
    let failure = Session::new(&global).connect_options().expect_err("no key");
    assert_eq!(
        (failure.exit, failure.message.as_str()),
        (Exit::Usage, "--cert needs --key, its private key")
    );
}

#[test]
fn both_certificates_are_named_when_trust_fails() {
    let global = global(&["--ca", "certs/ca_cert.pem", "--endpoint", "h:1"]);
    let error = ConnectError::Tls {
        endpoint: global.endpoint.clone(),
        sentence: "the certificate of the node at h:1 was not issued by the CA that you trust".into(),
        refused_by_node: false,
    };
    let failure = Session::new(&global).connect_failure(&error);
    assert_eq!(failure.exit, Exit::Denied);
    assert!(failure.message.contains("node at h:1") && failure.message.contains("certs/ca_cert.pem"));
}
