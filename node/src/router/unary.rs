//! Unary calls made by this node for a caller that has no stubs: `RpcService.Call` and `POST /rpc`.

use super::{Router, within};
use crate::{
    auth::{Caller, TARGET_NODE},
    error::{Fault, Reason},
    registry::Method,
    schema,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use p2p_core::{MethodPath, NodeId, method::StreamingKind};
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

/// A call to be made.
#[derive(Debug)]
pub struct UnaryCall<'a> {
    /// The method.
    pub method: &'a Method,
    /// For whom.
    pub caller: &'a Arc<Caller>,
    /// Only this node may serve it.
    pub target: Option<&'a NodeId>,
    /// When it must be answered.
    pub deadline: Option<Instant>,
}

impl Router {
    /// Makes a call with an encoded message, if the caller may.
    ///
    /// # Errors
    ///
    /// What kept the call from its method. What the method itself answered, errors too, is in the answer.
    pub async fn call(&self, call: UnaryCall<'_>, message: &[u8]) -> Result<Answer, Fault> {
        let path = &call.method.info.path;
        self.auth.authorize(call.caller, call.method.access, path.as_str(), path.as_str())?;
        refuse_itself(path)?;
        if call.method.info.streaming != StreamingKind::Unary {
            let kind = call.method.info.streaming.word();
            return Err(Fault::new(
                Reason::InvalidArgument,
                format!("{path} is {kind}; generic calls are unary. Use its own stubs, or grpcurl"),
            ));
        }
        let mut request = Request::new(Body::new(Full::new(framed(message)?)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = path.as_wire().parse().map_err(Fault::internal)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(target) = call.target {
            headers.insert(TARGET_NODE, HeaderValue::from_str(target.as_str()).map_err(Fault::internal)?);
        }
        let (response, node) = self.route(call.method, call.caller, call.deadline, request).await?;
        let result = within(call.deadline, self.read_answer(response)).await??;
        Ok(Answer { node, result })
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
        let path = call.method.info.path.as_str();
        self.auth.authorize(call.caller, call.method.access, path, path)?;
        refuse_itself(&call.method.info.path)?;
        let schema = self.schema(call.method).await?;
        let descriptor = schema.method(&call.method.info.path).ok_or_else(|| {
            Fault::new(Reason::NotFound, format!("the descriptors do not describe {}", call.method.info.path))
        })?;
        let message = schema::encode_json(&descriptor.input(), json)?;
        let answer = self.call(call, &message).await?;
        let result = match answer.result {
            Ok(bytes) => Ok(schema::decode_json(&descriptor.output(), bytes)?),
            Err(status) => Err(status),
        };
        Ok((answer.node, result))
    }

    async fn read_answer(&self, response: http::Response<Body>) -> Result<Result<Bytes, Status>, Fault> {
        let head = response.headers().clone();
        if response.status() != http::StatusCode::OK {
            return Ok(Err(Status::unknown(format!("the provider answered HTTP {}", response.status()))));
        }
        let limit = self.max_message_bytes + PREFIX;
        let body = Limited::new(response.into_body(), limit).collect().await.map_err(|error| {
            if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() {
                let limit = self.max_message_bytes;
                Fault::new(
                    Reason::TooLarge,
                    format!("the answer is larger than {limit} bytes (rpc_max_message_bytes)"),
                )
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
