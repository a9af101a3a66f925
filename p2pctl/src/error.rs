//! Failures, and the exit codes that scripts rely on.

use std::process::ExitCode;
use tonic::Code;

/// How the process ends. The numbers are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It worked, and nothing is wrong.
    Success,
    /// It failed for a reason that has no number of its own.
    Failure,
    /// The command line is wrong; nothing was done.
    Usage,
    /// No such node, service, method or metric.
    NotFound,
    /// Not authenticated, not trusted, or not allowed.
    Denied,
    /// Nobody answers.
    Unreachable,
    /// It worked, and found the cluster degraded.
    Degraded,
    /// Some nodes of a broadcast answered, others did not.
    Partial,
    /// No answer in time.
    TimedOut,
    /// The called method itself answered with this error.
    Answered(Code),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Unreachable => 5,
            Self::Degraded => 6,
            Self::Partial => 7,
            Self::TimedOut => 8,
            // gRPC codes are 0 to 16.
            Self::Answered(code) => 64 + code as u8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a verb could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// The word for scripts, as in `"code": "unavailable"`.
    pub(crate) code: &'static str,
    /// A sentence that says what happened and what to do next.
    pub(crate) message: String,
}

/// What a verb returns.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into() }
    }

    /// The command line or a file it names is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// What was asked for does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, "not_found", message)
    }

    /// The node does not know who calls.
    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Exit::Denied, "unauthenticated", message)
    }

    /// One side does not trust the other's certificate.
    pub(crate) fn untrusted(message: impl Into<String>) -> Self {
        Self::new(Exit::Denied, "untrusted", message)
    }

    /// The node knows who calls, and refuses.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(Exit::Denied, "permission_denied", message)
    }

    /// Nobody answers.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, "unavailable", message)
    }

    /// Some of many failed.
    pub(crate) fn partial(message: impl Into<String>) -> Self {
        Self::new(Exit::Partial, "partial", message)
    }

    /// No answer in time.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Exit::TimedOut, "deadline_exceeded", message)
    }

    /// Anything else.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, "failure", message)
    }

    /// The called method itself answered with an error.
    pub(crate) fn answered(code: Code, message: impl Into<String>) -> Self {
        Self::new(Exit::Answered(code), code_word(code), message)
    }

    /// The same failure with more advice.
    pub(crate) fn hint(mut self, advice: &str) -> Self {
        let separator = if self.message.ends_with(['.', '?', '!']) { " " } else { ". " };
        self.message.push_str(separator);
        self.message.push_str(advice);
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::other(format!("{error:#}"))
    }
}

impl From<clap::Error> for Failure {
    /// Only for structured output: the text of clap without its prefix and usage lines.
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        let words = first.trim_start_matches("error:").split_whitespace().collect::<Vec<_>>();
        Self::usage(words.join(" "))
    }
}

/// The name of a gRPC code in JSON.
pub(crate) fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        for (failure, number, code) in [
            (Failure::other("x"), 1, "failure"),
            (Failure::usage("x"), 2, "usage"),
            (Failure::not_found("x"), 3, "not_found"),
            (Failure::unauthenticated("x"), 4, "unauthenticated"),
            (Failure::untrusted("x"), 4, "untrusted"),
            (Failure::denied("x"), 4, "permission_denied"),
            (Failure::unreachable("x"), 5, "unavailable"),
            (Failure::partial("x"), 7, "partial"),
            (Failure::timed_out("x"), 8, "deadline_exceeded"),
            (Failure::answered(Code::NotFound, "x"), 69, "not_found"),
            (Failure::answered(Code::Unauthenticated, "x"), 80, "unauthenticated"),
        ] {
            assert_eq!((failure.exit.number(), failure.code), (number, code));
        }
        assert_eq!((Exit::Success.number(), Exit::Degraded.number()), (0, 6));
    }

    #[test]
    fn advice_follows_as_its_own_sentence() {
        assert_eq!(Failure::other("it broke").hint("Mend it.").message, "it broke. Mend it.");
        assert_eq!(Failure::other("broke?").hint("Yes.").message, "broke? Yes.");
    }
}
