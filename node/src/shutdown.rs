//! How the node stops: one signal that every part watches.

use tokio::sync::watch;

/// How far a node is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more and shown as left; still serving what comes.
    Leaving,
    /// No new connections or calls; those in flight finish.
    Draining,
    /// Everything ends now.
    Stopped,
}

/// The side that decides.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<Phase>);

/// The side that obeys. Clones watch the same signal.
#[derive(Clone, Debug)]
pub struct ShutdownWatch(watch::Receiver<Phase>);

impl Shutdown {
    /// A running node's signal.
    pub fn new() -> (Self, ShutdownWatch) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Self(sender), ShutdownWatch(receiver))
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
    }
}

impl ShutdownWatch {
    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the node is at least in `phase`. A vanished decider counts as stopped.
    pub async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|current| *current >= phase).await.is_err() {
            tracing::debug!("the shutdown signal's owner is gone; treating it as stopped");
        }
    }
}
