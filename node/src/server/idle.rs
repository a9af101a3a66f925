//! Streams that nothing passes any more.

use crate::{
    auth::Withdrawn,
    error::{Fault, Reason},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// How often within its timeout a stream is looked at: it ends up to that part of the timeout late.
const LOOKS: u32 = 4;

/// Counts what passes a stream, either way. A message costs no look at the clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<AtomicU32>);

impl Activity {
    /// Something passes.
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until nothing has passed for `timeout`.
    pub(super) fn ceases(&self, timeout: Duration) -> Withdrawn {
        let passed = self.0.clone();
        Box::pin(async move {
            let (mut known, mut quiet) = (passed.load(Ordering::Relaxed), 0);
            while quiet < LOOKS {
                tokio::time::sleep(timeout / LOOKS).await;
                let now = passed.load(Ordering::Relaxed);
                quiet = if now == known { quiet + 1 } else { 0 };
                known = now;
            }
            let seconds = timeout.as_secs_f64();
            let message = format!("nothing has passed this stream for {seconds} s (rpc_stream_idle_timeout)");
            Fault::new(Reason::DeadlineExceeded, message)
        })
    }
}

/// Ends with the first of them.
pub(super) fn first(one: Option<Withdrawn>, other: Option<Withdrawn>) -> Option<Withdrawn> {
    match (one, other) {
        (Some(mut one), Some(mut other)) => Some(Box::pin(async move {
            tokio::select! {
                biased;
                fault = &mut one => fault,
                fault = &mut other => fault,
            }
        })),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_nothing_has_passed_for_so_long_and_not_before() {
        let activity = Activity::default();
        let began = Instant::now();
        let end = tokio::spawn(activity.ceases(TIMEOUT));
        for _ in 0..10 {
            sleep(TIMEOUT / 2).await;
            activity.note();
        }
        let last = began.elapsed();
        let fault = end.await.expect("no panic");
        let quiet = began.elapsed() - last;
        assert!(quiet >= TIMEOUT && quiet <= TIMEOUT + TIMEOUT / LOOKS, "{quiet:?}");
        assert_eq!(fault.reason, Reason::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_end_counts() {
        let after = |seconds| Some(Activity::default().ceases(Duration::from_secs(seconds)));
        for (one, other) in [(after(1), after(9)), (after(9), after(1)), (None, after(1)), (after(1), None)] {
            let since = Instant::now();
            first(one, other).expect("an end").await;
            assert_eq!(since.elapsed(), Duration::from_secs(1));
        }
        assert!(first(None, None).is_none());
    }
}
