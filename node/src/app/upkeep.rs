//! Certificates while the node runs: renewed before they end, and reloaded when their files change.

use super::publish::Publisher;
use crate::{
    enrol::{RenewError, RenewalMetrics, Renewer},
    identity::{
        EnrolledError, FileWatch, Identity, IdentityError, IdentityStore, Reloaded, UnixTime, schedule,
    },
};
use std::{sync::Arc, time::Duration};

/// Pause between two looks at the certificate files.
const LOOK: Duration = Duration::from_secs(2);
/// Pause between two looks whether another certificate is in force, while this one is waited for.
const GLANCE: Duration = Duration::from_secs(30);

/// Why a new certificate is not in force.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Renew(#[from] RenewError),
    #[error("the new certificate is written, but cannot be used: {0}")]
    Reload(#[from] IdentityError),
}

impl From<EnrolledError> for Failed {
    fn from(error: EnrolledError) -> Self {
        Self::Renew(error.into())
    }
}

impl Failed {
    fn word(&self) -> &'static str {
        match self {
            Self::Renew(error) => error.word(),
            Self::Reload(_) => "files",
        }
    }
}

/// Reloads the certificates whenever their files change.
pub(super) async fn watch_files(publisher: Arc<Publisher>) {
    let mut watch = FileWatch::new(&publisher.identity);
    loop {
        tokio::time::sleep(LOOK).await;
        let look = move |store: &IdentityStore| {
            let told = watch.look(store, UnixTime::now());
            (watch, told)
        };
        let told;
        (watch, told) = match publisher.change(look).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "certificate files are no longer watched");
                return;
            }
        };
        match told {
            None => {}
            Some(Ok(())) => {
                let not_after = publisher.identity.current().not_after().as_secs();
                tracing::info!(not_after, "new certificates in force: their files have changed");
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "certificate files have changed and do not hold together; those in force stay");
            }
        }
    }
}

/// Renews the node's certificate whenever it is time.
pub(super) async fn renew(publisher: Arc<Publisher>, renewer: Renewer, metrics: RenewalMetrics) {
    loop {
        let identity = publisher.identity.current();
        wait_for(&publisher, &identity, identity.renewal_time()).await;
        let present = publisher.identity.current();
        if UnixTime::now() < present.renewal_time() {
            continue;
        }
        match renew_once(&publisher, &renewer).await {
            Ok(word) => metrics.count(word),
            Err(failed) => {
                metrics.count(failed.word());
                let left = schedule::left(present.not_after(), UnixTime::now());
                let pause = schedule::retry_pause(left, rand::random());
                tracing::warn!(
                    error = %failed, seconds_left = left.as_secs(), pause_seconds = pause.as_secs(),
                    "certificate not renewed; trying again"
                );
                let until = UnixTime::now().as_secs().saturating_add(pause.as_secs().max(1));
                let until = UnixTime::since_unix_epoch(Duration::from_secs(until));
                wait_for(&publisher, &present, until).await;
            }
        }
    }
}

/// Waits until `at`, or until another identity than `present` is in force.
async fn wait_for(publisher: &Publisher, present: &Arc<Identity>, at: UnixTime) {
    while Arc::ptr_eq(&publisher.identity.current(), present) {
        if tokio::time::timeout(GLANCE, schedule::reached(at)).await.is_ok() {
            return;
        }
    }
}

async fn renew_once(publisher: &Publisher, renewer: &Renewer) -> Result<&'static str, Failed> {
    let present = publisher.identity.current();
    let renewal = renewer.ask().await?;
    let how = renewal.how;
    let replace = move |store: &IdentityStore| -> Result<Reloaded, Failed> {
        renewal.install(store.files(), &present, UnixTime::now())?;
        Ok(store.reload(UnixTime::now())?)
    };
    publisher.change(replace).await.map_err(RenewError::from)??;
    let not_after = publisher.identity.current().not_after().as_secs();
    tracing::info!(not_after, how = how.word(), "certificate renewed; open connections stay");
    Ok(how.word())
}
