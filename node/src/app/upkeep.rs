//! Certificates while the node runs: renewed before they end, and reloaded when their files change.

use super::publish::Publisher;
use crate::{
    enrol::{RenewError, RenewalMetrics, Renewer},
    identity::{
        Bundle, EnrolledError, FileWatch, Identity, IdentityError, IdentityStore, Reloaded, UnixTime,
        needs_reissue, schedule,
    },
};
use std::{sync::Arc, time::Duration};

/// Pause between two looks at the certificate files.
const LOOK: Duration = Duration::from_secs(2);
/// Pause between two looks whether another certificate is in force, while this one is waited for.
const GLANCE: Duration = Duration::from_secs(30);

/// Longest pause between tries while another root issues: a rotation waits for every node.
const REISSUE_PAUSE: Duration = Duration::from_secs(10);

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

/// Tells the cluster which roots are trusted here, and shows it a certificate that was issued anew.
pub(super) async fn follow_trust(publisher: Arc<Publisher>) {
    let mut changes = publisher.anchors.subscribe();
    while changes.changed().await.is_ok() {
        if let Err(refusal) = publisher.publish().await {
            tracing::error!(error = %refusal, "the new trust bundle could not be published");
        }
    }
}

/// Renews the node's certificate whenever it is time, and when another root issues.
pub(super) async fn renew(publisher: Arc<Publisher>, renewer: Renewer, metrics: RenewalMetrics) {
    loop {
        let present = publisher.identity.current();
        let bundle = publisher.anchors.bundle();
        let bundle = bundle.filter(|bundle| needs_reissue(&present, bundle, UnixTime::now()));
        if bundle.is_none() && UnixTime::now() < present.renewal_time() {
            wait_for(&publisher, &present, present.renewal_time()).await;
            continue;
        }
        let pause_max = if bundle.is_some() { REISSUE_PAUSE } else { Duration::MAX };
        match renew_once(&publisher, &renewer, bundle).await {
            Ok(word) => metrics.count(word),
            Err(failed) => {
                metrics.count(failed.word());
                let left = schedule::left(present.not_after(), UnixTime::now());
                let pause = schedule::retry_pause(left, rand::random()).min(pause_max);
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

/// Waits until `at`, or until another identity than `present` or another trust bundle is in force.
async fn wait_for(publisher: &Publisher, present: &Arc<Identity>, at: UnixTime) {
    let mut trust = publisher.anchors.subscribe();
    while Arc::ptr_eq(&publisher.identity.current(), present) {
        tokio::select! {
            () = schedule::reached(at) => return,
            _changed = trust.changed() => return,
            () = tokio::time::sleep(GLANCE) => {}
        }
    }
}

async fn renew_once(
    publisher: &Publisher,
    renewer: &Renewer,
    bundle: Option<Bundle>,
) -> Result<&'static str, Failed> {
    let present = publisher.identity.current();
    let renewal = renewer.ask().await?;
    let how = renewal.how;
    let replace = move |store: &IdentityStore| -> Result<Reloaded, Failed> {
        renewal.install(store.files(), &present, bundle.as_ref(), UnixTime::now())?;
        Ok(store.reload(UnixTime::now())?)
    };
    publisher.change(replace).await.map_err(RenewError::from)??;
    let not_after = publisher.identity.current().not_after().as_secs();
    tracing::info!(not_after, how = how.word(), "certificate renewed; open connections stay");
    Ok(how.word())
}
