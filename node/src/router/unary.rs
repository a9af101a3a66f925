//! Unary calls made by this node for a caller that has no stubs: `RpcService` and `POST /rpc`.

use super::{Router, retry::Candidates, within};
use crate::{
    auth::{Caller, TARGET_NODE},
    error::{Fault, Reason},
    registry::{Method, Provider},
    schema::{decode_json, encode_json},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use p2p_core::{MethodPath, NodeId, method::StreamingKind};
use prost_reflect::MethodDescriptor;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

/// Bytes before each gRPC message: a flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// What the called method answered.
#[derive(Debug)]
pub struct Answer {
    /// The node that served the call.
    pub node: NodeId,
    /// Its message, or the error that it answered with.
    pub result: Result<Bytes, Status>,
}

/// Who may serve a call.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Any provider.
    Any,
    /// Only this node.
    Node(&'a NodeId),
    /// This node, which may be suspect.
    Provider(&'a Arc<Provider>),
}

/// A call to be made.
#[derive(Clone, Copy, Debug)]
pub struct UnaryCall<'a> {
    /// The method.
    pub method: &'a Method,
    /// For whom.
    pub caller: &'a Arc<Caller>,
    /// Who may serve it.
    pub target: Target<'a>,
    /// When it must be answered.
    pub deadline: Option<Instant>,
    /// The largest answer that is taken.
    pub limit: AnswerLimit,
}

/// A method whose messages travel as JSON.
#[derive(Clone, Debug)]
pub struct JsonMethod(MethodDescriptor);

/// The largest answer that is taken, encoded and as JSON.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimit {
    /// In bytes.
    pub bytes: usize,
    /// What sets it, for people.
    pub name: &'static str,
}

impl AnswerLimit {
    fn exceeded(self) -> Fault {
        let Self { bytes, name } = self;
        Fault::new(Reason::TooLarge, format!("the answer is larger than {bytes} bytes ({name})"))
    }
}

impl JsonMethod {
    /// Its request.
    pub fn encode(&self, json: &str) -> Result<Bytes, Fault> {
        encode_json(&self.0.input(), json)
    }

    /// Its answer.
    pub fn decode(&self, message: Bytes, limit: AnswerLimit) -> Result<String, Fault> {
        decode_json(&self.0.output(), message, limit.bytes)?.ok_or_else(|| limit.exceeded())
    }
}

impl Router {
    /// Whether `caller` may make generic calls of `method`, and the method be called so.
    pub fn check_generic(&self, method: &Method, caller: &Caller) -> Result<(), Fault> {
        let path = &method.info.path;
        self.auth.authorize(caller, method.access, path.as_str(), path.as_str())?;
        refuse_itself(path)?;
        if method.info.streaming != StreamingKind::Unary {
            let kind = method.info.streaming.word();
            return Err(Fault::new(
                Reason::InvalidArgument,
                format!(
                    "{path} is {kind}; generic calls are unary. `p2pctl rpc call` calls it, or its own stubs"
                ),
            ));
        }
        Ok(())
    }

    /// The method as one of JSON, by its descriptors.
    pub async fn json_method(&self, method: &Method) -> Result<JsonMethod, Fault> {
        let path = &method.info.path;
        let schema = self.schema(method).await?;
        let descriptor = schema
            .method(path)
            .ok_or_else(|| Fault::new(Reason::NotFound, format!("the descriptors do not describe {path}")))?;
        Ok(JsonMethod(descriptor))
    }

    /// The largest answer of a generic call, as configured.
    pub fn answer_limit(&self) -> AnswerLimit {
        AnswerLimit { bytes: self.max_message_bytes, name: "rpc_max_message_bytes" }
    }

    /// Makes a call with an encoded message, if the caller may.
    ///
    /// # Errors
    ///
    /// What kept the call from its method. What the method itself answered, errors too, is in the answer.
    pub async fn call(&self, call: UnaryCall<'_>, message: &[u8]) -> Result<Answer, Fault> {
        self.check_generic(call.method, call.caller)?;
        self.send(call, message).await.inspect_err(|fault| self.generic.count(fault))
    }

