//! What the service manager is told (sd_notify(3)); nothing where none listens.

use super::Node;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::Interval;

/// The node serves.
pub(super) fn ready(node: &Node) {
    let status = format!("listening on {}", node.listening());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The node reads its files anew; [`ready`] follows. `Type=notify-reload` of systemd 253 and later waits for it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::debug!(%error, "no monotonic clock; the service manager is not told of the reload")
        }
    }
}

/// The node shuts down.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing the calls in flight")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told of this node's state");
    }
}

/// Signs of life for `WatchdogSec=`: where they fail to come, systemd restarts the process.
pub(super) struct Watchdog {
    beat: Option<(Interval, Duration)>,
}

impl Watchdog {
    /// As the environment of the process asks for; call it within a runtime.
    pub(super) fn from_environment() -> Self {
        let limit = sd_notify::watchdog_enabled().filter(|limit| *limit >= Duration::from_millis(10));
        Self { beat: limit.map(|limit| (tokio::time::interval(limit / 2), limit / 4)) }
    }

    /// Waits until the next sign is due and returns how long the node may take to answer for it; for ever without a
    /// watchdog.
    pub(super) async fn due(&mut self) -> Duration {
        match &mut self.beat {
            None => std::future::pending().await,
            Some((beat, patience)) => {
                beat.tick().await;
                *patience
            }
        }
    }

    /// Tells that the node lives, if its parts answer within `patience`.
    pub(super) async fn check(&self, node: &Node, patience: Duration) {
        if node.answers(patience).await {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("gossip does not answer; the service manager gets no sign of life");
        }
    }
}
