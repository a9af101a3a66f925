//! `POST /rpc`: JSON-RPC 2.0 over any unary method. `method` is `package.Service/Method`, `params` its
//! request as proto3 JSON; batches and notifications as the specification says.

use super::answer;
use crate::{
    auth::Caller,
    error::{Fault, Reason},
    router::{Target, UnaryCall},
    rpc::Parts,
};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use p2p_core::MethodPath;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::sync::Arc;
use tonic::{Code, body::Body};

/// Most calls in one batch.
const BATCH_LIMIT: usize = 50;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;
/// Start of the range that the specification leaves to servers; the gRPC code is subtracted from it.
const SERVER_ERROR: i64 = -32000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    jsonrpc: String,
    method: String,
    params: Option<Box<RawValue>>,
    id: Option<Value>,
}

/// Answers one HTTP request: a call or a batch.
pub(super) async fn answer_request(
    parts: &Parts,
    caller: &Arc<Caller>,
    request: Request<Body>,
) -> Result<Response<Body>, Fault> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Asked for strictly: a web page can make a browser post anything else without asking first (CORS).
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Fault::new(Reason::UnsupportedMediaType, "/rpc takes application/json"));
    }
    let headers = request.headers().clone();
    let text = read(request, parts.max_message_bytes).await?;
    let results = match serde_json::from_slice::<Value>(&text) {
        Err(error) => Some(failure(&Value::Null, PARSE_ERROR, &format!("not JSON: {error}"), None)),
        Ok(Value::Array(calls)) if calls.is_empty() || calls.len() > BATCH_LIMIT => Some(failure(
            &Value::Null,
            INVALID_REQUEST,
            &format!("a batch holds 1 to {BATCH_LIMIT} calls"),
            None,
        )),
        Ok(Value::Array(calls)) => {
            let results = join_all(calls.into_iter().map(|call| run(parts, caller, &headers, call))).await;
            let results: Vec<Value> = results.into_iter().flatten().collect();
            (!results.is_empty()).then_some(Value::Array(results))
        }
        Ok(call) => run(parts, caller, &headers, call).await,
    };
    Ok(match results {
        Some(results) => answer(StatusCode::OK, "application/json", results.to_string()),
        None => {
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            nothing
        }
    })
}

async fn read(request: Request<Body>, limit: usize) -> Result<bytes::Bytes, Fault> {
    let body = Limited::new(request.into_body(), limit).collect().await.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            Fault::new(
                Reason::TooLarge,
                format!("the body is larger than {limit} bytes (rpc_max_message_bytes)"),
            )
        } else {
            Fault::new(Reason::InvalidArgument, format!("the body broke off: {error}"))
        }
    })?;
    Ok(body.to_bytes())
}

/// One call; a notification (no id) has no answer, whatever happens.
async fn run(parts: &Parts, caller: &Arc<Caller>, headers: &http::HeaderMap, call: Value) -> Option<Value> {
    let notification = call.is_object() && call.get("id").is_none();
    let id = call.get("id").cloned().unwrap_or(Value::Null);
    let call: Call = match serde_json::from_str(&call.to_string()) {
        Ok(call) => call,
        Err(error) => return Some(failure(&id, INVALID_REQUEST, &format!("not a call: {error}"), None)),
    };
    if let Err(why) = check(&call) {
        return Some(failure(&Value::Null, INVALID_REQUEST, why, None));
    }
    let answer = match perform(parts, caller, headers, &call).await {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message, data)) => failure(&id, code, &message, Some(data)),
    };
    (!notification).then_some(answer)
}

fn check(call: &Call) -> Result<(), &'static str> {
    if call.jsonrpc != "2.0" {
        return Err("jsonrpc must be \"2.0\"");
    }
    match &call.id {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => Ok(()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Err("id must be a string or a number"),
    }
}

type Failure = (i64, String, Value);

async fn perform(
    parts: &Parts,
    caller: &Arc<Caller>,
    headers: &http::HeaderMap,
    call: &Call,
) -> Result<Value, Failure> {
    let router = &parts.router;
    let path: MethodPath = call.method.parse().map_err(|error| {
        (METHOD_NOT_FOUND, format!("{:?}: {error}", call.method), json!({"reason": "UNKNOWN_METHOD"}))
    })?;
    let method = router.registry().resolve(path.as_wire()).map_err(|fault| from_fault(&fault))?;
    let deadline = router.deadline(&method, headers);
    let params = call.params.as_deref().map_or("{}", RawValue::get);
    let unary = UnaryCall { method: &method, caller, target: Target::Any, deadline };
    let (_node, result) = router.call_json(unary, params).await.map_err(|fault| from_fault(&fault))?;
    match result {
        Ok(json) => serde_json::from_str(&json).map_err(|error| from_fault(&Fault::internal(error))),
        Err(status) => Err((
            SERVER_ERROR - i64::from(i32::from(status.code())),
            status.message().to_owned(),
            json!({"grpc_code": i32::from(status.code())}),
        )),
    }
}

fn from_fault(fault: &Fault) -> Failure {
    let row = fault.reason.row();
    let code = match fault.reason {
        Reason::Unknown => METHOD_NOT_FOUND,
        Reason::InvalidArgument => INVALID_PARAMS,
        Reason::Internal => INTERNAL_ERROR,
        Reason::NoProvider
        | Reason::NotProvided
        | Reason::ProviderUnreachable
        | Reason::ProviderLost
        | Reason::ProviderGarbled
        | Reason::Unauthenticated
        | Reason::Denied
        | Reason::RateLimited
        | Reason::Precondition
        | Reason::NotCoordinator
        | Reason::NotFound
        | Reason::TooLarge
        | Reason::DeadlineExceeded
        | Reason::MethodNotAllowed
        | Reason::UnsupportedMediaType
        | Reason::ShuttingDown => SERVER_ERROR - i64::from(i32::from(row.code)),
    };
    let grpc_code: Code = row.code;
    (code, fault.message.clone(), json!({"reason": row.word, "grpc_code": i32::from(grpc_code)}))
}

fn failure(id: &Value, code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = json!({"code": code, "message": message});
    if let Some(data) = data {
        error["data"] = data;
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}
