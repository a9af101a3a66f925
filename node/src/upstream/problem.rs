//! Everything that can be wrong with an upstream.

use super::channel::DialError;
use crate::schema::SchemaError;
use std::sync::Arc;

/// Why an upstream's service is not served now. Shown to admins; callers hear only that nobody provides it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Problem {
    /// Just started: nothing is known yet.
    #[error("it is being asked for the first time")]
    Starting,
    /// No connection.
    #[error(transparent)]
    Dial(#[from] Arc<DialError>),
    /// No answer in time.
    #[error("it does not answer {0} in time")]
    Timeout(&'static str),
    /// The connection broke, or no gRPC came back.
    #[error("it breaks off {0}")]
    Broken(String),
    /// It implements no reflection.
    #[error(
        "it implements no gRPC reflection; add it there (grpcio-reflection, tonic-reflection, ...), or give its \
         descriptors (services: descriptors, or --descriptors FILE)"
    )]
    NoReflection,
    /// Reflection knows no such service.
    #[error("it does not implement that; {listed}")]
    NoService {
        /// What it says that it implements.
        listed: String,
    },
    /// Reflection answers something else than it was asked.
    #[error("its reflection answers nonsense: {0}")]
    Reflection(String),
    /// The descriptors break a bound.
    #[error("its descriptors are refused: {0}")]
    Bounds(String),
    /// The descriptors do not hold together.
    #[error("its descriptors are unusable: {0}")]
    Descriptors(String),
    /// Another node provides a method that streams otherwise.
    #[error("{0}")]
    Conflict(String),
    /// The node's certificate does not grant the service.
    #[error("{0}")]
    NotGranted(String),
    /// `grpc.health.v1` says that it does not serve.
    #[error("its health check answers {0}")]
    Unhealthy(String),
    /// It implements no `grpc.health.v1`, which was asked for.
    #[error("it implements no grpc.health.v1; add it there, or choose health auto, tcp or none")]
    NoHealth,
    /// The CA that it is to be checked against.
    #[error("the CA certificates (tls_ca) are unusable: {0}")]
    Ca(String),
}

impl From<SchemaError> for Problem {
    fn from(error: SchemaError) -> Self {
        let why = error.to_string();
        match error {
            SchemaError::ImportCycle(_) | SchemaError::TooMany { .. } => Self::Bounds(why),
            SchemaError::Unreadable(_)
            | SchemaError::Descriptors(_)
            | SchemaError::Twice(_)
            | SchemaError::NoService(_)
            | SchemaError::Method(_) => Self::Descriptors(why),
        }
    }
}

impl Problem {
    /// Every word beside those of `DialError`, so that each series is there before it is needed.
    pub(super) const WORDS: [&str; 13] = [
        "starting",
        "timeout",
        "broken",
        "no_reflection",
        "no_service",
        "reflection",
        "descriptor_bounds",
        "descriptors",
        "conflict",
        "not_granted",
        "unhealthy",
        "no_health",
        "ca",
    ];

    /// The word in metrics, one of `WORDS` or of those of `DialError`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Dial(error) => error.word(),
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "broken",
            Self::NoReflection => "no_reflection",
            Self::NoService { .. } => "no_service",
            Self::Reflection(_) => "reflection",
            Self::Bounds(_) => "descriptor_bounds",
            Self::Descriptors(_) => "descriptors",
            Self::Conflict(_) => "conflict",
            Self::NotGranted(_) => "not_granted",
            Self::Unhealthy(_) => "unhealthy",
            Self::NoHealth => "no_health",
            Self::Ca(_) => "ca",
        }
    }

    /// Whether one occurrence is enough to stop calling it. A lost packet or a pause is not.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Broken(_) => false,
            Self::Dial(error) => !error.is_timeout(),
            Self::Starting
            | Self::NoReflection
            | Self::NoService { .. }
            | Self::Reflection(_)
            | Self::Bounds(_)
            | Self::Descriptors(_)
            | Self::Conflict(_)
            | Self::NotGranted(_)
            | Self::Unhealthy(_)
            | Self::NoHealth
            | Self::Ca(_) => true,
        }
    }
}
