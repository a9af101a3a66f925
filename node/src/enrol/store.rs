//! All join tokens of a coordinator and the newest certificate of each node, durable before anybody is told;
//! and where a node that joined found its coordinator. Every call that changes something blocks on the disk.

use super::token::{Newest, StoredToken, Use};
use crate::{
    config::SeedAddress,
    identity::{TokenId, UnixTime},
    persist::{Loaded, PersistError, StateDirectory, StateFile},
    token::StoredSigner,
};
use p2p_core::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most tokens that are kept, in any state.
pub const MAX_TOKENS: usize = 10_000;
/// Most uses of one token.
pub const MAX_USES: u32 = 1_000;
/// How long after its end a token is remembered, so that the operator is told why it is refused, in seconds.
const REMEMBER_SECONDS: u64 = 24 * 60 * 60;
/// Most nodes whose newest certificate is remembered; those that end first make room.
pub const MAX_NEWEST: usize = 20_000;
/// Most bytes that all tokens may come to once every use is up; below what a state file may hold.
const MAX_STATE_BYTES: usize = 48 * 1024 * 1024;
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
    /// Keys that sign access tokens.
    #[serde(default)]
    token_signers: Vec<StoredSigner>,
    /// The newest certificate issued to each node.
    #[serde(default)]
    newest: BTreeMap<NodeId, Newest>,
}

impl EnrolState {
    /// Forgets what ended before `forget_before`, makes room, and returns what was known of `node`.
    fn remember(&mut self, node: &NodeId, newest: Newest, forget_before: u64) -> Option<Newest> {
        self.newest.retain(|_, known| known.not_after >= forget_before);
        if self.newest.len() >= MAX_NEWEST
            && !self.newest.contains_key(node)
            && let Some(first) = self.newest.iter().min_by_key(|(_, known)| known.not_after)
        {
            let first = first.0.clone();
            self.newest.remove(&first);
        }
        self.newest.insert(node.clone(), newest)
    }

    fn restore(&mut self, node: &NodeId, before: Option<Newest>) {
        match before {
            Some(before) => self.newest.insert(node.clone(), before),
            None => self.newest.remove(node),
        };
    }
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

    /// Records one redemption of a token that is there, and its certificate as the newest of the node.
    pub(super) fn record(
        &mut self,
        id: &TokenId,
        redemption: Use,
        newest: Newest,
        forget_before: u64,
    ) -> Result<(), PersistError> {
        let Some(index) = self.state.join_tokens.iter().position(|token| token.id == *id) else {
            return Ok(());
        };
        let node = redemption.node_id.clone();
        self.state.join_tokens[index].used.push(redemption);
        let before = self.state.remember(&node, newest, forget_before);
        let saved = self.file.save(&self.state);
        if saved.is_err() {
            self.state.join_tokens[index].used.pop();
            self.state.restore(&node, before);
        }
        saved
    }

    /// Records a certificate that was issued to `node` anew.
    pub(super) fn record_newest(
        &mut self,
        node: &NodeId,
        newest: Newest,
        forget_before: u64,
    ) -> Result<(), PersistError> {
        let before = self.state.remember(node, newest, forget_before);
        let saved = self.file.save(&self.state);
        if saved.is_err() {
            self.state.restore(node, before);
        }
        saved
    }

    /// The newest certificate that was issued to `node` here.
    pub(super) fn newest(&self, node: &NodeId) -> Option<&Newest> {
        self.state.newest.get(node)
    }

    /// Certificates that were issued to `node` by the tokens that are kept.
    pub(super) fn issued_to<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Use> {
        self.state.join_tokens.iter().flat_map(|token| &token.used).filter(move |used| used.node_id == *node)
    }

    /// The keys that sign access tokens.
    pub(super) fn signers(&self) -> Vec<StoredSigner> {
        self.state.token_signers.clone()
    }

    /// Replaces them.
    pub(super) fn keep_signers(&mut self, signers: Vec<StoredSigner>) -> Result<(), PersistError> {
        let before = std::mem::replace(&mut self.state.token_signers, signers);
        self.file.save(&self.state).inspect_err(|_| self.state.token_signers = before)
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
