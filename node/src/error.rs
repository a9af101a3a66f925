//! Faults: what went wrong with a request, as one value from which every answer is made.
//!
//! A [`Fault`] knows its [`Reason`]; one table ([`Reason::row`]) gives each reason its gRPC status, HTTP
//! status, source and retry advice, so that the two protocols can never tell different stories.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use std::{collections::HashMap, time::Duration};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of `google.rpc.ErrorInfo` in our answers.
pub const ERROR_DOMAIN: &str = "p2p.v1";

/// On answers: nothing of the call was processed, and another provider may take it. Only nodes write it.
pub const UNPROCESSED: HeaderName = HeaderName::from_static("p2p-unprocessed");

/// On answers: who served the call broke off. It may have been processed, so only one that may be repeated is made
/// again. Only nodes write it.
pub const LOST: HeaderName = HeaderName::from_static("p2p-lost");

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller: repeating the same call is pointless.
    Caller,
    /// This node.
    Us,
    /// The node or process that provides the method.
    Provider,
}

/// Whether a repetition may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No.
    No,
    /// Yes, later.
    Later,
    /// Yes, at another provider; nothing was processed.
    Elsewhere,
}

/// Why a request failed: the closed set that answers, logs and metrics share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nobody in the cluster knows the method or path.
    Unknown,
    /// The method is known, but nobody who provides it is alive.
    NoProvider,
    /// A node was asked to serve, at the end of a hop, what it does not provide.
    NotProvided,
    /// The provider could not be reached; nothing was processed.
    ProviderUnreachable,
    /// The connection to the provider broke after the call had been sent.
    ProviderLost,
    /// The process behind a node takes no more calls at a time; nothing was processed.
    ProviderBusy,
    /// The process behind a node answered what is no gRPC.
    UpstreamInvalid,
    /// What the provider sent, its descriptors or its answer, does not read.
    ProviderGarbled,
    /// No evidence of who calls.
    Unauthenticated,
    /// The caller may not do this.
    Denied,
    /// The caller's rate limit.
    RateLimited,
    /// The caller has as many calls under way as one may have.
    TooManyCalls,
    /// This node has as many calls under way as it takes; nothing was processed.
    Overloaded,
    /// Malformed input.
    InvalidArgument,
    /// It cannot be done as things are; the message says what to change first.
    Precondition,
    /// Only coordinators do this; the fault names them.
    NotCoordinator,
    /// What was named does not exist.
    NotFound,
    /// A message or header over a size limit.
    TooLarge,
    /// The deadline passed.
    DeadlineExceeded,
    /// The HTTP method does not fit the path.
    MethodNotAllowed,
    /// The request's media type is not understood.
    UnsupportedMediaType,
    /// The caller takes no media type that there is.
    NotAcceptable,
    /// This node is shutting down.
    ShuttingDown,
    /// A defect of ours.
    Internal,
}

/// What a reason means in both protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Upper-case word of `google.rpc.ErrorInfo` and of HTTP problems.
    pub word: &'static str,
    /// gRPC status.
    pub code: Code,
    /// HTTP status.
    pub http: StatusCode,
    /// Who is at fault.
    pub source: Source,
    /// Whether a repetition may help.
    pub retry: Retry,
}

const fn row(word: &'static str, code: Code, http: StatusCode, source: Source, retry: Retry) -> Row {
    Row { word, code, http, source, retry }
}

