//! From the text of a token to what it proves.

use super::{
    LEEWAY, MAX_ISSUED_AHEAD, MAX_TOKEN_BYTES, TYPE,
    claims::{Claims, Header, Parts},
    refusal::TokenRefusal,
    signers::{Signer, Signers},
};
use crate::{identity::UnixTime, telemetry::Metrics};
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use p2p_core::{NodeId, Principal, Scope, Subject, TokenHolder};
use prometheus_client::metrics::counter::Counter;
use quick_cache::sync::Cache;
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most verified tokens that are remembered; the least useful make room.
pub const CACHE_LIMIT: usize = 65_536;
/// Longest id of a token, in bytes. Ours are 128 random bits as hexadecimal.
const MAX_JTI_LEN: usize = 64;

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// For whom, and which one.
    pub holder: TokenHolder,
    /// When it was issued, Unix seconds.
    pub issued_at: u64,
    /// Its last second, Unix seconds.
    pub expires_at: u64,
    /// What it allows.
    pub scope: Scope,
    /// The coordinator whose key signed it.
    pub signer: NodeId,
    /// That key.
    pub kid: Box<str>,
    /// Its subject as services read it.
    pub(crate) header: HeaderValue,
}

impl AccessToken {
    /// Whom it proves.
    pub fn principal(&self) -> Principal {
        Principal::Token(self.holder.clone())
    }

    /// For whom it was issued.
    pub fn subject(&self) -> &Subject {
        &self.holder.subject
    }

    fn is_over(&self, now: u64) -> bool {
        self.expires_at.saturating_add(LEEWAY) < now
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("signers", &self.signers).finish_non_exhaustive()
    }
}

/// Why a genuine token is refused all the same: it was taken back.
pub type Objection = dyn Fn(&AccessToken) -> Option<TokenRefusal> + Send + Sync;

/// Verifies tokens, and remembers those that it has verified.
pub struct Verifier {
    signers: Signers,
    /// Asked for each call, also of a token that is remembered.
    objection: Box<Objection>,
    /// By SHA-256 of the compact text. A token of an earlier generation counts as unknown.
    cache: Cache<[u8; 32], (u64, Arc<AccessToken>)>,
    generation: AtomicU64,
    cached: Counter,
    verified: Counter,
}

impl Verifier {
    /// A verifier with the keys of `signers`, which refuses what `objection` objects to.
    pub fn new(signers: Signers, objection: Box<Objection>, metrics: &Metrics) -> Self {
        let (cached, verified) = (Counter::default(), Counter::default());
        metrics.register(|registry| {
            registry.register("token_cache_hits", "Access tokens found among those verified", cached.clone());
            registry.register("tokens_verified", "Access tokens verified anew", verified.clone());
            registry.register("token_signers", "Keys that verify access tokens", signers.count());
        });
        let cache = Cache::new(CACHE_LIMIT);
        Self { signers, objection, cache, generation: AtomicU64::new(0), cached, verified }
    }

