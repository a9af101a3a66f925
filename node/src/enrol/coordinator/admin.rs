//! What admins do: make, list and take back join tokens.

use super::{Enrolment, blocking};
use crate::{
    auth::not_coordinator,
    config::{SeedAddress, SeedHost},
    enrol::{
        store::{MAX_USES, StoreError},
        token::{StoredToken, hash},
    },
    error::{Fault, Reason},
    identity::{CaError, JoinToken, TokenId, TokenSecret, UnixTime, join_token::MAX_ADDRESSES},
};
use p2p_core::{NodeId, Role, SpiffeId, grant::Grant};
use p2p_proto::v1::JoinTokenInfo;
use std::{sync::Arc, time::Duration};

/// Validity of a join token when none is asked for.
const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);
/// Longest validity of a join token.
pub(super) const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a new token is to allow.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The role of the certificates.
    pub role: Role,
    /// The only node that may redeem it.
    pub node: Option<NodeId>,
    /// The services that the certificates may provide; `None` for all but the reserved ones.
    pub grant: Option<Grant>,
    /// How long it can be redeemed; zero for one hour.
    pub ttl: Duration,
    /// How many nodes may redeem it; 0 for one.
    pub uses: u32,
    /// Whether it may take over the id of a node whose certificate is still valid.
    pub replace: bool,
    /// The admin.
    pub created_by: SpiffeId,
}

impl Enrolment {
    /// Makes a token; its text is in the answer and nowhere else.
    ///
    /// # Errors
    ///
    /// [`Reason::Precondition`] where no CA is at hand, [`Reason::InvalidArgument`] for what no token may allow.
    pub async fn create(self: &Arc<Self>, new: NewToken) -> Result<(JoinToken, JoinTokenInfo), Fault> {
        let this = self.clone();
        blocking(move || this.create_now(new, UnixTime::now())).await?
    }

    fn create_now(&self, new: NewToken, now: UnixTime) -> Result<(JoinToken, JoinTokenInfo), Fault> {
        let identity = self.identity.current();
        let ca = self.ca(&identity, now).map_err(|why| self.not_here(&why))?;
        let invalid = |what: String| Fault::new(Reason::InvalidArgument, what);
        let ttl = if new.ttl.is_zero() { DEFAULT_TTL } else { new.ttl };
        let uses = new.uses.max(1);
        match new.role {
            Role::Worker => {}
            Role::Coordinator => {
                ca.check_cas_below().map_err(|why| {
                    let own = &identity.spiffe().name;
                    Fault::new(Reason::Precondition, format!("{own} cannot take in coordinators: {why}"))
                })?;
            }
            Role::Admin | Role::TokenSigner => {
                return Err(invalid(format!(
                    "join tokens are for nodes, workers and coordinators, not for a {}",
                    new.role
                )));
            }
        }
        if new.role == Role::Coordinator && uses > 1 {
            return Err(invalid("a join token for a coordinator has one use".to_owned()));
        }
        if ttl > MAX_TTL || uses > MAX_USES {
            let days = MAX_TTL.as_secs() / 86_400;
            return Err(invalid(format!(
                "a join token lives at most {days}d and has at most {MAX_USES} uses"
            )));
        }
        if new.node.is_some() && uses > 1 {
            return Err(invalid("a join token for one node has one use".to_owned()));
        }
        let expires = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + ttl);
        let addresses = self.advertised.iter().take(MAX_ADDRESSES);
        let token = JoinToken {
            id: TokenId::new(random()?),
            secret: TokenSecret::new(random()?),
            pins: identity.trust().pins().into_iter().take(crate::identity::join_token::MAX_PINS).collect(),
            cluster: identity.cluster_id().clone(),
            coordinators: addresses
                .map(|address| SeedAddress { host: SeedHost::Ip(address.ip()), port: address.port() })
                .collect(),
            role: new.role,
            node: new.node.clone(),
            expires,
        };
        let stored = StoredToken {
            id: token.id,
            secret_sha256: hash(token.secret.expose()),
            role: new.role,
            node_id: new.node,
            grant: new.grant.map(|grant| grant.globs()),
            replace: new.replace,
            uses,
            created_at: now.as_secs(),
            expires_at: expires.as_secs(),
            created_by: new.created_by.to_string(),
            revoked: false,
            used: Vec::new(),
            unknown: serde_json::Map::new(),
        };
        let info = stored.info(now);
        self.store().add(stored, now).map_err(store_fault)?;
        self.show_tokens();
        tracing::info!(token.id = %token.id, by = %new.created_by, uses, "join token made");
        Ok((token, info))
    }

    /// The tokens of this coordinator, oldest first.
    ///
    /// # Errors
    ///
    /// [`Reason::Precondition`] at a node that makes none.
    pub async fn list(self: &Arc<Self>) -> Result<Vec<JoinTokenInfo>, Fault> {
        let this = self.clone();
        blocking(move || {
            let now = UnixTime::now();
            this.ca(&this.identity.current(), now).map_err(|why| this.not_here(&why))?;
            Ok(this.store().tokens().iter().map(|token| token.info(now)).collect())
        })
        .await?
    }

    /// Takes a token back. What it enrolled already stays enrolled.
    ///
    /// # Errors
    ///
    /// [`Reason::NotFound`], or [`Reason::Precondition`] at a node that makes none.
    pub async fn revoke(self: &Arc<Self>, id: TokenId, by: SpiffeId) -> Result<JoinTokenInfo, Fault> {
        let this = self.clone();
        blocking(move || {
            let now = UnixTime::now();
            this.ca(&this.identity.current(), now).map_err(|why| this.not_here(&why))?;
            let info = this.store().revoke(&id).map_err(store_fault)?.info(now);
            tracing::info!(token.id = %id, by = %by, "join token revoked");
            Ok(info)
        })
        .await?
    }

    /// Why this node makes no tokens, and who does.
    pub(super) fn not_here(&self, why: &CaError) -> Fault {
        not_coordinator(self.identity.current().spiffe(), why, &self.view.borrow())
    }
}

fn store_fault(error: StoreError) -> Fault {
    match error {
        StoreError::Full => Fault::new(Reason::Precondition, error.to_string()),
        StoreError::NotFound(_) => Fault::new(Reason::NotFound, error.to_string()),
        StoreError::Persist(error) => Fault::internal(error),
    }
}

fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bits = [0; N];
    aws_lc_rs::rand::fill(&mut bits).map_err(Fault::internal)?;
    Ok(bits)
}
