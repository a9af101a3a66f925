//! The configuration of a running node, for those who show it or ask the node to read it anew.
//!
//! Signals and requests take one path: what is asked for here is answered by the loop that runs the node (`app/run.rs`).

use super::Config;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that wait for those before them; further ones are refused.
const WAITING_MAX: usize = 4;

/// What reading the configuration anew has changed, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Keys whose new values are in force.
    pub applied: Vec<&'static str>,
    /// Keys whose new values take a restart; those from the start stay in force.
    pub needs_restart: Vec<&'static str>,
    /// Whether another certificate, or other roots, are in force.
    pub certificates: bool,
}

/// What was done, or each mistake for which nothing was.
pub type ReloadAnswer = Result<Report, Vec<String>>;

/// Somebody wants the configuration read anew.
#[derive(Debug, Default)]
pub struct ReloadRequest {
    /// Whether only to say what would change.
    pub dry_run: bool,
    /// Who waits for the answer; nobody after a signal.
    pub answer: Option<oneshot::Sender<ReloadAnswer>>,
}

/// Where the configuration is read anew, and who does it.
#[derive(Clone, Debug)]
pub struct ReloadSource {
    file: PathBuf,
    requests: mpsc::Sender<ReloadRequest>,
}

impl ReloadSource {
    /// The file at `file`, read by whoever takes the requests.
    pub fn new(file: &Path) -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        // So that who asks over the network knows which it is.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        (Self { file, requests }, receiver)
    }
}

/// Why a request is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReloaded {
    /// A program has built the node from a configuration of its own.
    #[error(
        "this node is part of a program, which knows where its configuration comes from; there is no file to read"
    )]
    NoFile,
    /// Too many wait.
    #[error("{WAITING_MAX} requests to read the configuration wait already; try again")]
    Busy,
    /// The node stops.
    #[error("the node is shutting down")]
    Stopping,
}

/// The configuration of a running node.
#[derive(Clone, Debug)]
pub struct Running {
    in_force: watch::Receiver<Config>,
    source: Option<ReloadSource>,
}

impl Running {
    /// What `in_force` shows, read anew from `source` if there is one.
    pub fn new(in_force: watch::Receiver<Config>, source: Option<ReloadSource>) -> Self {
        Self { in_force, source }
    }

    /// The configuration in force: that of the start, with what reloads have changed.
    pub fn in_force(&self) -> Config {
        self.in_force.borrow().clone()
    }

    /// The file it is read from; `None` where a program has built the node.
    pub fn file(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.file.as_path())
    }

    /// Has the node read its configuration anew. It does so even if the caller turns away.
    ///
    /// # Errors
    ///
    /// When nobody reads it.
    pub async fn reload(&self, dry_run: bool) -> Result<ReloadAnswer, NotReloaded> {
        let source = self.source.as_ref().ok_or(NotReloaded::NoFile)?;
        let (sender, answer) = oneshot::channel();
        let request = ReloadRequest { dry_run, answer: Some(sender) };
        source.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotReloaded::Busy,
            mpsc::error::TrySendError::Closed(_) => NotReloaded::Stopping,
        })?;
        answer.await.map_err(|_closed| NotReloaded::Stopping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(source: Option<ReloadSource>) -> Running {
        let config = Config::from_yaml("node_id: a", "test").expect("valid");
        Running::new(watch::channel(config).1, source)
    }

    #[tokio::test]
    async fn requests_wait_for_those_before_them_and_not_without_bound() {
        let (source, mut requests) = ReloadSource::new(Path::new("node.yaml"));
        let running = running(Some(source));
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let running = running.clone();
                tokio::spawn(async move { running.reload(true).await })
            })
            .collect();
        while requests.len() < WAITING_MAX {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.reload(false).await, Err(NotReloaded::Busy));
        for waits in waiting {
            let request = requests.recv().await.expect("a request");
            assert!(request.dry_run);
            request.answer.expect("somebody waits").send(Err(vec!["no".into()])).expect("they still do");
            assert_eq!(waits.await.expect("ended"), Ok(Err(vec!["no".into()])));
        }
        drop(requests);
        assert_eq!(running.reload(false).await, Err(NotReloaded::Stopping));
    }

    #[tokio::test]
    async fn a_node_without_a_file_says_so() {
        let running = running(None);
        assert_eq!((running.reload(false).await, running.file()), (Err(NotReloaded::NoFile), None));
    }
}
