//! `p2p.v1.EnrollmentService`: join tokens, made by admins and redeemed by new nodes; renewal and recovery.

use super::{caller, note};
use crate::{
    audit::Note,
    enrol::{self, Enrolment, NewToken, Refusal, Request as EnrolRequest, Rotation, rotation::Action},
    error::{Fault, Reason},
    identity::{Enrolled, PeerCertificate, TokenId},
};
use p2p_core::{NodeId, Principal, Role, SpiffeId, grant::Grant};
use p2p_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, EnrollRequest, EnrollResponse, ListJoinTokensRequest,
    ListJoinTokensResponse, RecoverRequest, ReissueCaRequest, ReissueCaResponse, RenewRequest,
    RevokeJoinTokenRequest, RevokeJoinTokenResponse, RotateCaAction, RotateCaRequest, RotateCaStatus,
    enrollment_service_server::EnrollmentService,
};
use std::{collections::BTreeSet, fmt::Display, sync::Arc, time::Duration};
use tonic::{Extensions, Request, Response, Status};

#[derive(Debug)]
pub(super) struct Enrollment(pub(super) Arc<Enrolment>, pub(super) Arc<Rotation>);

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let (caller, note) = (caller(request.extensions())?, note_of(request.extensions()));
        let message = request.into_inner();
        let token = message.token_id.as_ref().try_into().ok().map(TokenId::new);
        let request = EnrolRequest {
            from: caller.connection.address,
            forwarded: caller.forwarded_by.is_some(),
            token_id: message.token_id.into(),
            secret: message.secret.into(),
            csr: message.csr.into(),
            node_id: message.node_id,
            advertise_address: message.advertise_address,
            sans: message.sans,
            ca_csr: message.ca_csr.into(),
        };
        let by = token.map(|id| format!("join token {id}"));
        answer(self.0.enrol(request).await, note, by)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrollResponse>, Status> {
        let (caller, note) = (caller(request.extensions())?, note_of(request.extensions()));
        let message = request.into_inner();
        let request = enrol::RenewRequest {
            from: caller.connection.address,
            forwarded: caller.forwarded_by.is_some(),
            presented: caller.connection.certificate.clone(),
            csr: message.csr.into(),
            sans: message.sans,
        };
        answer(self.0.renew(request).await, note, None)
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<EnrollResponse>, Status> {
        let (caller, note) = (caller(request.extensions())?, note_of(request.extensions()));
        let message = request.into_inner();
        let request = enrol::RecoverRequest {
            from: caller.connection.address,
            forwarded: caller.forwarded_by.is_some(),
            chain: message.certificate_chain.into_iter().map(Into::into).collect(),
            csr: message.csr.into(),
            signature: message.signature.into(),
            sans: message.sans,
        };
        answer(self.0.recover(request).await, note, None)
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let by = admin(request.extensions())?;
        note(request.extensions(), || {
            let message = request.get_ref();
            let or =
                |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
            format!("role {}, node {}", or(&message.role, "worker"), or(&message.node_id, "any"))
        });
        let new = new_token(request.into_inner(), by).map_err(|fault| fault.to_status())?;
        let (token, info) = self.0.create(new).await.map_err(|fault| fault.to_status())?;
        Ok(Response::new(CreateJoinTokenResponse { token: token.to_text(), info: Some(info) }))
    }

    async fn list_join_tokens(
        &self,
        _request: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        let tokens = self.0.list().await.map_err(|fault| fault.to_status())?;
        Ok(Response::new(ListJoinTokensResponse { tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        let by = admin(request.extensions())?;
        note(request.extensions(), || format!("join token {}", request.get_ref().id));
        let id = request.into_inner().id.parse().map_err(|error| invalid("id", error).to_status())?;
        let info = self.0.revoke(id, by).await.map_err(|fault| fault.to_status())?;
        Ok(Response::new(RevokeJoinTokenResponse { info: Some(info) }))
    }

    async fn rotate_ca(&self, request: Request<RotateCaRequest>) -> Result<Response<RotateCaStatus>, Status> {
        let by = admin(request.extensions())?;
        note(request.extensions(), || request.get_ref().action().as_str_name().to_owned());
        let message = request.into_inner();
        let action = match message.action() {
            RotateCaAction::Unspecified | RotateCaAction::Look => Action::Look,
            RotateCaAction::GoOn => Action::GoOn,
            RotateCaAction::Begin => Action::Begin,
        };
        let forced: Result<_, _> = message.force_nodes.iter().map(|node| node.parse()).collect();
        let forced: BTreeSet<NodeId> = forced.map_err(|error| invalid("force_nodes", error).to_status())?;
        match action {
            Action::Begin => tracing::info!(%by, ?forced, "asked to rotate the CA"),
            // Asked again and again until all members are ready.
            Action::Look | Action::GoOn => tracing::debug!(%by, ?forced, "asked how the rotation goes on"),
        }
        let status = self.1.run(action, forced).await.map_err(|fault| fault.to_status())?;
        Ok(Response::new(status))
    }

    async fn reissue_ca(
        &self,
        request: Request<ReissueCaRequest>,
    ) -> Result<Response<ReissueCaResponse>, Status> {
        let caller = caller(request.extensions())?;
        let Principal::Certificate(coordinator) = caller.connection.principal.clone() else {
            return Err(Fault::internal("a stranger reached a node's method").to_status());
        };
        let proof = request.into_inner().proof.into_iter().map(Vec::from).collect();
        let chain = self.0.reissue_ca(coordinator, proof).await.map_err(|fault| fault.to_status())?;
        let ca_certificate_chain = chain.into_iter().map(Into::into).collect();
        Ok(Response::new(ReissueCaResponse { ca_certificate_chain }))
    }
}

fn note_of(extensions: &Extensions) -> Option<Note> {
    extensions.get::<Note>().cloned()
}

/// The answer; `note` says for the audit log whose certificate was made, and what was redeemed for it.
fn answer(
    result: Result<Enrolled, Refusal>,
    note: Option<Note>,
    redeemed: Option<String>,
) -> Result<Response<EnrollResponse>, Status> {
    if let Some(note) = note {
        let leaf = result.as_ref().ok().and_then(|enrolled| enrolled.chain.first());
        let made = leaf.and_then(|leaf| PeerCertificate::parse(leaf).ok());
        let made = made.map(|made| format!("certificate of {}", made.spiffe));
        let said: Vec<String> = made.into_iter().chain(redeemed).collect();
        if !said.is_empty() {
            note.set(said.join(", "));
        }
    }
    let enrolled = result.map_err(|refusal| refusal.to_fault().to_status())?;
    let bytes = |list: Vec<Vec<u8>>| list.into_iter().map(Into::into).collect();
    Ok(Response::new(EnrollResponse {
        certificate_chain: bytes(enrolled.chain),
        roots: bytes(enrolled.roots),
        ca_certificate_chain: bytes(enrolled.ca_chain),
    }))
}

/// The admin who acts, as this connection proves it.
fn admin(extensions: &Extensions) -> Result<SpiffeId, Status> {
    match &caller(extensions)?.connection.principal {
        Principal::Certificate(id) if id.role == Role::Admin => Ok(id.clone()),
        Principal::Certificate(_) | Principal::Anonymous | Principal::Token(_) => {
            Err(Fault::internal("somebody else than an admin reached an admin's method").to_status())
        }
    }
}

fn new_token(message: CreateJoinTokenRequest, created_by: SpiffeId) -> Result<NewToken, Fault> {
    let role = match message.role.as_str() {
        "" => Role::Worker,
        word => word.parse().map_err(|error| invalid("role", error))?,
    };
    let node = match message.node_id.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|error| invalid("node_id", error))?),
    };
    let globs = message.allow_services;
    let grant = match globs.is_empty() {
        true => None,
        false => Some(Grant::parse(&globs).map_err(|error| invalid("allow_services", error))?),
    };
    let ttl = Duration::from_secs(message.ttl_seconds);
    Ok(NewToken { role, node, grant, ttl, uses: message.uses, replace: message.replace, created_by })
}

fn invalid(field: &str, error: impl Display) -> Fault {
    Fault::new(Reason::InvalidArgument, format!("{field}: {error}"))
}
