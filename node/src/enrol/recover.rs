//! How a node whose certificate has expired gets a new one: the old key, which nobody else has, signs for the
//! new one. No token, no admin, as long as it is not older than the coordinator's `recover_window`.
//!
//! The connection is anonymous, since nobody takes an expired certificate; who answers must be of the node's
//! cluster, and the answer is checked like every other. So nothing secret leaves, and nothing is believed.

use super::renew::{Failed, How, RenewError, Renewal, Tries, answer, client, names, own, resolve_all};
use crate::{
    config::SeedAddress,
    identity::{Enrolled, Identity, IdentityFiles, RenewalKey, San, UnixTime, recovery_message},
    peer::{DIAL_TIMEOUT, DialError, dial},
    revocation::Live,
};
use p2p_core::Role;
use p2p_proto::v1::RecoverRequest;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Pause after the first round of addresses; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Asks for a new certificate in the name of `expired`, at each address in turn.
pub(super) async fn ask(
    expired: &Identity,
    csr: &[u8],
    sans: Vec<String>,
    addresses: &[SocketAddr],
) -> Result<Enrolled, RenewError> {
    let request = RecoverRequest {
        certificate_chain: expired.chain_der().iter().map(|der| der.to_vec().into()).collect(),
        csr: csr.to_vec().into(),
        signature: expired.sign(&recovery_message(expired.cluster_id(), csr)).into(),
        sans,
    };
    let config = expired.anonymous_client_config()?;
    let mut tries = Tries::default();
    for address in addresses {
        match ask_one(*address, config.clone(), request.clone()).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(failed) => tries.note(*address, failed),
        }
    }
    Err(tries.into_error())
}

async fn ask_one(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    request: RecoverRequest,
) -> Result<Enrolled, Failed> {
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, dial(address, config, &Live::default())).await;
    let dialled = dialled.unwrap_or(Err(DialError::Timeout { address }));
    let connection = dialled.map_err(|error| Failed::Later(error.to_string()))?;
    answer(address, client(connection)?.recover(request)).await
}

/// What a node with an expired certificate needs to start all the same.
#[derive(Debug)]
pub struct Recovery {
    /// Its identity as of the certificate's last second.
    pub expired: Identity,
    /// Where it lies.
    pub files: IdentityFiles,
    /// Where coordinators may be.
    pub seeds: Vec<SeedAddress>,
    /// Names for its certificate, beside those that it carries.
    pub names: Vec<San>,
    /// `enrolled_certificate_ttl`, for a coordinator's own.
    pub ttl: Duration,
}

/// Recovers before the node starts. A coordinator with the CA's key issues for itself; a worker asks for as long
/// as it takes, since without a certificate it could do nothing else.
///
/// # Errors
///
/// A refusal by every coordinator that there is, or what does not change by waiting.
pub async fn recover(recovery: Recovery) -> Result<How, RenewError> {
    let Recovery { expired, files, seeds, names: configured, ttl } = recovery;
    let names = names(&expired, &configured);
    let expired = Arc::new(expired);
    if expired.spiffe().role == Role::Coordinator {
        let work = move || -> Result<How, RenewError> {
            let renewal = own(&expired, &files, &names, ttl, UnixTime::now())?;
            Ok(renewal.install(&files, &expired, None, UnixTime::now())?)
        };
        return tokio::task::spawn_blocking(work).await?;
    }
    if seeds.is_empty() {
        return Err(RenewError::Nobody);
    }
    let (key_files, node) = (files.clone(), expired.spiffe().name.clone());
    let key = tokio::task::spawn_blocking(move || RenewalKey::prepare(&key_files, &node)).await??;
    let sans: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut pause = PAUSE_MIN;
    let answer = loop {
        match ask(&expired, key.csr(), sans.clone(), &resolve_all(&seeds).await).await {
            Ok(answer) => break answer,
            Err(error @ (RenewError::Away { .. } | RenewError::Nobody)) => {
                tracing::warn!(%error, pause_seconds = pause.as_secs(), "certificate not recovered yet; trying again");
            }
            Err(
                error @ (RenewError::Refused { .. }
                | RenewError::Files(_)
                | RenewError::Ca(_)
                | RenewError::Interrupted(_)
                | RenewError::Tls(_)),
            ) => return Err(error),
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    let renewal = Renewal { key, answer, how: How::Recovered };
    let install = move || renewal.install(&files, &expired, None, UnixTime::now());
    Ok(tokio::task::spawn_blocking(install).await??)
}
