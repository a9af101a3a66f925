//! The node's certificate at start: found, made, joined for with a token, or recovered.

use super::{advertise, error::StartError};
use crate::{
    config::Config,
    enrol::{JoinError, JoinSource, Joining, Recovery, RenewalMetrics, TokenStore, join, recover},
    identity::{
        BootstrapPolicy, Created, Expected, Identity, IdentityError, IdentityFiles, IdentityStore, San,
        UnixTime, enrolled, ensure, files::node_sans,
    },
};
use p2p_core::Role;
use std::net::SocketAddr;

/// Loads the node's identity, after making it or joining for it if there is none. `listening` is bound
/// already: the coordinator looks whether it can reach this node.
pub(super) async fn obtain(
    config: &Config,
    source: Option<JoinSource>,
    listening: SocketAddr,
    tokens: &mut TokenStore,
    renewals: &RenewalMetrics,
) -> Result<IdentityStore, StartError> {
    let files = files(config);
    let may_join = source.is_some() && config.https_enabled;
    let (ensure_config, ensure_files) = (config.clone(), files.clone());
    let created = blocking(move || make(&ensure_config, &ensure_files, may_join)).await??;
    if created == Created::MustEnrol
        && let Some(source) = source
    {
        enrol(config, source, &files, listening, tokens).await?;
    } else if let Some(source) = source {
        tracing::info!(%source, "this node has a certificate; the join token is not used");
    }
    let (load_config, load_files) = (config.clone(), files.clone());
    match blocking(move || load(&load_config, load_files)).await? {
        Err(expired @ IdentityError::Expired { .. }) if config.https_enabled => {
            revive(config, files.clone(), expired, tokens, renewals).await?;
        }
        loaded => return Ok(loaded?),
    }
    let load_config = config.clone();
    Ok(blocking(move || load(&load_config, files)).await??)
}

/// A new certificate for a node whose own has expired: from its own CA, or from a coordinator that the old key
/// convinces.
async fn revive(
    config: &Config,
    files: IdentityFiles,
    expired: IdentityError,
    tokens: &TokenStore,
    renewals: &RenewalMetrics,
) -> Result<(), StartError> {
    let IdentityError::Expired { not_after, .. } = &expired else { return Err(expired.into()) };
    let (last_second, expectation, load_files) = (*not_after, expectation(config), files.clone());
    // As it was in its last second: whole, and able to sign.
    let identity = blocking(move || Identity::load(&load_files, &expectation, last_second)).await??;
    if identity.stands_alone() {
        return Err(expired.into());
    }
    tracing::warn!(%expired, "recovering");
    let joined = tokens.coordinators().into_iter();
    let recovery = Recovery {
        names: node_sans(&config.node_id, &sans(config)),
        expired: identity,
        files,
        seeds: config.coordinator_addresses.iter().cloned().chain(joined).collect(),
        ttl: config.enrolled_certificate_ttl,
    };
    match recover(recovery).await {
        Ok(how) => {
            renewals.count(how.word());
            tracing::info!(node = %config.node_id, "recovered; a new certificate and key are written");
            Ok(())
        }
        Err(why) => Err(StartError::Recover { expired: Box::new(expired), why: Box::new(why) }),
    }
}

/// Names to renew the certificate with, beside those that it carries.
pub(super) fn names(config: &Config, advertised: &[SocketAddr]) -> Vec<San> {
    let advertised = advertised.iter().map(|address| San::Ip(address.ip()));
    node_sans(&config.node_id, &sans(config)).into_iter().chain(advertised).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn files(config: &Config) -> IdentityFiles {
    IdentityFiles {
        cert: config.ssl_cert_file.clone(),
        key: config.ssl_key_file.clone(),
        ca_cert: config.ssl_ca_cert_file.clone(),
        ca_key: config.ssl_ca_key_file.clone(),
    }
}

/// Names for a certificate, beside those that every node has.
fn sans(config: &Config) -> Vec<San> {
    let configured = config.advertise_addresses.iter().map(|address| address.ip);
    let bound = Some(config.bind_address).filter(|ip| !ip.is_unspecified());
    configured.chain(bound).map(San::Ip).collect()
}

/// Without TLS nothing is verified; the certificate then only names the node.
fn verifies(config: &Config) -> bool {
    config.ssl_verify && config.https_enabled
}

fn make(config: &Config, files: &IdentityFiles, may_join: bool) -> Result<Created, StartError> {
    if enrolled::complete(files).map_err(JoinError::from)? {
        tracing::info!(certificate = %files.cert.display(), "completed a join or renewal that had been interrupted");
    }
    let policy = BootstrapPolicy {
        node_id: config.node_id.clone(),
        cluster_id: config.cluster_id.clone(),
        coordinator: config.coordinator_mode,
        ssl_verify: verifies(config),
        has_join_token: may_join,
        sans: sans(config),
    };
    let created = ensure(files, &policy, UnixTime::now())?;
    if created == Created::SelfSigned {
        tracing::warn!(
            certificate = %files.cert.display(),
            "ssl_verify is off: made a self-signed certificate; this node stands alone and joins no cluster"
        );
    }
    Ok(created)
}

async fn enrol(
    config: &Config,
    source: JoinSource,
    files: &IdentityFiles,
    listening: SocketAddr,
    tokens: &mut TokenStore,
) -> Result<(), StartError> {
    let token = blocking(move || source.read()).await?.map_err(JoinError::from)?;
    // The way to the coordinator tells which of our addresses others should dial.
    let mut towards = config.clone();
    if towards.coordinator_addresses.is_empty() {
        towards.coordinator_addresses = token.coordinators.clone();
    }
    let advertised = advertise::addresses(&towards, listening);
    let joining = Joining {
        node: config.node_id.clone(),
        role: if config.coordinator_mode { Role::Coordinator } else { Role::Worker },
        cluster: config.cluster_id.clone(),
        files: files.clone(),
        advertise: advertised.first().copied().unwrap_or(listening),
        sans: node_sans(&config.node_id, &sans(config)),
    };
    // Before the certificate: with one, and without the addresses, the node would be lost after a restart.
    tokens.remember_coordinators(&token.coordinators)?;
    Ok(join(&token, joining).await?)
}

fn expectation(config: &Config) -> Expected {
    Expected {
        node_id: config.node_id.clone(),
        cluster_id: config.cluster_id.clone(),
        coordinator: config.coordinator_mode,
        may_stand_alone: !verifies(config),
    }
}

fn load(config: &Config, files: IdentityFiles) -> Result<IdentityStore, IdentityError> {
    let store = IdentityStore::load(files, expectation(config), UnixTime::now())?;
    for warning in store.current().warnings() {
        tracing::warn!("{warning}");
    }
    Ok(store)
}