    /// Makes a call with a proto3 JSON message and gives the answer as one.
    ///
    /// # Errors
    ///
    /// As [`Self::call`], and when the JSON does not fit the method's message.
    pub async fn call_json(
        &self,
        call: UnaryCall<'_>,
        json: &str,
    ) -> Result<(NodeId, Result<String, Status>), Fault> {
        // Before schemas are fetched for somebody who may not call anyway.
        self.check_generic(call.method, call.caller)?;
        let called = async {
            let method = within(call.deadline, self.json_method(call.method)).await??;
            let answer = self.send(call, &method.encode(json)?).await?;
            let result = match answer.result {
                Ok(bytes) => Ok(method.decode(bytes, call.limit)?),
                Err(status) => Err(status),
            };
            Ok((answer.node, result))
        };
        called.await.inspect_err(|fault| self.generic.count(fault))
    }

    async fn route_to(
        &self,
        node: &NodeId,
        method: &Method,
        caller: &Arc<Caller>,
        deadline: Option<Instant>,
        mut request: Request<Body>,
    ) -> Result<(http::Response<Body>, NodeId), Fault> {
        let value = HeaderValue::from_str(node.as_str()).map_err(Fault::internal)?;
        request.headers_mut().insert(TARGET_NODE, value);
        self.route(method, caller, deadline, request).await
    }

    /// Makes a call that [`Self::check_generic`] has let through.
    pub async fn send(&self, call: UnaryCall<'_>, message: &[u8]) -> Result<Answer, Fault> {
        let UnaryCall { method, caller, target, deadline, limit } = call;
        let mut request = Request::new(Body::new(Full::new(framed(message)?)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = method.info.path.as_wire().parse().map_err(Fault::internal)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let (response, node) = match target {
            Target::Provider(provider) if provider.node != *self.registry.node() => {
                let to = Candidates { providers: std::slice::from_ref(provider), near: 0 };
                let forwarded = self.forward(method, caller, deadline, to, request, None);
                within(deadline, Box::pin(forwarded)).await??
            }
            Target::Any => self.route(method, caller, deadline, request).await?,
            Target::Provider(here) => self.route_to(&here.node, method, caller, deadline, request).await?,
            Target::Node(node) => self.route_to(node, method, caller, deadline, request).await?,
        };
        let result = within(deadline, read_answer(response, limit)).await??;
        Ok(Answer { node, result })
    }
}

async fn read_answer(
    response: http::Response<Body>,
    limit: AnswerLimit,
) -> Result<Result<Bytes, Status>, Fault> {
    let head = response.headers().clone();
    if response.status() != http::StatusCode::OK {
        return Ok(Err(Status::unknown(format!("the provider answered HTTP {}", response.status()))));
    }
    let body = Limited::new(response.into_body(), limit.bytes.saturating_add(PREFIX));
    let body = body.collect().await.map_err(|error| {
        if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() {
            limit.exceeded()
        } else {
            Fault::new(Reason::ProviderLost, format!("the answer broke off: {error}"))
        }
    })?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = status_in(&trailers).or_else(|| status_in(&head));
    match status {
        Some(status) if status.code() != Code::Ok => Ok(Err(status)),
        Some(_) => Ok(message_in(body.to_bytes())),
        None => Ok(Err(Status::internal("the provider's answer has no gRPC status"))),
    }
}

/// A generic call of a generic call could be nested until the stack overflows.
fn refuse_itself(path: &MethodPath) -> Result<(), Fault> {
    if path.service() == "p2p.v1.RpcService" {
        return Err(Fault::new(
            Reason::InvalidArgument,
            format!("a generic call cannot call {path}; call the method itself"),
        ));
    }
    Ok(())
}

fn status_in(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

fn framed(message: &[u8]) -> Result<Bytes, Fault> {
    let length = u32::try_from(message.len())
        .map_err(|_| Fault::new(Reason::TooLarge, "the message is larger than 4 GiB"))?;
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(frame.freeze())
}

/// The one message of a unary answer. We accept no encoding, so the flag must be 0.
fn message_in(mut body: Bytes) -> Result<Bytes, Status> {
    let malformed = || Status::internal("the provider's answer is not one gRPC message");
    let prefix: [u8; PREFIX] =
        body.get(..PREFIX).and_then(|head| head.try_into().ok()).ok_or_else(malformed)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let message = body.split_off(PREFIX);
    if prefix[0] == 0 && message.len() == length { Ok(message) } else { Err(malformed()) }
}