impl Reason {
    /// The one table.
    pub const fn row(self) -> Row {
        use Source::{Caller, Provider, Us};
        match self {
            Self::Unknown => {
                row("UNKNOWN_METHOD", Code::Unimplemented, StatusCode::NOT_FOUND, Caller, Retry::No)
            }
            Self::NoProvider => {
                row("NO_PROVIDER", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Provider, Retry::Later)
            }
            Self::NotProvided => {
                row("NOT_PROVIDED", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Us, Retry::Elsewhere)
            }
            Self::ProviderUnreachable => row(
                "PROVIDER_UNREACHABLE",
                Code::Unavailable,
                StatusCode::BAD_GATEWAY,
                Provider,
                Retry::Elsewhere,
            ),
            Self::ProviderLost => {
                row("PROVIDER_LOST", Code::Unavailable, StatusCode::BAD_GATEWAY, Provider, Retry::No)
            }
            Self::ProviderBusy => row(
                "PROVIDER_BUSY",
                Code::ResourceExhausted,
                StatusCode::SERVICE_UNAVAILABLE,
                Provider,
                Retry::Elsewhere,
            ),
            Self::UpstreamInvalid => {
                row("UPSTREAM_INVALID", Code::Internal, StatusCode::BAD_GATEWAY, Provider, Retry::No)
            }
            Self::ProviderGarbled => {
                row("PROVIDER_GARBLED", Code::Internal, StatusCode::BAD_GATEWAY, Provider, Retry::No)
            }
            Self::Unauthenticated => {
                row("UNAUTHENTICATED", Code::Unauthenticated, StatusCode::UNAUTHORIZED, Caller, Retry::No)
            }
            Self::Denied => {
                row("PERMISSION_DENIED", Code::PermissionDenied, StatusCode::FORBIDDEN, Caller, Retry::No)
            }
            Self::RateLimited => row(
                "RATE_LIMITED",
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                Caller,
                Retry::Later,
            ),
            Self::TooManyCalls => row(
                "TOO_MANY_CALLS",
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                Caller,
                Retry::Later,
            ),
            Self::Overloaded => {
                row("OVERLOADED", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Us, Retry::Elsewhere)
            }
            Self::InvalidArgument => {
                row("INVALID_ARGUMENT", Code::InvalidArgument, StatusCode::BAD_REQUEST, Caller, Retry::No)
            }
            Self::Precondition => {
                row("FAILED_PRECONDITION", Code::FailedPrecondition, StatusCode::CONFLICT, Caller, Retry::No)
            }
            Self::NotCoordinator => row(
                "NOT_COORDINATOR",
                Code::FailedPrecondition,
                StatusCode::CONFLICT,
                Caller,
                Retry::Elsewhere,
            ),
            Self::NotFound => row("NOT_FOUND", Code::NotFound, StatusCode::NOT_FOUND, Caller, Retry::No),
            Self::TooLarge => {
                row("TOO_LARGE", Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, Caller, Retry::No)
            }
            Self::DeadlineExceeded => row(
                "DEADLINE_EXCEEDED",
                Code::DeadlineExceeded,
                StatusCode::GATEWAY_TIMEOUT,
                Provider,
                Retry::No,
            ),
            Self::MethodNotAllowed => row(
                "METHOD_NOT_ALLOWED",
                Code::Unimplemented,
                StatusCode::METHOD_NOT_ALLOWED,
                Caller,
                Retry::No,
            ),
            Self::UnsupportedMediaType => row(
                "UNSUPPORTED_MEDIA_TYPE",
                Code::InvalidArgument,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Caller,
                Retry::No,
            ),
            Self::NotAcceptable => {
                row("NOT_ACCEPTABLE", Code::InvalidArgument, StatusCode::NOT_ACCEPTABLE, Caller, Retry::No)
            }
            Self::ShuttingDown => {
                row("SHUTTING_DOWN", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Us, Retry::Elsewhere)
            }
            Self::Internal => {
                row("INTERNAL", Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, Us, Retry::No)
            }
        }
    }
}

/// A request that failed here, with what its caller needs to know.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// A sentence for people: what is wrong and what to do.
    pub message: String,
    /// Exact pause before a repetition can succeed, where it is known.
    pub retry_after: Option<Duration>,
    /// HTTP methods that the path takes, for [`Reason::MethodNotAllowed`].
    pub allow: Option<&'static str>,
    /// Whether a token was shown that does not hold, for [`Reason::Unauthenticated`].
    pub refused_token: bool,
    /// One fact for programs, as `google.rpc.ErrorInfo` and HTTP problems carry it.
    pub metadata: Option<Box<(&'static str, String)>>,
}

