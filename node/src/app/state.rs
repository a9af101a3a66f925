//! What a start finds on disk.

use super::error::StartError;
use crate::{
    config::{Config, SeedAddress},
    enrol::{RotationFile, TokenStore},
    identity::AnchorsFile,
    persist::{GossipFile, StateDirectory},
    revocation::{Keeper, Kept},
    token::{SignerFile, signers::Chain},
    upstream::{ServiceFile, Spec},
};
use std::{net::SocketAddr, time::SystemTime};

/// What start-up reads and writes on disk.
pub(super) struct Prepared {
    pub(super) gossip_file: GossipFile,
    pub(super) tokens: TokenStore,
    pub(super) keeper: Keeper,
    pub(super) kept: Kept,
    pub(super) signers: (SignerFile, Vec<Chain>),
    pub(super) anchors: AnchorsFile,
    pub(super) rotation: RotationFile,
    pub(super) services: ServiceFile,
    pub(super) upstreams: Vec<Spec>,
}

/// Opens the state directory and reads all that is in it; the epoch of this start is on disk then. Blocks.
pub(super) fn prepare(config: &Config) -> Result<Prepared, StartError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let directory = StateDirectory::open(&config.state_directory)?;
    tracing::info!(directory = %directory.path().display(), "state directory");
    let gossip_file =
        GossipFile::start(&directory, config.gossip_state_file.as_str(), &config.node_id, unix_ms)?;
    if let Some(moved_to) = gossip_file.moved_aside() {
        tracing::error!(moved_to = %moved_to.display(), "damaged gossip state moved aside; starting from the clock");
    }
    let tokens = TokenStore::load(&directory)?;
    let (keeper, kept) = Keeper::open(&directory, &config.jwt_blacklist_file)?;
    let signers = SignerFile::load(&directory)?;
    let (anchors, rotation) = (AnchorsFile::load(&directory)?, RotationFile::load(&directory)?);
    let services = ServiceFile::load(&directory, &config.service_state_file)?;
    let upstreams = config.services.iter().map(Spec::load).collect::<Result<_, _>>()?;
    Ok(Prepared { gossip_file, tokens, keeper, kept, signers, anchors, rotation, services, upstreams })
}

/// Whether revocations may be missing, and this node must not guess.
pub(super) fn is_incomplete(kept: &Kept, accept_state_loss: bool) -> bool {
    match (kept.incomplete, accept_state_loss) {
        (false, _) => false,
        (true, true) => {
            tracing::warn!(
                "--accept-state-loss: revocations were lost, and tokens are accepted all the same"
            );
            false
        }
        (true, false) => {
            tracing::error!(
                "revocations on disk were damaged and may be missing: no access token is accepted until another node has told \
                 them again; if there is none, restart with --accept-state-loss"
            );
            true
        }
    }
}

/// Where the members were before this start.
pub(super) fn remembered(file: &GossipFile) -> Vec<SocketAddr> {
    file.members().into_iter().map(|member| member.address).collect()
}

/// Where to look for the cluster: as configured, else where this node joined.
pub(super) fn seeds(config: &Config, tokens: &TokenStore) -> Vec<SeedAddress> {
    match config.coordinator_addresses.is_empty() {
        true => tokens.coordinators(),
        false => config.coordinator_addresses.clone(),
    }
}
