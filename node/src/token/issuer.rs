//! A coordinator's side: its signing keys, certified by the CA, and signing.

use super::{TYPE, claims::Claims, key::VerifyingKey, signers::Chain, verifier::Verifier};
use crate::{
    identity::{
        Ca, CaError, Identity, IdentityStore, LeafRequest, PeerCertificate, UnixTime, Usage, Validity,
        leads_to_for, pem,
    },
    persist::PersistError,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use p2p_core::{Role, Scope, SpiffeId, Subject};
use rcgen::PublicKeyData as _;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Life of a token when none is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest life of a token. A signer is replaced when a third of its life is left, so that a token of this
/// length always ends before its key does.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Life of a signer's certificate, in days.
const SIGNER_DAYS: u32 = 90;
/// How long a new key is published before it signs, so that its tokens are known wherever they are shown.
const SPREAD: u64 = 10 * 60;
/// How far ahead the revocation of a subject may lie for a token to be issued at its end, in seconds.
const MAX_WAIT: u64 = 60;
/// Most keys that are kept; two overlap.
const MAX_KEYS: usize = 4;

/// Until when tokens of a subject are revoked, Unix seconds: nothing older is issued for it.
pub type RevokedBefore = dyn Fn(&Subject) -> Option<u64> + Send + Sync;

/// Where the signing keys are kept. There is one owner of the file that holds them, above this module.
pub trait KeepSigners: Send + Sync {
    /// The keys that are kept.
    fn signers(&self) -> Vec<StoredSigner>;
    /// Replaces them, durably once this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The disk's; what was kept stays.
    fn keep_signers(&self, signers: Vec<StoredSigner>) -> Result<(), PersistError>;
}

/// A signing key as it is kept on disk, in a file of mode 0600.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredSigner {
    /// PKCS #8, as base64.
    key: String,
    /// Certificates, leaf first, as base64 of their DER.
    chain: Vec<String>,
    /// Unix seconds.
    created_at: u64,
}

impl StoredSigner {
    /// The same key, certified for the same time by `ca`; `None` if it is so already, or cannot be.
    fn certified_anew(&self, ca: &Ca, identity: &Identity, now: UnixTime) -> Option<Self> {
        let decode = |der: &String| STANDARD.decode(der).ok();
        let chain: Chain = self.chain.iter().map(decode).collect::<Option<_>>()?;
        let (leaf, above) = chain.split_first()?;
        let cluster = identity.cluster_id();
        let by_ca = match ca.chain() {
            [] => {
                let root = pem::certificates(ca.cert_pem().as_bytes()).ok()?.swap_remove(0);
                leads_to_for(&chain, cluster, &root, Usage::TokenSigning, now)
            }
            tail => above.iter().map(Vec::as_slice).eq(tail.iter().map(|der| der.as_ref())),
        };
        if by_ca {
            return None;
        }
        let certificate = PeerCertificate::parse(leaf).ok()?;
        let request = LeafRequest {
            spiffe: certificate.spiffe,
            sans: Vec::new(),
            grant: None,
            vouchers: Vec::new(),
            validity: Validity { not_before: certificate.not_before, not_after: certificate.not_after },
        };
        let leaf = ca.certify(&request, &certificate.public_key).ok()?;
        let chain = std::iter::once(&leaf).chain(ca.chain()).map(|der| STANDARD.encode(der)).collect();
        Some(Self { key: self.key.clone(), chain, created_at: self.created_at })
    }
}

impl fmt::Debug for StoredSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSigner").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

/// Why a token was not issued. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// This node has no CA to certify a key with.
    #[error("{0}")]
    NotHere(CaError),
    /// Longer than tokens may live.
    #[error("an access token lives at most 30d and at least 1s")]
    Ttl,
    /// The signer's certificate cannot reach that far, because the CA's does not.
    #[error("the CA's certificate ends before the token would; ask for a shorter life")]
    CaEnds,
    /// Tokens of the subject are revoked beyond now.
    #[error("tokens of {0} are revoked until later; nothing is issued for it before")]
    Revoked(Subject),
    /// The key could not be kept, so it is not used.
    #[error("the signing key could not be kept: {0}")]
    Persist(#[from] PersistError),
    /// Randomness or signing failed.
    #[error("the token could not be made: {0}")]
    Make(String),
}

/// What a new token is to say.
#[derive(Clone, Debug)]
pub struct NewAccessToken {
    /// For whom.
    pub subject: Subject,
    /// What it allows.
    pub scope: Scope,
    /// How long; zero for [`DEFAULT_TTL`].
    pub ttl: Duration,
}

