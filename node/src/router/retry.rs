//! Whether a call is made again.
//!
//! | the try before | again | costs of the budget |
//! |---|---|---|
//! | was not sent, or provably not processed | yes | nothing |
//! | may have been processed, and nothing of an answer was passed on | if the method is declared idempotent | one |
//! | was answered UNAVAILABLE with `grpc-retry-pushback-ms` (gRFC A6) | if declared idempotent, after that time | one |
//! | was answered otherwise | no | |

use super::MAX_TRIES;
use crate::{
    error::{LOST, UNPROCESSED},
    registry::Provider,
};
use http::{HeaderMap, HeaderName};
use p2p_core::balancer::Providers;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::{Code, Status};

/// How often a call was made before, where a provider may have processed it (gRFC A6).
pub(super) const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// When a provider wants to be asked again, in milliseconds; not at all if that is no number (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// Longest time that a call waits here to be made again; a longer pushback is left to its caller.
const PUSHBACK_MAX: Duration = Duration::from_secs(2);

/// Why a call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No connection to the provider.
    Unreached,
    /// Its connection was closing, and the call has not been processed.
    Closed,
    /// It answered that it has processed nothing.
    Refused,
    /// It broke off.
    Lost,
    /// It says when it can serve the call.
    Pushback(Duration),
}

impl Why {
    /// All, as metrics know them.
    pub(super) const ALL: [Self; 5] =
        [Self::Unreached, Self::Closed, Self::Refused, Self::Lost, Self::Pushback(Duration::ZERO)];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unreached => "unreached",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Pushback(_) => "pushback",
        }
    }

    /// Whether the call may have been processed.
    pub(super) fn is_doubtful(self) -> bool {
        match self {
            Self::Unreached | Self::Closed | Self::Refused => false,
            Self::Lost | Self::Pushback(_) => true,
        }
    }

    /// Why the call may be made again that was answered so; `None` if that is its answer.
    pub(super) fn of_answer(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(UNPROCESSED) {
            return Some(Self::Refused);
        }
        if headers.contains_key(LOST) {
            return Some(Self::Lost);
        }
        let pushback = headers.get(PUSHBACK)?;
        let unavailable = headers
            .get(Status::GRPC_STATUS)
            .is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unavailable);
        let pause = Duration::from_millis(pushback.to_str().ok()?.parse().ok()?);
        (unavailable && pause <= PUSHBACK_MAX).then_some(Self::Pushback(pause))
    }
}

/// Who provides a method: the first `near` are preferred.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidates<'a> {
    pub(super) providers: &'a [Arc<Provider>],
    pub(super) near: usize,
}

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    to: Candidates<'a>,
    tried: [usize; MAX_TRIES],
    count: usize,
    /// Who may be tried a second time if nobody else is left, once.
    again: Option<usize>,
    repeated: bool,
}

impl<'a> Tries<'a> {
    pub(super) fn new(to: Candidates<'a>) -> Self {
        Self { to, tried: [0; MAX_TRIES], count: 0, again: None, repeated: false }
    }

    /// Whether there is another try.
    pub(super) fn more(&self) -> bool {
        let untried = (0..self.to.providers.len()).any(|index| !self.tried[..self.count].contains(&index));
        self.count < MAX_TRIES && (untried || self.again.is_some())
    }

    /// Who is tried next.
    pub(super) fn next(&mut self) -> Option<&'a Arc<Provider>> {
        if self.count == MAX_TRIES {
            return None;
        }
        let Candidates { providers, near } = self.to;
        let choice = Providers { count: providers.len(), near, tried: &self.tried[..self.count] };
        let now = Instant::now();
        let chosen = choice.choose(|index| providers[index].candidate(now), &mut rand::rng());
        let chosen = chosen.or_else(|| self.again.take().inspect(|_| self.repeated = true))?;
        self.tried[self.count] = chosen;
        self.count += 1;
        Some(&providers[chosen])
    }

    /// The provider that was tried last may be tried once more: over a new connection it may serve the call.
    pub(super) fn allow_again(&mut self) {
        if !self.repeated {
            self.again = self.count.checked_sub(1).map(|last| self.tried[last]);
        }
    }
}

/// How often the caller has made the call before, as it says.
pub(super) fn previous_attempts(headers: &HeaderMap) -> u32 {
    let value = headers.get(PREVIOUS_ATTEMPTS).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(headers: &[(&'static str, &'static str)]) -> Option<Why> {
        let pair = |(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value));
        Why::of_answer(&headers.iter().copied().map(pair).collect())
    }

    #[test]
    fn a_providers_own_status_is_its_answer_unless_it_says_when_to_come_back() {
        let unavailable = ("grpc-status", "14");
        assert_eq!(why(&[]), None);
        assert_eq!(why(&[unavailable]), None);
        assert_eq!(why(&[unavailable, ("p2p-unprocessed", "1")]), Some(Why::Refused));
        assert_eq!(why(&[unavailable, ("p2p-lost", "1")]), Some(Why::Lost));
        let pushback = |text| why(&[unavailable, ("grpc-retry-pushback-ms", text)]);
        assert_eq!(pushback("0"), Some(Why::Pushback(Duration::ZERO)));
        assert_eq!(pushback("2000"), Some(Why::Pushback(PUSHBACK_MAX)));
        for text in ["2001", "-1", "soon", ""] {
            assert_eq!(pushback(text), None, "{text:?}");
        }
        assert_eq!(
            why(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", "0")]),
            None,
            "that is the caller's to wait for"
        );
    }

    fn providers(count: u16) -> Vec<Arc<Provider>> {
        let provider = |number: u16| {
            let node = format!("w{number}").parse().expect("a node id");
            Arc::new(Provider::new(node, ([127, 0, 0, 1], number).into()))
        };
        (1..=count).map(provider).collect()
    }

    #[test]
    fn each_provider_is_tried_once_and_the_last_one_twice_only_if_nobody_else_is_left() {
        let all = providers(2);
        let mut tries = Tries::new(Candidates { providers: &all, near: 0 });
        let first = tries.next().expect("a provider").clone();
        tries.allow_again();
        let second = tries.next().expect("the other").clone();
        assert_ne!(first.node, second.node);
        assert!(tries.more());
        assert_eq!(tries.next().expect("again").node, first.node);
        assert!(!tries.more() && tries.next().is_none(), "three are enough");

        let one = providers(1);
        let mut tries = Tries::new(Candidates { providers: &one, near: 0 });
        assert!(tries.more() && tries.next().is_some() && !tries.more());
        for _ in 0..2 {
            tries.allow_again();
        }
        assert!(tries.more() && tries.next().is_some());
        tries.allow_again();
        assert!(!tries.more() && tries.next().is_none(), "once");
    }
}
