//! `p2p.v1.RpcService`: calls to any unary method by name.

use super::{Parts, broadcast, caller, generic_act};
use crate::{
    error::{Fault, Reason},
    registry::code_word,
    router::{Target, UnaryCall},
};
use bytes::Bytes;
use p2p_core::{MethodPath, NodeId};
use p2p_proto::v1::{
    BroadcastRequest, CallError, CallRequest, CallResponse, call_request::Payload,
    call_response::Result as CallResult, rpc_service_server::RpcService,
};
use std::time::Instant;
use tonic::{Code, Request, Response, Status};

#[derive(Debug)]
pub(super) struct CallService(pub(super) Parts);

#[tonic::async_trait]
impl RpcService for CallService {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        self.call_method(request).await.map(Response::new).map_err(|fault| fault.to_status())
    }

    type BroadcastStream = broadcast::Results;

    async fn broadcast(
        &self,
        request: Request<BroadcastRequest>,
    ) -> Result<Response<Self::BroadcastStream>, Status> {
        let results = broadcast::broadcast(&self.0, request).await;
        results.map(Response::new).map_err(|fault| fault.to_status())
    }
}

impl CallService {
    async fn call_method(&self, request: Request<CallRequest>) -> Result<CallResponse, Fault> {
        let caller = caller(request.extensions())?;
        let headers = request.metadata().clone().into_headers();
        let CallRequest { method, node, payload } = request.into_inner();
        let invalid = |what: String| Fault::new(Reason::InvalidArgument, what);
        let path = method_path(&method)?;
        let node: Option<NodeId> = match node.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|error| invalid(format!("node {id:?}: {error}")))?),
        };
        let target = node.as_ref().map_or(Target::Any, Target::Node);
        let router = &self.0.router;
        let method = router.registry().resolve(path.as_wire())?;
        self.0.limits.charge_target(path.as_str(), &caller)?;
        let deadline = router.deadline(&method, &headers);
        let call =
            UnaryCall { method: &method, caller: &caller, target, deadline, limit: router.answer_limit() };
        let mut act = generic_act(&self.0, path.as_str(), &caller);
        let started = Instant::now();
        let made = match payload {
            Some(Payload::Binary(message)) => {
                let answer = router.call(call, &message).await;
                answer.map(|answer| (answer.node, answer.result.map(CallResult::Binary)))
            }
            Some(Payload::Json(json)) => {
                let answer = router.call_json(call, &json).await;
                answer.map(|(node, result)| (node, result.map(CallResult::Json)))
            }
            None => {
                let answer = router.call_json(call, "{}").await;
                answer.map(|(node, result)| (node, result.map(CallResult::Json)))
            }
        };
        let code = match &made {
            Ok((_, Ok(_))) => Code::Ok,
            Ok((_, Err(status))) => status.code(),
            Err(fault) => fault.reason.row().code,
        };
        if let Some(act) = &mut act {
            act.ended(code_word(code));
        }
        method.metrics.called(code, started.elapsed());
        let (node, result) = made?;
        let result = result.unwrap_or_else(|status| CallResult::Error(error(&status)));
        Ok(CallResponse { result: Some(result), node: node.to_string() })
    }
}

/// The method that a request names.
pub(super) fn method_path(text: &str) -> Result<MethodPath, Fault> {
    text.parse().map_err(|error| Fault::new(Reason::InvalidArgument, format!("{text:?}: {error}")))
}

pub(super) fn error(status: &Status) -> CallError {
    CallError {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Bytes::copy_from_slice(status.details()),
    }
}
