//! `p2p.v1.AuthService`: access tokens, issued at coordinators and judged anywhere.

use super::{Parts, caller, note, revoke};
use crate::{
    auth::{Caller, not_coordinator},
    error::{Fault, Reason},
    identity::UnixTime,
    token::{
        AccessToken, IssueError, NewAccessToken,
        issuer::{DEFAULT_TTL, Issued},
    },
};
use p2p_core::{Principal, Scope, Subject};
use p2p_proto::{
    Timestamp,
    v1::{
        AccessTokenInfo, IssueTokenRequest, IssueTokenResponse, ListRevocationsRequest,
        ListRevocationsResponse, RevokeTokenRequest, RevokeTokenResponse, VerifyTokenRequest,
        VerifyTokenResponse, auth_service_server::AuthService,
    },
};
use std::{fmt::Display, time::Duration};
use tonic::{Request, Response, Status};

#[derive(Debug)]
pub(super) struct AccessTokens(pub(super) Parts);

#[tonic::async_trait]
impl AuthService for AccessTokens {
    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        let caller = caller(request.extensions())?;
        note(request.extensions(), || {
            let message = request.get_ref();
            format!("subject {}, scope {}", message.subject, message.scope.join(" "))
        });
        let issued = self.issue(&caller, request.into_inner()).await;
        issued.map(Response::new).map_err(|fault| fault.to_status())
    }

    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let caller = caller(request.extensions())?;
        Ok(Response::new(self.judge(&caller, &request.into_inner().token)))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let by = caller(request.extensions())?.proven().clone();
        note(request.extensions(), || revoke::named(request.get_ref()));
        let revoked = revoke::revoke(&self.0, request.into_inner(), &by).await;
        revoked.map(Response::new).map_err(|fault| fault.to_status())
    }

    async fn list_revocations(
        &self,
        _request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        Ok(Response::new(revoke::list(&self.0)))
    }
}

impl AccessTokens {
    async fn issue(&self, caller: &Caller, message: IssueTokenRequest) -> Result<IssueTokenResponse, Fault> {
        let now = UnixTime::now();
        let mut new = NewAccessToken {
            subject: message.subject.parse::<Subject>().map_err(|error| invalid("subject", error))?,
            scope: Scope::parse(&message.scope).map_err(|error| invalid("scope", error))?,
            ttl: Duration::from_secs(message.ttl_seconds),
        };
        if let Some(own) = caller.token() {
            within_minter(own, &mut new, now)?;
        }
        let (issuer, asked) = (self.0.issuer.clone(), new.clone());
        let made = tokio::task::spawn_blocking(move || issuer.issue(&asked, now)).await;
        let made = made.map_err(|_| Fault::new(Reason::ShuttingDown, "this node is shutting down"))?;
        let (token, issued) = made.map_err(|error| self.fault(error))?;
        tracing::info!(
            token.id = issued.jti, subject = %new.subject, scope = %new.scope, by = %caller.proven(),
            expires_at = issued.expires_at, "access token issued"
        );
        Ok(IssueTokenResponse { token, info: Some(issued_info(&new, issued)) })
    }

    fn fault(&self, error: IssueError) -> Fault {
        let message = error.to_string();
        match error {
            IssueError::NotHere(why) => {
                let view = self.0.gossip.view().borrow().clone();
                let (cluster, facts) = (self.0.gossip.cluster().clone(), &self.0.facts);
                let own = p2p_core::SpiffeId::new(cluster, facts.role, facts.node.clone());
                not_coordinator(&own, why, &view)
            }
            IssueError::Ttl | IssueError::CaEnds => Fault::new(Reason::InvalidArgument, message),
            IssueError::Revoked(_) => Fault::new(Reason::Precondition, message),
            IssueError::Persist(_) | IssueError::Make(_) => Fault::internal(message),
        }
    }

    /// Whether this node accepts a token. Strangers hear no more than a request with it would tell them.
    fn judge(&self, caller: &Caller, token: &str) -> VerifyTokenResponse {
        let node_id = self.0.facts.node.to_string();
        let verdict = self.0.router.auth().verifier().verify(token, UnixTime::now());
        let stranger = matches!(caller.proven(), Principal::Anonymous);
        match verdict {
            Ok(token) => VerifyTokenResponse {
                node_id,
                accepted: true,
                reason: String::new(),
                message: String::new(),
                info: Some(info(&token, self.0.gossip.cluster())),
            },
            Err(refusal) => VerifyTokenResponse {
                node_id,
                accepted: false,
                reason: if stranger { refusal.public_word() } else { refusal.word() }.to_owned(),
                message: if stranger { refusal.public().to_owned() } else { refusal.to_string() },
                info: None,
            },
        }
    }
}

/// A minter cannot grant more scope or life than it has.
fn within_minter(own: &AccessToken, new: &mut NewAccessToken, now: UnixTime) -> Result<(), Fault> {
    if let Some(beyond) = new.scope.first_beyond(&own.scope) {
        return Err(Fault::new(
            Reason::Denied,
            format!("this token's scope does not include {beyond}, so it cannot pass it on"),
        ));
    }
    let left = Duration::from_secs(own.expires_at.saturating_sub(now.as_secs()));
    if new.ttl.is_zero() {
        new.ttl = DEFAULT_TTL.min(left);
    }
    if new.ttl > left || left.is_zero() {
        return Err(Fault::new(
            Reason::Denied,
            format!("this token ends in {} s and cannot issue one that lives longer", left.as_secs()),
        ));
    }
    Ok(())
}

fn timestamp(seconds: u64) -> Option<Timestamp> {
    Some(Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 })
}

fn globs(scope: &Scope) -> Vec<String> {
    scope.globs().iter().map(ToString::to_string).collect()
}

fn issued_info(new: &NewAccessToken, issued: Issued) -> AccessTokenInfo {
    AccessTokenInfo {
        jti: issued.jti,
        subject: new.subject.to_string(),
        scope: globs(&new.scope),
        issued_at: timestamp(issued.issued_at),
        expires_at: timestamp(issued.expires_at),
        issuer: issued.issuer.to_string(),
        kid: issued.kid,
    }
}

fn info(token: &AccessToken, cluster: &p2p_core::ClusterId) -> AccessTokenInfo {
    let issuer = p2p_core::SpiffeId::new(cluster.clone(), p2p_core::Role::Coordinator, token.signer.clone());
    AccessTokenInfo {
        jti: token.holder.jti.to_string(),
        subject: token.subject().to_string(),
        scope: globs(&token.scope),
        issued_at: timestamp(token.issued_at),
        expires_at: timestamp(token.expires_at),
        issuer: issuer.to_string(),
        kid: token.kid.to_string(),
    }
}

fn invalid(field: &str, error: impl Display) -> Fault {
    Fault::new(Reason::InvalidArgument, format!("{field}: {error}"))
}