impl Fault {
    /// A fault for `reason`, told by `message`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry_after: None,
            allow: None,
            refused_token: false,
            metadata: None,
        }
    }

    /// A defect of ours: logged in full, told to the caller without detail.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "internal fault");
        Self::new(Reason::Internal, "internal error; see the node's log")
    }

    /// As a gRPC status with `google.rpc` details and, where the pause is known, retry pushback.
    pub fn to_status(&self) -> Status {
        let row = self.reason.row();
        let mut details = ErrorDetails::new();
        let metadata = self.metadata.iter().map(|fact| (fact.0.to_owned(), fact.1.clone()));
        details.set_error_info(row.word, ERROR_DOMAIN, metadata.collect::<HashMap<_, _>>());
        if let Some(pause) = self.retry_after {
            details.set_retry_info(Some(pause));
        }
        let mut status = Status::with_error_details(row.code, self.message.clone(), details);
        let set = HeaderValue::from_static("1");
        if row.retry == Retry::Elsewhere && row.source != Source::Caller {
            status.metadata_mut().as_mut().insert(UNPROCESSED, set);
        } else if self.reason == Reason::ProviderLost {
            status.metadata_mut().as_mut().insert(LOST, set);
        }
        if let Some(pause) = self.retry_after {
            let millis = u64::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            status.metadata_mut().insert("grpc-retry-pushback-ms", millis.into());
        }
        if let Some(Ok(challenge)) = self.challenge().map(|challenge| challenge.parse()) {
            status.metadata_mut().insert("www-authenticate", challenge);
        }
        status
    }

    /// What `WWW-Authenticate` says (RFC 6750 § 3): which evidence is missing, or that the token is refused.
    fn challenge(&self) -> Option<String> {
        const BARE: &str = "Bearer realm=\"p2p\"";
        let refused = || format!("{BARE}, error=\"invalid_token\", error_description=\"{}\"", self.message);
        let refused = self.refused_token.then(refused);
        (self.reason == Reason::Unauthenticated).then(|| refused.unwrap_or_else(|| BARE.to_owned()))
    }

    /// As a trailers-only gRPC answer.
    pub fn into_grpc(self) -> http::Response<Body> {
        self.to_status().into_http()
    }

    /// As the trailers of a gRPC answer that has begun.
    pub fn to_trailers(&self) -> HeaderMap {
        let mut trailers = self.to_status().into_http::<Body>().into_parts().0.headers;
        trailers.remove(header::CONTENT_TYPE);
        trailers
    }

    /// As an HTTP answer: `application/problem+json` (RFC 9457).
    pub fn into_http(self) -> http::Response<Body> {
        let row = self.reason.row();
        let mut problem = json!({
            "type": "about:blank",
            "title": row.http.canonical_reason().unwrap_or("error"),
            "status": row.http.as_u16(),
            "detail": self.message,
            "reason": row.word,
        });
        if let Some(fact) = &self.metadata {
            problem[fact.0] = json!(fact.1);
        }
        let challenge = self.challenge().and_then(|challenge| HeaderValue::from_str(&challenge).ok());
        let body = Body::new(http_body_util::Full::new(bytes::Bytes::from(problem.to_string())));
        let mut response = http::Response::new(body);
        *response.status_mut() = row.http;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(pause) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds(pause)));
        }
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// Whole seconds for `Retry-After`: rounded up, at least 1, so that a client that obeys is never early.
fn retry_after_seconds(pause: Duration) -> u64 {
    (pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).max(1)
}

impl From<Status> for Fault {
    /// For the statuses that our own service code raises.
    fn from(status: Status) -> Self {
        let reason = match status.code() {
            Code::InvalidArgument => Reason::InvalidArgument,
            Code::NotFound => Reason::NotFound,
            Code::ResourceExhausted | Code::OutOfRange => Reason::TooLarge,
            Code::Unimplemented => Reason::Unknown,
            Code::DeadlineExceeded => Reason::DeadlineExceeded,
            Code::Unavailable => Reason::NoProvider,
            Code::Unauthenticated => Reason::Unauthenticated,
            Code::PermissionDenied => Reason::Denied,
            Code::FailedPrecondition => Reason::Precondition,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::AlreadyExists
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss => Reason::Internal,
        };
        Self::new(reason, status.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_say_which_evidence_is_missing_and_who_acts_instead() {
        let mut fault = Fault::new(Reason::Unauthenticated, "the access token has expired");
        fault.refused_token = true;
        let challenge = "Bearer realm=\"p2p\", error=\"invalid_token\", \
                         error_description=\"the access token has expired\"";
        assert_eq!(fault.to_status().metadata().get("www-authenticate").expect("a challenge"), challenge);
        assert_eq!(fault.into_http().headers()["www-authenticate"], challenge);
        let bare = Fault::new(Reason::Unauthenticated, "none was presented").into_http();
        assert_eq!(
            (bare.status().as_u16(), &bare.headers()["www-authenticate"]),
            (401, &HeaderValue::from_static("Bearer realm=\"p2p\""))
        );

        let mut fault = Fault::new(Reason::NotCoordinator, "w1 is no coordinator");
        fault.metadata = Some(Box::new(("coordinators", "10.0.0.1:8001,10.0.0.2:8001".to_owned())));
        let info = fault.to_status().get_details_error_info().expect("ErrorInfo");
        assert_eq!(
            (info.reason.as_str(), info.metadata["coordinators"].as_str()),
            ("NOT_COORDINATOR", "10.0.0.1:8001,10.0.0.2:8001")
        );
        assert_eq!(fault.into_http().status(), StatusCode::CONFLICT);
    }

    #[test]
    fn both_protocols_tell_the_same_pause_and_never_an_early_one() {
        let mut fault = Fault::new(Reason::RateLimited, "too many requests");
        fault.retry_after = Some(Duration::from_micros(597_970));
        let status = fault.to_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_details_retry_info().expect("RetryInfo");
        assert_eq!(details.retry_delay, Some(Duration::from_micros(597_970)));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").expect("trailer"), "598");
        let http = fault.into_http();
        assert_eq!(http.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(http.headers()["retry-after"], "1");
        assert_eq!(retry_after_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(retry_after_seconds(Duration::ZERO), 1);
    }
}
