//! Calls whose messages are encoded already, of any streaming kind: for tools that have descriptors in place of stubs.

use crate::{Connection, error::CallError};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::HeaderMap;
use http::uri::PathAndQuery;
use tonic::{
    Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_types::StatusExt as _;

/// Which node's service answered; without it, an answer is a node's own word.
const SERVED_BY: &str = "p2p-served-by";

/// Messages as bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// How a raw call failed.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The method itself answered with an error.
    #[error("{node} answered: {}", status.message())]
    Answered {
        /// The node whose service it was.
        node: String,
        /// What it said.
        status: Status,
    },
    /// The call did not reach the method, or its answer got lost.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The answers to a raw call.
#[derive(Debug)]
pub struct RawAnswers {
    answers: Streaming<Bytes>,
    node: Option<String>,
    connection: Connection,
}

impl RawAnswers {
    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RawError> {
        match self.answers.message().await {
            Ok(message) => Ok(message),
            Err(status) => Err(failed(&self.connection, self.node.take(), status).await),
        }
    }
}

impl Connection {
    /// Calls `method` (`package.Service/Method`) with encoded messages and `headers`. A unary call has one message each way.
    ///
    /// # Errors
    ///
    /// [`RawError::Answered`] for an error of the method itself, else why it was not reached.
    pub async fn call_raw<S>(
        &self,
        method: &str,
        headers: HeaderMap,
        messages: S,
    ) -> Result<RawAnswers, RawError>
    where
        S: tokio_stream::Stream<Item = Bytes> + Send + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{}", method.trim_start_matches('/')))
            .map_err(|_| CallError::from(Status::invalid_argument(format!("{method:?} is no method"))))?;
        let mut request = Request::new(messages);
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        let mut grpc = tonic::client::Grpc::new(self.channel())
            .max_decoding_message_size(crate::connection::MAX_ANSWER_BYTES);
        let answer = match grpc.ready().await {
            Ok(()) => grpc.streaming(request, path, Raw).await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(answer) => {
                let node = node_in(answer.metadata());
                Ok(RawAnswers { answers: answer.into_inner(), node, connection: self.clone() })
            }
            Err(status) => Err(failed(self, node_in(status.metadata()), status).await),
        }
    }
}

fn node_in(metadata: &MetadataMap) -> Option<String> {
    metadata.get(SERVED_BY)?.to_str().ok().map(str::to_owned)
}

async fn failed(connection: &Connection, node: Option<String>, status: Status) -> RawError {
    // A node that passes an answer on says so when it breaks off.
    let lost = || status.get_details_error_info().is_some_and(|info| info.reason == "PROVIDER_LOST");
    let ours = std::error::Error::source(&status).is_some();
    match node.or_else(|| node_in(status.metadata())) {
        Some(node) if !ours && !lost() => RawError::Answered { node, status },
        Some(_) | None => RawError::Call(connection.failure(status).await),
    }
}
