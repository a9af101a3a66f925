//! `POST /rpc`: JSON-RPC 2.0 over any unary method. `method` is `package.Service/Method`, `params` its
//! request as proto3 JSON; batches and notifications as the specification says.

use super::answer;
use crate::{
    auth::Caller,
    error::{Fault, Reason},
    limit::RateClass,
    registry::code_word,
    router::{AnswerLimit, Target, UnaryCall},
    rpc::{Parts, generic_act},
};
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use p2p_core::MethodPath;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{sync::Arc, time::Instant};
use tonic::{Code, body::Body};

/// The method that does what `/rpc` does.
pub(super) const GENERIC: &str = "p2p.v1.RpcService/Call";

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
struct Call<'a> {
    jsonrpc: String,
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    /// A notification has none; null is one.
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// What every call of a request shares.
struct Batch<'a> {
    parts: &'a Parts,
    caller: &'a Arc<Caller>,
    headers: &'a HeaderMap,
    limit: AnswerLimit,
}

/// Answers one HTTP request: a call or a batch. The request was charged for its first call; each more is charged here, and
/// those over the limit are answered with the pause.
pub(super) async fn answer_request(
    parts: &Parts,
    caller: &Arc<Caller>,
    request: &mut Request<Body>,
) -> Result<Response<Body>, Fault> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Asked for strictly: a web page can make a browser post anything else without asking first (CORS).
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Fault::new(Reason::UnsupportedMediaType, "/rpc takes application/json"));
    }
    let headers = request.headers().clone();
    let text = read(std::mem::take(request.body_mut()), parts.max_message_bytes).await?;
    let mut batch = Batch { parts, caller, headers: &headers, limit: parts.router.answer_limit() };
    let results = match calls(&text) {
        Err(answer) => Some(answer),
        Ok(Calls::One(call)) => batch.run(call, Ok(())).await,
        Ok(Calls::Many(calls)) => {
            batch.limit.bytes /= calls.len();
            batch.limit.name = "rpc_max_message_bytes, shared by the calls of a batch";
            let charged = |at| {
                if at == 0 { Ok(()) } else { parts.limits.charge_caller(RateClass::Rpc, GENERIC, caller) }
            };
            let calls: Vec<_> = calls.into_iter().enumerate().map(|(at, call)| (call, charged(at))).collect();
            let results = join_all(calls.into_iter().map(|(call, charged)| batch.run(call, charged))).await;
            let results: Vec<String> = results.into_iter().flatten().collect();
            (!results.is_empty()).then(|| format!("[{}]", results.join(",")))
        }
    };
    Ok(match results {
        Some(results) => answer(StatusCode::OK, super::JSON, results),
        None => {
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            nothing
        }
    })
}

enum Calls<'a> {
    One(&'a RawValue),
    Many(Vec<&'a RawValue>),
}

/// The calls of a body, or what to answer to it.
fn calls(text: &[u8]) -> Result<Calls<'_>, String> {
    let refused = |code, why: &str| failure(&Value::Null, code, why, None);
    let one: &RawValue =
        serde_json::from_slice(text).map_err(|error| refused(PARSE_ERROR, &format!("not JSON: {error}")))?;
    if !one.get().trim_start().starts_with('[') {
        return Ok(Calls::One(one));
    }
    let many: Vec<&RawValue> = serde_json::from_str(one.get())
        .map_err(|error| refused(PARSE_ERROR, &format!("not JSON: {error}")))?;
    if many.is_empty() || many.len() > BATCH_LIMIT {
        return Err(refused(INVALID_REQUEST, &format!("a batch holds 1 to {BATCH_LIMIT} calls")));
    }
    Ok(Calls::Many(many))
}

