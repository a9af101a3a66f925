//! All join tokens of a coordinator, durable before anybody is told; and where a node that joined found its
//! coordinator. Every call that changes something blocks on the disk.

use super::token::{StoredToken, Use};
use crate::{
    config::SeedAddress,
    identity::{TokenId, UnixTime},
    persist::{Loaded, PersistError, StateDirectory, StateFile},
};
use p2p_core::NodeId;
use serde::{Deserialize, Serialize};

/// Most tokens that are kept, in any state.
pub const MAX_TOKENS: usize = 10_000;
/// Most uses of one token.
pub const MAX_USES: u32 = 1_000;
/// How long after its end a token is remembered, so that the operator is told why it is refused, in seconds.
const REMEMBER_SECONDS: u64 = 24 * 60 * 60;
/// Most bytes that all tokens may come to once every use is up; below what a state file may hold.
const MAX_STATE_BYTES: usize = 56 * 1024 * 1024;
/// Bytes that one token, and each of its uses, may come to without the grant.
const TOKEN_BYTES: usize = 1024;
const USE_BYTES: usize = 7 * 1024;
/// The file's name in the state directory.
const FILE: &str = "identity_state.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct EnrolState {
    #[serde(default)]
    join_tokens: Vec<StoredToken>,
    /// Where this node joined.
    #[serde(default)]
    coordinators: Vec<String>,
}

/// Why a token was not kept or changed. What was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room.
    #[error(
        "this coordinator keeps as many join tokens as it can ({MAX_TOKENS}, or fewer with many uses); those that \
         expired a day ago make room"
    )]
    Full,
    /// No such token.
    #[error("no join token {0} here; `p2pctl cluster join-token list` shows this coordinator's")]
    NotFound(TokenId),
    /// The disk.
    #[error(transparent)]
    Persist(#[from] PersistError),
}

/// The tokens and the file that keeps them.
#[derive(Debug)]
pub struct TokenStore {
    file: StateFile<EnrolState>,
    state: EnrolState,
}

impl TokenStore {
    /// Reads what is kept in `directory`. Damaged state is moved aside; its tokens are then unknown.
    ///
    /// # Errors
    ///
    /// When a file is there and cannot be read.
    pub fn load(directory: &StateDirectory) -> Result<Self, PersistError> {
        let (file, loaded) = StateFile::load(directory, FILE)?;
        let state = match loaded {
            Loaded::Ok(state) => state,
            Loaded::Missing => EnrolState::default(),
            Loaded::Corrupt { moved_to } => {
                tracing::error!(moved_to = %moved_to.display(), "join tokens made before are no longer valid");
                EnrolState::default()
            }
        };
        Ok(Self { file, state })
    }

    /// All tokens, oldest first.
    pub fn tokens(&self) -> &[StoredToken] {
        &self.state.join_tokens
    }

    /// The token of that id. Looks at all of them, so that its time does not tell which there are.
    pub fn find(&self, id: &TokenId) -> Option<&StoredToken> {
        self.state
            .join_tokens
            .iter()
            .fold(None, |found, token| if token.id == *id { Some(token) } else { found })
    }

    /// Keeps a new token; those that ended long ago make room.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], or the disk's.
    pub fn add(&mut self, token: StoredToken, now: UnixTime) -> Result<(), StoreError> {
        let ended = |token: &StoredToken| token.expires_at.saturating_add(REMEMBER_SECONDS) < now.as_secs();
        self.state.join_tokens.retain(|token| !ended(token));
        let tokens = &mut self.state.join_tokens;
        let bytes: usize = tokens.iter().chain([&token]).map(bytes_at_most).sum();
        if tokens.len() >= MAX_TOKENS || bytes > MAX_STATE_BYTES {
            return Err(StoreError::Full);
        }
        tokens.push(token);
        let saved = self.file.save(&self.state);
        if saved.is_err() {
            self.state.join_tokens.pop();
        }
        Ok(saved?)
    }

    /// Takes a token back. What it enrolled already stays enrolled.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], or the disk's.
    pub fn revoke(&mut self, id: &TokenId) -> Result<&StoredToken, StoreError> {
        let index = self.state.join_tokens.iter().position(|token| token.id == *id);
        let index = index.ok_or(StoreError::NotFound(*id))?;
        let before = std::mem::replace(&mut self.state.join_tokens[index].revoked, true);
        if !before && let Err(error) = self.file.save(&self.state) {
            self.state.join_tokens[index].revoked = false;
            return Err(error.into());
        }
        Ok(&self.state.join_tokens[index])
    }

    /// Records one redemption of a token that is there.
    pub(super) fn record(&mut self, id: &TokenId, redemption: Use) -> Result<(), PersistError> {
        let Some(index) = self.state.join_tokens.iter().position(|token| token.id == *id) else {
            return Ok(());
        };
        self.state.join_tokens[index].used.push(redemption);
        let saved = self.file.save(&self.state);
        if saved.is_err() {
            self.state.join_tokens[index].used.pop();
        }
        saved
    }

    /// Certificates that were issued to `node` by the tokens that are kept.
    pub(super) fn issued_to<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Use> {
        self.state.join_tokens.iter().flat_map(|token| &token.used).filter(move |used| used.node_id == *node)
    }

    /// Where this node joined, so that it finds its cluster again without the token.
    pub fn coordinators(&self) -> Vec<SeedAddress> {
        self.state.coordinators.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Remembers where this node joins.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn remember_coordinators(&mut self, addresses: &[SeedAddress]) -> Result<(), PersistError> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let before = std::mem::replace(&mut self.state.coordinators, addresses);
        self.file.save(&self.state).inspect_err(|_| self.state.coordinators = before)
    }
}

fn bytes_at_most(token: &StoredToken) -> usize {
    let grant: usize = token.grant.iter().flatten().map(|glob| 2 * glob.len() + 16).sum();
    let uses = usize::try_from(token.uses).unwrap_or(usize::MAX);
    uses.saturating_mul(USE_BYTES.saturating_add(grant)).saturating_add(TOKEN_BYTES).saturating_add(grant)
}
