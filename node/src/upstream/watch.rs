//! The task of one upstream: learns its methods, checks its health, and tells the registry.

use super::{
    health,
    hosted::Upstreams,
    learn::{Learned, learn},
    problem::Problem,
    relay::Upstream,
};
use futures_util::FutureExt as _;
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// Pause between looks at an upstream that is not healthy, unless its health interval is shorter.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before a look that a failed call asks for: calls that fail at once ask often.
const LEAST: Duration = Duration::from_millis(100);
/// Looks that must fail in a row where one proves nothing.
const DOUBTS: u32 = 2;

/// What comes after a look.
enum Next {
    /// Another one, after a pause.
    Look(Duration),
    /// Nothing: the upstream was replaced or removed.
    End,
    /// The lease is over.
    Lapse,
}

impl Upstreams {
    /// Looks at `upstream` until it is replaced, or its lease is over; also after a defect.
    pub(super) async fn keep_watching(self: Arc<Self>, upstream: Arc<Upstream>) {
        while AssertUnwindSafe(self.watch(&upstream)).catch_unwind().await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn watch(self: &Arc<Self>, upstream: &Arc<Upstream>) {
        let mut doubts = 0;
        loop {
            let seen = self.look(upstream).await;
            if let Err(problem) = &seen {
                self.metrics.check_failed(upstream.name(), problem.word());
            }
            doubts = if seen.is_ok() { 0 } else { doubts + 1 };
            match self.note(upstream, seen, doubts) {
                Next::Look(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = asked(upstream) => {}
                },
                Next::End => return,
                Next::Lapse => {
                    tracing::warn!(service = %upstream.name(), "lease over: no health check has passed for so long");
                    let name = upstream.name().clone();
                    match self.deregister(&name).await {
                        Ok(_) => return,
                        Err(fault) => {
                            tracing::error!(service = %name, %fault, "a lease is over and cannot be ended")
                        }
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// One look: is it allowed, does it answer, what does it serve.
    async fn look(&self, upstream: &Upstream) -> Result<Option<Learned>, Problem> {
        let (registered, known) = match self.services().get(upstream.name()) {
            Some(hosted) => (hosted.registered.is_some(), hosted.learned.clone()),
            None => return Ok(None),
        };
        let (spec, channel) = (&upstream.spec, &upstream.channel);
        self.granted(spec, registered)?;
        health::check(spec, channel).await?;
        // Over a new connection another release of the process may answer.
        let same = |known: &Learned| spec.descriptors.is_some() || known.dialled == channel.dialled();
        if let Some(known) = known.filter(same) {
            return self.fits(upstream.name(), &known).map(|()| None);
        }
        let learned = learn(spec, channel).await?;
        self.fits(upstream.name(), &learned)?;
        Ok(Some(learned))
    }

    fn note(&self, upstream: &Arc<Upstream>, seen: Result<Option<Learned>, Problem>, doubts: u32) -> Next {
        let mut services = self.services();
        let hosted = services.get_mut(upstream.name());
        let Some(hosted) = hosted.filter(|hosted| Arc::ptr_eq(&hosted.upstream, upstream)) else {
            return Next::End;
        };
        let was_healthy = hosted.problem.is_none();
        match seen {
            Ok(learned) => {
                if learned.is_some() {
                    hosted.learned = learned;
                }
                hosted.problem = None;
                hosted.renewed = (Instant::now(), SystemTime::now());
            }
            Err(problem) if problem.is_certain() || doubts >= DOUBTS || !was_healthy => {
                hosted.problem = Some(problem);
            }
            Err(problem) => {
                tracing::debug!(service = %upstream.name(), %problem, "one look at an upstream failed")
            }
        }
        self.show(hosted);
        let healthy = hosted.problem.is_none();
        self.metrics.set_healthy(upstream.name(), healthy);
        match (&hosted.problem, was_healthy) {
            (None, false) => {
                tracing::info!(service = %upstream.name(), upstream = %upstream.spec.url, "upstream serves")
            }
            (Some(problem), true) => {
                tracing::warn!(service = %upstream.name(), %problem, "upstream does not serve")
            }
            (None, true) | (Some(_), false) => {}
        }
        let lease = hosted.registered.as_ref().and_then(|(_, lease)| *lease);
        if lease.is_some_and(|lease| !healthy && hosted.renewed.0.elapsed() > lease) {
            return Next::Lapse;
        }
        let interval = upstream.spec.health_interval;
        Next::Look(if healthy { interval } else { interval.min(RETRY) })
    }
}

/// Resolves when a call has found the process gone.
async fn asked(upstream: &Upstream) {
    upstream.gone.notified().await;
    tokio::time::sleep(LEAST).await;
}
