use super::*;
use crate::{ConnectOptions, Connection};
use rustls::pki_types::ServerName;

fn endpoint() -> Endpoint {
    "127.0.0.1:8001".parse().expect("an address")
}

/// What HTTP libraries do: one more layer whose text says nothing.
#[derive(Debug, thiserror::Error)]
#[error("transport error")]
struct Layer(#[source] Box<dyn Error + Send + Sync>);

fn wrapped(cause: impl Error + Send + Sync + 'static) -> Layer {
    Layer(Box::new(Layer(Box::new(cause))))
}

#[test]
fn a_certificate_error_is_found_inside_an_io_error_inside_layers() {
    let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let error = connect_error(&wrapped(io::Error::new(io::ErrorKind::InvalidData, tls)), &endpoint());
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert_eq!(
        error.to_string(),
        "the certificate of the node at 127.0.0.1:8001 was not issued by the CA that you trust"
    );
}

#[test]
fn a_wrong_host_name_names_both_sides() {
    let reason = CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("example.com").expect("a name"),
        presented: vec!["DnsName(\"localhost\")".to_owned()],
    };
    let error = connect_error(&wrapped(rustls::Error::InvalidCertificate(reason)), &endpoint()).to_string();
    assert!(error.contains("\"example.com\"") && error.contains("localhost"), "{error}");
}

#[test]
fn an_alert_is_found_as_a_type_and_as_text() {
    let typed = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    let text = io::Error::other("connection error: received fatal alert: CertificateRequired");
    for error in [connect_error(&wrapped(typed), &endpoint()), connect_error(&wrapped(text), &endpoint())] {
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(
            error.to_string(),
            "127.0.0.1:8001 refused the TLS connection: it requires a client certificate"
        );
    }
}

#[test]
fn a_plain_text_port_is_unreachable_not_untrusted() {
    let tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    let error = connect_error(&wrapped(tls), &endpoint());
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().ends_with("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let options = ConnectOptions::new(format!("http://{free}").parse().expect("an address"));
    let error = Connection::connect(&options).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(error.to_string(), format!("cannot reach {free}: connection refused"));
}

#[tokio::test]
async fn tls_without_a_usable_ca_fails_before_anything_is_sent() {
    let mut options = ConnectOptions::new(endpoint());
    assert!(matches!(Connection::connect(&options).await, Err(ConnectError::NoCa)));
    options.ca_pem = Some(b"no pem".to_vec());
    let error = Connection::connect(&options).await.expect_err("no certificate inside");
    assert!(matches!(&error, ConnectError::Files { .. }), "{error}");
}

#[tokio::test]
async fn a_silent_listener_times_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    let mut options = ConnectOptions::new(format!("http://{address}").parse().expect("an address"));
    options.timeout = Duration::from_millis(50);
    // The connection stands as soon as the kernel accepts it; it is the call that gets no answer.
    let connection = Connection::connect(&options).await.expect("the kernel accepts");
    let error = connection.list_nodes().await.expect_err("nobody answers");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
}

#[test]
fn a_status_of_the_node_keeps_its_words_and_gets_its_kind() {
    for (code, kind) in [
        (Code::Unavailable, ErrorKind::Unreachable),
        (Code::Unauthenticated, ErrorKind::Unauthenticated),
        (Code::PermissionDenied, ErrorKind::Denied),
        (Code::NotFound, ErrorKind::NotFound),
        (Code::Unimplemented, ErrorKind::NotFound),
        (Code::DeadlineExceeded, ErrorKind::DeadlineExceeded),
        (Code::Internal, ErrorKind::Other),
    ] {
        let error = CallError::new(Status::new(code, "why"), &endpoint(), Duration::from_secs(1));
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, "why"));
    }
}

#[test]
fn a_node_that_is_no_coordinator_names_those_that_are() {
    let with = |reason: &str| {
        let mut details = tonic_types::ErrorDetails::new();
        let metadata = [("coordinators".to_owned(), "10.0.0.1:8001,nonsense,[::1]:8002".to_owned())];
        details.set_error_info(reason, "p2p.v1", std::collections::HashMap::from(metadata));
        let status = Status::with_error_details(Code::FailedPrecondition, "w1 is no coordinator", details);
        CallError::new(status, &endpoint(), Duration::from_secs(1)).coordinators()
    };
    let expected = ["10.0.0.1:8001", "[::1]:8002"].map(|text| text.parse().expect("an address"));
    assert_eq!(with("NOT_COORDINATOR"), expected);
    assert_eq!(with("FAILED_PRECONDITION"), []);
}
