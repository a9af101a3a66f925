//! Why a connection or a call failed.
//!
//! Transport libraries say "transport error" and keep the cause at the end of a chain of sources, partly
//! inside `io::Error`, which hides what it wraps. [`connect_error`] walks that chain to the cause and says
//! it as a sentence.

use crate::endpoint::Endpoint;
use rustls::{AlertDescription, CertificateError};
use std::{error::Error, io, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What a failure means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nobody answers at the address, or the cluster cannot reach a provider. A retry may help.
    Unreachable,
    /// The two sides do not trust each other's certificates.
    Tls,
    /// The node does not know who calls.
    Unauthenticated,
    /// The node knows who calls, and refuses.
    Denied,
    /// No such node, service or method.
    NotFound,
    /// No answer in time; whether the call had an effect is unknown.
    DeadlineExceeded,
    /// Anything else.
    Other,
}

/// Why no connection came about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// TLS needs a CA to trust.
    #[error("no CA certificate was given")]
    NoCa,
    /// The CA, certificate or key given cannot be used; nothing was sent.
    #[error("the certificate files cannot be used: {reason}")]
    Files {
        /// What is wrong with them.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// Where the node should listen.
        endpoint: Endpoint,
        /// What the operating system or the other side said.
        reason: String,
    },
    /// The handshake failed.
    #[error("{sentence}")]
    Tls {
        /// Where the node listens.
        endpoint: Endpoint,
        /// Which certificate is refused by whom, and why.
        sentence: String,
        /// Whether the node refused our certificate, rather than we the node's.
        refused_by_node: bool,
    },
    /// The address takes connections but does not complete the handshake.
    #[error("{endpoint} accepted the connection but did not answer within {timeout:?}")]
    TimedOut {
        /// Where the node listens.
        endpoint: Endpoint,
        /// How long it was given.
        timeout: Duration,
    },
}

impl ConnectError {
    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCa | Self::Files { .. } => ErrorKind::Other,
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::TimedOut { .. } => ErrorKind::DeadlineExceeded,
        }
    }
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection broke, or the node refused it after the handshake.
    #[error(transparent)]
    Connection(#[from] ConnectError),
    /// No answer in time; whether the call had an effect is unknown.
    #[error("{endpoint} did not answer within {timeout:?}")]
    DeadlineExceeded {
        /// The node asked.
        endpoint: Endpoint,
        /// How long it was given.
        timeout: Duration,
    },
    /// The node answered with an error.
    #[error("{}", message_of(.0))]
    Status(Status),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl CallError {
    /// Reads the cause of `status`, the outcome of a call to `endpoint` that was given `timeout`.
    pub fn new(status: Status, endpoint: &Endpoint, timeout: Duration) -> Self {
        // Only a status made on this side has a source; one that the node sent has none.
        let Some(source) = status.source() else {
            return Self::Status(status);
        };
        if causes(source).any(|cause| cause.is::<tonic::TimeoutExpired>()) {
            return Self::DeadlineExceeded { endpoint: endpoint.clone(), timeout };
        }
        let known = causes(source).find_map(|cause| cause.downcast_ref::<ConnectError>());
        Self::Connection(known.cloned().unwrap_or_else(|| connect_error(source, endpoint)))
    }

    /// The coordinators that the answering node names, if the act is theirs alone; none if it is not, or no
    /// other is alive.
    pub fn coordinators(&self) -> Vec<Endpoint> {
        let Self::Status(status) = self else { return Vec::new() };
        let info = status.get_details_error_info().filter(|info| info.reason == "NOT_COORDINATOR");
        let list = info.and_then(|info| info.metadata.get("coordinators").cloned()).unwrap_or_default();
        list.split(',').filter_map(|address| address.parse().ok()).collect()
    }

    /// Whether the node refuses who calls, and not what was asked for: another principal might do it.
    pub fn refuses_principal(&self) -> bool {
        let Self::Status(status) = self else { return false };
        status.get_details_error_info().is_some_and(|info| info.metadata.contains_key("principal"))
    }

    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connection(error) => error.kind(),
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
            Self::Status(status) => kind_of(status.code()),
        }
    }
}

fn message_of(status: &Status) -> String {
    if status.message().is_empty() {
        format!("the node answered: {}", status.code().description())
    } else {
        status.message().to_owned()
    }
}