/// A token that was made.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its id.
    pub jti: String,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub expires_at: u64,
    /// The coordinator.
    pub issuer: SpiffeId,
    /// The key.
    pub kid: String,
}

struct SigningKey {
    stored: StoredSigner,
    chain: Chain,
    key: EncodingKey,
    kid: String,
    not_before: u64,
    not_after: u64,
}

impl SigningKey {
    fn read(stored: StoredSigner, identity: &Identity, now: UnixTime) -> Option<Self> {
        let chain: Chain =
            stored.chain.iter().map(|der| STANDARD.decode(der)).collect::<Result<_, _>>().ok()?;
        let certificate = identity.trust().verify(&chain, Usage::TokenSigning, now).ok()?;
        let key = VerifyingKey::from_spki(&certificate.public_key)?;
        let pkcs8 = STANDARD.decode(&stored.key).ok()?;
        (certificate.spiffe.name == identity.spiffe().name).then(|| Self {
            chain,
            key: EncodingKey::from_ed_der(&pkcs8),
            kid: key.kid().to_owned(),
            not_before: certificate.not_before.as_secs(),
            not_after: certificate.not_after.as_secs(),
            stored,
        })
    }

    /// Whether two thirds of its life are over.
    fn is_due(&self, now: u64) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        now >= self.not_after.saturating_sub(life / 3)
    }
}

/// [`SIGNER_DAYS`] in all, backdating included.
fn validity(now: UnixTime) -> Result<Validity, CaError> {
    let Validity { not_before, .. } = Validity::days(now, SIGNER_DAYS)?;
    let life = Duration::from_secs(u64::from(SIGNER_DAYS) * 24 * 60 * 60);
    let not_after = UnixTime::since_unix_epoch(Duration::from_secs(not_before.as_secs()) + life);
    Ok(Validity { not_before, not_after })
}

/// Signs tokens at a coordinator; at other nodes it says that it cannot.
pub struct Issuer {
    identity: Arc<IdentityStore>,
    keeper: Arc<dyn KeepSigners>,
    verifier: Arc<Verifier>,
    revoked_before: Box<RevokedBefore>,
    /// Oldest first.
    keys: Mutex<Vec<SigningKey>>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(..)")
    }
}

impl Issuer {
    /// The issuer of a node. `verifier` learns its keys at once; `revoked_before` says what may not be
    /// issued anew.
    pub fn new(
        identity: Arc<IdentityStore>,
        keeper: Arc<dyn KeepSigners>,
        verifier: Arc<Verifier>,
        revoked_before: Box<RevokedBefore>,
    ) -> Self {
        Self { identity, keeper, verifier, revoked_before, keys: Mutex::default() }
    }

    fn keys(&self) -> MutexGuard<'_, Vec<SigningKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chains to publish, newest first.
    pub fn chains(&self) -> Vec<Chain> {
        self.keys().iter().rev().map(|key| key.chain.clone()).collect()
    }