async fn read(body: Body, limit: usize) -> Result<bytes::Bytes, Fault> {
    let body = Limited::new(body, limit).collect().await.map_err(|error| {
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

impl Batch<'_> {
    /// One call; a notification (no id) has no answer, whatever happens.
    async fn run(&self, call: &RawValue, charged: Result<(), Fault>) -> Option<String> {
        let call: Call<'_> = match serde_json::from_str(call.get()) {
            Ok(call) => call,
            Err(error) => {
                let id = id_of(call.get());
                return Some(failure(&id, INVALID_REQUEST, &format!("not a call: {error}"), None));
            }
        };
        if let Err(why) = check(&call) {
            return Some(failure(&Value::Null, INVALID_REQUEST, why, None));
        }
        let result = match charged {
            Ok(()) => self.perform(&call).await,
            Err(fault) => Err(from_fault(&fault)),
        };
        let id = call.id?;
        Some(match result {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            Err((code, message, data)) => failure(&id, code, &message, Some(data)),
        })
    }

    /// The method's answer as JSON.
    async fn perform(&self, call: &Call<'_>) -> Result<String, Failure> {
        let router = &self.parts.router;
        let path: MethodPath = call.method.parse().map_err(|error| {
            (METHOD_NOT_FOUND, format!("{:?}: {error}", call.method), json!({"reason": "UNKNOWN_METHOD"}))
        })?;
        let method = router.registry().resolve(path.as_wire()).map_err(|fault| from_fault(&fault))?;
        let charged = self.parts.limits.charge_target(path.as_str(), self.caller);
        charged.map_err(|fault| from_fault(&fault))?;
        let deadline = router.deadline(&method, self.headers);
        let params = call.params.map_or("{}", RawValue::get);
        let (caller, limit) = (self.caller, self.limit);
        let unary = UnaryCall { method: &method, caller, target: Target::Any, deadline, limit };
        let mut act = generic_act(self.parts, path.as_str(), self.caller);
        let started = Instant::now();
        let made = router.call_json(unary, params).await;
        let code = match &made {
            Ok((_, Ok(_))) => Code::Ok,
            Ok((_, Err(status))) => status.code(),
            Err(fault) => fault.reason.row().code,
        };
        if let Some(act) = &mut act {
            act.ended(code_word(code));
        }
        method.metrics.called(code, started.elapsed());
        let (_node, result) = made.map_err(|fault| from_fault(&fault))?;
        result.map_err(|status| {
            let code = i32::from(status.code());
            (SERVER_ERROR - i64::from(code), status.message().to_owned(), json!({"grpc_code": code}))
        })
    }
}

/// The id of what is not a call, if it has one that could be.
fn id_of(text: &str) -> Value {
    #[derive(Deserialize)]
    struct Identified {
        id: Value,
    }
    let id = serde_json::from_str(text).map(|Identified { id }| id).unwrap_or_default();
    if id.is_string() || id.is_number() { id } else { Value::Null }
}

fn check(call: &Call<'_>) -> Result<(), &'static str> {
    if call.jsonrpc != "2.0" {
        return Err("jsonrpc must be \"2.0\"");
    }
    match &call.id {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => Ok(()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Err("id must be a string or a number"),
    }
}

type Failure = (i64, String, Value);

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
        | Reason::ProviderBusy
        | Reason::UpstreamInvalid
        | Reason::ProviderGarbled
        | Reason::Unauthenticated
        | Reason::Denied
        | Reason::RateLimited
        | Reason::TooManyCalls
        | Reason::Overloaded
        | Reason::Precondition
        | Reason::NotCoordinator
        | Reason::NotFound
        | Reason::TooLarge
        | Reason::DeadlineExceeded
        | Reason::MethodNotAllowed
        | Reason::UnsupportedMediaType
        | Reason::NotAcceptable
        | Reason::ShuttingDown => SERVER_ERROR - i64::from(i32::from(row.code)),
    };
    let mut data = json!({"reason": row.word, "grpc_code": i32::from(row.code)});
    if let Some(fact) = &fault.metadata {
        data[fact.0] = json!(fact.1);
    }
    if let Some(pause) = fault.retry_after {
        data["retry_after_ms"] = json!(u64::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
    }
    (code, fault.message.clone(), data)
}

fn failure(id: &Value, code: i64, message: &str, data: Option<Value>) -> String {
    let mut error = json!({"code": code, "message": message});
    if let Some(data) = data {
        error["data"] = data;
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}