/// What a status of the node itself means to the caller.
pub fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::Unavailable => ErrorKind::Unreachable,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Denied,
        Code::NotFound | Code::Unimplemented => ErrorKind::NotFound,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => ErrorKind::Other,
    }
}

/// Reads the cause of a transport error of any HTTP or gRPC client at the end of its sources.
pub fn connect_error(error: &(dyn Error + 'static), endpoint: &Endpoint) -> ConnectError {
    if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return tls_error(tls, endpoint);
    }
    let text = innermost(error);
    // h2 keeps only the text of what broke its connection.
    if let Some((_, alert)) = text.split_once("received fatal alert: ") {
        return refused_by_node(alert, endpoint);
    }
    let reason =
        causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map_or(text, io_reason);
    ConnectError::Unreachable { endpoint: endpoint.clone(), reason }
}

/// Why the CA, certificate or key given to a TLS library cannot be used.
pub fn files_error(error: &(dyn Error + 'static)) -> ConnectError {
    let tls = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
    let mismatch = tls.is_some_and(|error| matches!(error, rustls::Error::InconsistentKeys(_)));
    let reason = if mismatch {
        "the private key does not belong to the certificate".to_owned()
    } else {
        innermost(error)
    };
    ConnectError::Files { reason }
}

/// The last words of the chain of sources.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// The error and all that caused it, outermost first; looks into `io::Error`, whose `source` skips what
/// it wraps.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| {
        let cause: &'a (dyn Error + 'static) = *cause;
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}

fn io_reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "connection refused".to_owned();
    }
    if error.kind() == io::ErrorKind::TimedOut {
        return "no answer to the connection attempt".to_owned();
    }
    let closed = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ];
    if closed.contains(&error.kind()) {
        return "the other side closed the connection".to_owned();
    }
    error.to_string()
}

fn tls_error(error: &rustls::Error, endpoint: &Endpoint) -> ConnectError {
    if let rustls::Error::InvalidCertificate(reason) = error {
        let sentence = certificate_sentence(reason, endpoint);
        return ConnectError::Tls { endpoint: endpoint.clone(), sentence, refused_by_node: false };
    }
    if let rustls::Error::AlertReceived(alert) = error {
        return refused_by_node(alert_name(*alert), endpoint);
    }
    if matches!(error, rustls::Error::InvalidMessage(_)) {
        let reason = "what listens there does not speak TLS".to_owned();
        return ConnectError::Unreachable { endpoint: endpoint.clone(), reason };
    }
    let sentence = format!("the TLS handshake with {endpoint} failed: {error}");
    ConnectError::Tls { endpoint: endpoint.clone(), sentence, refused_by_node: false }
}

fn alert_name(alert: AlertDescription) -> &'static str {
    alert.as_str().unwrap_or("an unknown alert")
}

fn refused_by_node(alert: &str, endpoint: &Endpoint) -> ConnectError {
    let alert = alert.trim();
    let why = match alert {
        "CertificateRequired" => "it requires a client certificate",
        "CertificateExpired" => "it says that our certificate has expired",
        "CertificateRevoked" => "it says that our certificate was revoked",
        "UnknownCA" => "its CA did not issue our certificate",
        "ProtocolVersion" => "the two sides share no TLS version",
        _ => alert,
    };
    let sentence = format!("{endpoint} refused the TLS connection: {why}");
    ConnectError::Tls { endpoint: endpoint.clone(), sentence, refused_by_node: true }
}

fn certificate_sentence(reason: &CertificateError, endpoint: &Endpoint) -> String {
    let whose = format!("the certificate of the node at {endpoint}");
    if let CertificateError::NotValidForNameContext { expected, presented } = reason {
        return format!("{whose} is not for {:?}, only for {}", expected.to_str(), presented.join(", "));
    }
    if matches!(reason, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        return format!("{whose} has expired");
    }
    if matches!(reason, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
        return format!("{whose} is not valid yet; compare the clocks of both hosts");
    }
    if matches!(reason, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        return format!("{whose} was not issued by the CA that you trust");
    }
    format!("{whose} is not acceptable: {reason}")
}

#[cfg(test)]
mod tests;