    /// Reads, makes and replaces keys as the time demands. Returns whether there is something new to
    /// publish. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When this node cannot make a key, and has none.
    pub fn rotate(&self, now: UnixTime) -> Result<bool, IssueError> {
        let identity = self.identity.current();
        if identity.spiffe().role != Role::Coordinator {
            return Err(IssueError::NotHere(CaError::NotCa(identity.spiffe().to_string())));
        }
        let mut keys = self.keys();
        let stored = match keys.is_empty() {
            true => self.keeper.signers(),
            false => keys.iter().map(|key| key.stored.clone()).collect(),
        };
        let known = keys.len();
        let (stored, mut changed) = self.certified_by_our_ca(stored, &identity, now);
        let mut read: Vec<_> =
            stored.into_iter().filter_map(|stored| SigningKey::read(stored, &identity, now)).collect();
        read.sort_by_key(|key| key.stored.created_at);
        changed |= read.len() != known;
        if changed && !read.is_empty() {
            self.keeper.keep_signers(read.iter().map(|key| key.stored.clone()).collect())?;
        }
        if read.last().is_none_or(|newest| newest.is_due(now.as_secs())) {
            match self.make(&identity, now) {
                Ok(key) => {
                    read.push(key);
                    let surplus = read.len().saturating_sub(MAX_KEYS);
                    read.drain(..surplus);
                    self.keeper.keep_signers(read.iter().map(|key| key.stored.clone()).collect())?;
                    changed = true;
                }
                Err(error) if read.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the token signer could not be replaced; the old one stays")
                }
            }
        }
        *keys = read;
        let chains: Vec<Chain> = keys.iter().map(|key| key.chain.clone()).collect();
        drop(keys);
        self.verifier.signers().restore(&chains, &identity.trust(), now);
        Ok(changed)
    }

    /// The keys with certificates of the CA that this coordinator has now: after a rotation of the root, or of our own
    /// CA, the ones before would be believed no longer, and with them the tokens that are out. Tells whether any changed.
    fn certified_by_our_ca(
        &self,
        stored: Vec<StoredSigner>,
        identity: &Identity,
        now: UnixTime,
    ) -> (Vec<StoredSigner>, bool) {
        let files = self.identity.files();
        let Ok(ca) = Ca::load(&files.ca_cert, &files.ca_key) else { return (stored, false) };
        let mut changed = false;
        let certified = stored.into_iter().map(|signer| match signer.certified_anew(&ca, identity, now) {
            Some(anew) => {
                changed = true;
                tracing::info!("a token signer has a new certificate: the CA has changed");
                anew
            }
            None => signer,
        });
        (certified.collect(), changed)
    }

    /// A new key with its certificate.
    fn make(&self, identity: &Identity, now: UnixTime) -> Result<SigningKey, IssueError> {
        let files = self.identity.files();
        let ca = Ca::load(&files.ca_cert, &files.ca_key).map_err(IssueError::NotHere)?;
        ca.check(identity.cluster_id(), now).map_err(IssueError::NotHere)?;
        let make = |error: rcgen::Error| IssueError::Make(error.to_string());
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(make)?;
        let own = identity.spiffe();
        let request = LeafRequest {
            spiffe: SpiffeId::new(own.cluster.clone(), Role::TokenSigner, own.name.clone()),
            sans: Vec::new(),
            grant: None,
            vouchers: Vec::new(),
            validity: validity(now).map_err(IssueError::NotHere)?,
        };
        let leaf = ca.certify(&request, &pair.subject_public_key_info()).map_err(IssueError::NotHere)?;
        let mut chain = vec![leaf.to_vec()];
        chain.extend(ca.chain().iter().map(|der| der.to_vec()));
        let stored = StoredSigner {
            key: STANDARD.encode(pair.serialize_der()),
            chain: chain.iter().map(|der| STANDARD.encode(der)).collect(),
            created_at: now.as_secs(),
        };
        tracing::info!(days = SIGNER_DAYS, "made a new token signer");
        SigningKey::read(stored, identity, now).ok_or_else(|| {
            IssueError::Make("the CA's certificate is not one that this node trusts".to_owned())
        })
    }

    /// Signs a token. Blocks on the disk when there is no key yet.
    ///
    /// # Errors
    ///
    /// Each variant of [`IssueError`].
    pub fn issue(&self, new: &NewAccessToken, now: UnixTime) -> Result<(String, Issued), IssueError> {
        if self.keys().is_empty() {
            self.rotate(now)?;
        }
        let now = now.as_secs();
        let ttl = if new.ttl.is_zero() { DEFAULT_TTL } else { new.ttl };
        if ttl > MAX_TTL || ttl.as_secs() == 0 {
            return Err(IssueError::Ttl);
        }
        let issued_at = now.max((self.revoked_before)(&new.subject).unwrap_or(0));
        if issued_at > now + MAX_WAIT {
            return Err(IssueError::Revoked(new.subject.clone()));
        }
        // From now, not from `issued_at`: a minter's tokens must not outlive it.
        let expires_at = now.saturating_add(ttl.as_secs());
        if expires_at <= issued_at {
            return Err(IssueError::Revoked(new.subject.clone()));
        }
        let keys = self.keys();
        let fitting = || keys.iter().rev().filter(|key| key.not_after >= expires_at);
        let spread = fitting().find(|key| key.stored.created_at + SPREAD <= now);
        let key = spread.or_else(|| fitting().next_back()).ok_or(IssueError::CaEnds)?;
        let own = self.identity.current();
        let issuer = own.spiffe().clone();
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|error| IssueError::Make(error.to_string()))?;
        let jti: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        // No `nbf`: a node whose clock is behind the coordinator's would refuse what was just issued.
        let claims = Claims {
            iss: Some(issuer.to_string().into()),
            sub: Some(new.subject.as_str().into()),
            aud: Some(issuer.cluster.as_str().into()),
            iat: Some(issued_at),
            nbf: None,
            exp: Some(expires_at),
            jti: Some(jti.as_str().into()),
            scope: Some(new.scope.to_string().into()),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        let token =
            encode(&header, &claims, &key.key).map_err(|error| IssueError::Make(error.to_string()))?;
        Ok((token, Issued { kid: key.kid.clone(), issuer: issuer.clone(), jti, issued_at, expires_at }))
    }
}
