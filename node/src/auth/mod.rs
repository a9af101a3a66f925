//! Evidence and policy: who calls, and whether they may.
//!
//! | file | what it holds |
//! |---|---|
//! | [`evidence`] | from a connection and headers to a [`Caller`]: certificate, token, or what a node asserts |
//! | [`policy`] | THE table of who may call what, and the rules of `access:` before it |
//! | `act` | a caller and its act as the audit log names them |
//! | [`mod@coordinators`] | the one answer of a node that is asked for what only coordinators do |
//! | `proxies` | the address of a caller behind a proxy |
//! | `metrics` | refusals by reason |
//!
//! Evidence is the certificate of the connection, or the access token of the request. *Evidence travels, not
//! claims*: a token goes along to the provider, which verifies it again. A caller with a certificate is
//! asserted by the forwarding node in `p2p-principal`; the assertion is honoured for the services of users
//! only, never for `p2p.v1`, because a stolen node could assert anybody.

mod act;
pub mod coordinators;
pub mod evidence;
mod metrics;
pub mod policy;
mod proxies;
#[cfg(test)]
mod tests;

pub use act::{audit_entry, is_audited};
pub use coordinators::not_coordinator;
pub use evidence::{Caller, Connection, ENTRY_NODE, HOP, LocalUser, PRINCIPAL, SERVED_BY, TARGET_NODE};
pub use policy::{Access, access_of};

use crate::{
    config::{AccessRules, Network},
    error::Fault,
    identity::schedule,
    revocation::Revocations,
    telemetry::Metrics,
    token::{TokenRefusal, Verifier},
};
use arc_swap::ArcSwap;
use evidence::Failure;
use http::HeaderMap;
use metrics::AuthMetrics;
use p2p_core::Principal;
use rustls_pki_types::UnixTime;
use std::{
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

/// How long a call may outlive the access token that it was made with, unless that is revoked: as long as a revocation of
/// the token is kept, so that none comes too late.
pub const OVERTIME: Duration = p2p_core::revocation::EXPIRY_GRACE;

/// Resolves when a call must end, with what its caller is told.
pub type Withdrawn = Pin<Box<dyn Future<Output = Fault> + Send>>;

/// Evidence and policy of one node.
#[derive(Debug)]
pub struct Auth {
    verifier: Arc<Verifier>,
    revocations: Arc<Revocations>,
    policy: ArcSwap<Policy>,
    metrics: AuthMetrics,
}

/// What the configuration says of callers, replaced as a whole.
#[derive(Debug, Default)]
struct Policy {
    rules: AccessRules,
    proxies: Vec<Network>,
}

impl Auth {
    /// Verifies tokens with `verifier`. `revocations` tells when to look at a token again. Only the built-in table holds,
    /// and no proxy is believed, until [`Self::reconfigure`] says otherwise.
    pub fn new(verifier: Arc<Verifier>, revocations: Arc<Revocations>, metrics: &Metrics) -> Self {
        let policy = ArcSwap::default();
        Self { verifier, revocations, policy, metrics: metrics.register(AuthMetrics::register) }
    }

    /// Lets `rules` come before the table, for calls that begin from now on, and believes what `proxies` say of where a
    /// request comes from.
    pub fn reconfigure(&self, rules: AccessRules, proxies: Vec<Network>) {
        if self.policy.load().rules != rules {
            for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.widens()) {
                tracing::warn!(
                    rule = index + 1,
                    methods = %rule.methods,
                    "access: this rule lets in callers without any evidence"
                );
            }
        }
        self.policy.store(Arc::new(Policy { rules, proxies }));
    }

    /// The verifier of tokens.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Makes out who calls, takes the token out of the headers, and removes those that only nodes may set.
    ///
    /// # Errors
    ///
    /// [`Reason::Unauthenticated`](crate::error::Reason::Unauthenticated) for a token that does not hold,
    /// whatever else the caller shows: evidence that is named is meant.
    pub fn authenticate(
        &self,
        connection: &Arc<Connection>,
        headers: &mut HeaderMap,
    ) -> Result<Caller, Fault> {
        let address = self.origin(connection, headers);
        let caller = evidence::authenticate(connection, headers, &self.verifier, UnixTime::now());
        caller.map(|caller| caller.coming_from(address)).map_err(|failure| {
            self.metrics.failed(failure.word());
            tracing::debug!(peer.address = %connection.address, error = %failure, "authentication failed");
            failure.to_fault()
        })
    }

    /// Where a request over `connection` comes from.
    pub fn origin(&self, connection: &Connection, headers: &HeaderMap) -> IpAddr {
        proxies::origin(connection.address, headers, &self.policy.load().proxies)
    }

    /// Whether a token is shown whose signature would have to be verified.
    pub fn must_verify(&self, headers: &HeaderMap) -> bool {
        evidence::shown(headers).is_some_and(|token| !self.verifier.remembers(token))
    }

    /// Waits until the token that `caller` showed counts no more: it was taken back, or is over for [`OVERTIME`]. `None`
    /// for callers without a token; those with a certificate lose their connection.
    ///
    /// Calls and their answers end with it at every node that they pass, so that they do not go on where a stolen node
    /// keeps its side of them open.
    pub fn withdrawn(&self, caller: &Caller) -> Option<Withdrawn> {
        let token = caller.token()?.clone();
        let (verifier, revocations) = (self.verifier.clone(), self.revocations.clone());
        let end = Duration::from_secs(token.expires_at).saturating_add(OVERTIME);
        Some(Box::pin(async move {
            let revoked = async {
                loop {
                    let mut changed = pin!(revocations.changed());
                    changed.as_mut().enable();
                    if let Err(refusal) = verifier.check(&token) {
                        return refusal;
                    }
                    changed.await;
                }
            };
            let refusal = tokio::select! {
                refusal = revoked => refusal,
                () = schedule::reached(UnixTime::since_unix_epoch(end)) => TokenRefusal::Expired,
            };
            Failure::from(refusal).to_fault()
        }))
    }

    /// Whether `caller` may use the method `path`, open to `access`, which errors call `what`.
    ///
    /// # Errors
    ///
    /// [`Reason::Unauthenticated`](crate::error::Reason::Unauthenticated) without evidence, and
    /// [`Reason::Denied`](crate::error::Reason::Denied) with a sentence that names what is missing.
    pub fn authorize(&self, caller: &Caller, access: Access, path: &str, what: &str) -> Result<(), Fault> {
        policy::authorize(&self.policy.load().rules, caller, access, path, what).inspect_err(|_| {
            let evidence = match &caller.principal {
                Principal::Anonymous => "none",
                Principal::Certificate(_) => "certificate",
                Principal::Token(_) => "token",
            };
            self.metrics.denied(access, evidence);
        })
    }

    /// The same, where a refusal is an answer and not an event.
    pub fn allows(&self, caller: &Caller, access: Access, path: &str) -> bool {
        policy::authorize(&self.policy.load().rules, caller, access, path, path).is_ok()
    }
}