    /// The keys.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// Verifies the token `compact` at `now`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong; the cheap checks come first, and time after the signature, so that
    /// [`TokenRefusal::Expired`] means that the token was genuine.
    pub fn verify(&self, compact: &str, now: UnixTime) -> Result<Arc<AccessToken>, TokenRefusal> {
        if compact.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::TooLarge(compact.len()));
        }
        let now = now.as_secs();
        let key = sha256(compact);
        // Before anything is read, so that what is verified with older knowledge is not kept as newer.
        let generation = self.generation.load(Ordering::Acquire);
        if let Some((_, token)) = self.cache.get(&key).filter(|(known, _)| *known == generation) {
            if !token.is_over(now) {
                self.cached.inc();
                self.check(&token)?;
                return Ok(token);
            }
            self.cache.remove(&key);
            return Err(TokenRefusal::Expired);
        }
        let token = Arc::new(self.verify_anew(compact, now)?);
        self.verified.inc();
        self.cache.insert(key, (generation, token.clone()));
        self.check(&token)?;
        Ok(token)
    }

    /// Whether the token `compact` was verified, so that no signature has to be looked at.
    pub fn remembers(&self, compact: &str) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        compact.len() <= MAX_TOKEN_BYTES
            && self.cache.get(&sha256(compact)).is_some_and(|(known, _)| known == generation)
    }

    /// Refuses a token that has been taken back since it was verified.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal::Revoked`], [`TokenRefusal::StateLost`].
    pub fn check(&self, token: &AccessToken) -> Result<(), TokenRefusal> {
        (self.objection)(token).map_or(Ok(()), Err)
    }

    /// Forgets what was verified: every token is looked at anew. Call it when something is revoked.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.clear();
    }

    fn verify_anew(&self, compact: &str, now: u64) -> Result<AccessToken, TokenRefusal> {
        let parts = Parts::split(compact)?;
        let header = Header::read(&parts.header)?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(TokenRefusal::Type);
        }
        if !matches!(&*header.alg, "EdDSA" | "ES256") {
            return Err(TokenRefusal::Algorithm);
        }
        // What a key is called decides nothing but which key is looked up; it is never a path, URL or query.
        let kid = header.kid.ok_or(TokenRefusal::UnknownKey)?;
        let signer = self.signers.find(&kid, now).ok_or(TokenRefusal::UnknownKey)?;
        if !signer.key.is_for(&header.alg) {
            return Err(TokenRefusal::Algorithm);
        }
        if !signer.key.verify(parts.signed, parts.signature) {
            return Err(TokenRefusal::Signature);
        }
        self.read_claims(&parts.claims, &signer, now)
    }

    fn read_claims(&self, json: &[u8], signer: &Signer, now: u64) -> Result<AccessToken, TokenRefusal> {
        let claims = Claims::read(json)?;
        let text =
            |claim: Option<Cow<'_, str>>, name| claim.map(Cow::into_owned).ok_or(TokenRefusal::Missing(name));
        if text(claims.iss, "iss")? != signer.issuer.to_string() {
            return Err(TokenRefusal::Issuer);
        }
        if text(claims.aud, "aud")? != signer.issuer.cluster.as_str() {
            return Err(TokenRefusal::Audience);
        }
        let expires_at = claims.exp.ok_or(TokenRefusal::Missing("exp"))?;
        let issued_at = claims.iat.ok_or(TokenRefusal::Missing("iat"))?;
        let (subject, jti) = (text(claims.sub, "sub")?, text(claims.jti, "jti")?);
        let scope = text(claims.scope, "scope")?;
        if expires_at <= issued_at {
            return Err(TokenRefusal::Malformed("it ends before it begins"));
        }
        if expires_at.saturating_add(LEEWAY) < now {
            return Err(TokenRefusal::Expired);
        }
        let begins = claims.nbf.unwrap_or(0);
        if begins > now.saturating_add(LEEWAY) || issued_at > now.saturating_add(MAX_ISSUED_AHEAD) {
            return Err(TokenRefusal::NotYetValid);
        }
        if jti.is_empty() || jti.len() > MAX_JTI_LEN || !jti.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenRefusal::Malformed("its jti is not 1 to 64 visible ASCII characters"));
        }
        let subject: Subject = subject.parse().map_err(TokenRefusal::Subject)?;
        let header = HeaderValue::from_str(subject.as_str())
            .map_err(|_| TokenRefusal::Malformed("its subject does not fit a header"))?;
        Ok(AccessToken {
            holder: TokenHolder { subject, jti: jti.into() },
            issued_at,
            expires_at,
            scope: scope.parse().map_err(TokenRefusal::Scope)?,
            signer: signer.issuer.name.clone(),
            kid: signer.key.kid().into(),
            header,
        })
    }
}

fn sha256(text: &str) -> [u8; 32] {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
