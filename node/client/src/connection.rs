//! One connection to a node, and the questions that admins and tools ask over it.

mod node;
mod services;

use crate::{
    channel::Channel,
    endpoint::Endpoint,
    error::{CallError, ConnectError},
    refusal::refusal,
};
use http::HeaderValue;
use p2p_proto::v1::{
    BroadcastRequest, BroadcastResponse, CallRequest, CallResponse, ClusterStatus, CreateJoinTokenRequest,
    CreateJoinTokenResponse, EventsRequest, EventsResponse, EvictRequest, EvictResponse,
    GetDescriptorsRequest, GetStatusRequest, IssueTokenRequest, IssueTokenResponse, JoinTokenInfo,
    ListJoinTokensRequest, ListMethodsRequest, ListNodesRequest, ListRevocationsRequest,
    ListRevocationsResponse, MethodInfo, NodeInfo, ReadmitRequest, ReadmitResponse, RevocationInfo,
    RevokeJoinTokenRequest, RevokeTokenRequest, RotateCaRequest, RotateCaStatus, VerifyTokenRequest,
    VerifyTokenResponse, WhyRequest, WhyResponse, auth_service_client::AuthServiceClient,
    call_request::Payload, cluster_service_client::ClusterServiceClient,
    enrollment_service_client::EnrollmentServiceClient, registry_service_client::RegistryServiceClient,
    rpc_service_client::RpcServiceClient,
};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Largest answer that is decoded, in bytes: the member list of 10,000 nodes takes about 5 MB.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The header of a call's deadline.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// How much longer than its deadline an answer is awaited that the node itself ends in time.
const ANSWER_SLACK: Duration = Duration::from_secs(1);

/// How to reach a node, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where the node listens.
    pub endpoint: Endpoint,
    /// Other nodes of the same cluster, which take the calls, in this order, when that one does not.
    pub others: Vec<Endpoint>,
    /// The CA certificates to trust, as PEM. Required unless the endpoint is plain.
    pub ca_pem: Option<Vec<u8>>,
    /// Who calls; without it the caller is anonymous and may ask little.
    pub identity: Option<Identity>,
    /// An access token to show with each call. It comes before the certificate.
    pub token: Option<Token>,
    /// Limit of connecting, and of each question of [`Connection`]; sent to the node as the call's deadline.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// Options for `endpoint` with a timeout of 5 s, and neither CA nor evidence.
    pub fn new(endpoint: Endpoint) -> Self {
        let (others, timeout) = (Vec::new(), Duration::from_secs(5));
        Self { endpoint, others, ca_pem: None, identity: None, token: None, timeout }
    }
}

/// A certificate chain and its private key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, then its intermediates.
    pub cert_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Identity {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// An access token, as it is sent in `authorization`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an access token is one line of visible ASCII characters")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| InvalidToken)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }
}

impl Token {
    /// The value of the `authorization` header, marked as sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Debug for Token {
    /// Never shows the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A connection to a cluster through one node, or one of several. Cheap to clone; calls share one HTTP/2 connection, which
/// is opened anew, to the next node, when it breaks.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    options: Arc<ConnectOptions>,
}

impl Connection {
    /// Connects to the first node that answers, and completes the TLS handshake.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let channel = Channel::connect(options).await?;
        Ok(Self { channel, options: Arc::new(options.clone()) })
    }

    /// The channel, for generated clients of your own services: any method of any node in the cluster
    /// can be called through it.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The node that this connection leads to first.
    pub fn endpoint(&self) -> &Endpoint {
        &self.options.endpoint
    }

    /// The members as the connected node sees them, sorted by node id.
    pub async fn list_nodes(&self) -> Result<Vec<NodeInfo>, CallError> {
        let mut client =
            ClusterServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.list_nodes(self.request(ListNodesRequest {})).await;
        self.answer(answer).await.map(|list| list.nodes)
    }

    /// Counts and problems of the cluster as the connected node sees it.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, CallError> {
        let mut client = ClusterServiceClient::new(self.channel());
        let answer = client.get_status(self.request(GetStatusRequest {})).await;
        self.answer(answer).await
    }

    /// Why the connected node thinks what it thinks of a member.
    pub async fn why(&self, node: &str) -> Result<WhyResponse, CallError> {
        let mut client = ClusterServiceClient::new(self.channel());
        let answer = client.why(self.request(WhyRequest { node_id: node.to_owned() })).await;
        self.answer(answer).await
    }

    /// What the connected node has come to know of members, oldest first; with `follow` also what comes, without end.
    pub async fn events(&self, follow: bool) -> Result<Events, CallError> {
        let mut client = ClusterServiceClient::new(self.channel());
        let mut request = self.request(EventsRequest { follow });
        if follow {
            // Only the beginning of the answer has a limit.
            request.metadata_mut().remove(GRPC_TIMEOUT);
        }
        let timeout = self.options.timeout;
        let answer = tokio::time::timeout(timeout, client.events(request)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer in time")));
        self.answer(answer).await.map(|events| Events { events, connection: self.clone() })
    }

    /// Takes access tokens back, at the connected coordinator.
    pub async fn revoke_token(&self, request: RevokeTokenRequest) -> Result<RevocationInfo, CallError> {
        let mut client = AuthServiceClient::new(self.channel());
        let answer = client.revoke_token(self.request(request)).await;
        self.answer(answer).await.map(|answer| answer.revocation.unwrap_or_default())
    }

    /// What is revoked, as the connected node enforces it.
    pub async fn list_revocations(&self) -> Result<ListRevocationsResponse, CallError> {
        let mut client = AuthServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.list_revocations(self.request(ListRevocationsRequest {})).await;
        self.answer(answer).await
    }

    /// Bans a node, at the connected coordinator; `unknown_too` bans an id that it does not know.
    pub async fn evict(&self, node: &str, unknown_too: bool) -> Result<EvictResponse, CallError> {
        let mut client = ClusterServiceClient::new(self.channel());
        let request = EvictRequest { node_id: node.to_owned(), unknown_too };
        let answer = client.evict(self.request(request)).await;
        self.answer(answer).await
    }

    /// Lifts the ban of a node, at the connected coordinator.
    pub async fn readmit(&self, node: &str) -> Result<ReadmitResponse, CallError> {
        let mut client = ClusterServiceClient::new(self.channel());
        let answer = client.readmit(self.request(ReadmitRequest { node_id: node.to_owned() })).await;
        self.answer(answer).await
    }

    /// Every method that the cluster serves, sorted by path.
    pub async fn list_methods(&self) -> Result<Vec<MethodInfo>, CallError> {
        let mut client =
            RegistryServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.list_methods(self.request(ListMethodsRequest {})).await;
        self.answer(answer).await.map(|list| list.methods)
    }

    /// The schema of `service`: an encoded `google.protobuf.FileDescriptorSet`.
    pub async fn descriptors(&self, service: &str) -> Result<Vec<u8>, CallError> {
        let mut client =
            RegistryServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let request = GetDescriptorsRequest { service: service.to_owned() };
        let answer = client.get_descriptors(self.request(request)).await;
        self.answer(answer).await.map(|found| found.file_descriptor_set.into())
    }

    /// Calls the unary `method` (`package.Service/Method`) with a message in proto3 JSON, at `node` or
    /// wherever it is provided. An error that the method itself answered with is in the response.
    pub async fn call_json(
        &self,
        method: &str,
        json: &str,
        node: Option<&str>,
    ) -> Result<CallResponse, CallError> {
        let mut client = RpcServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let request = CallRequest {
            method: method.to_owned(),
            node: node.unwrap_or_default().to_owned(),
            payload: Some(Payload::Json(json.to_owned())),
        };
        let answer = client.call(self.request(request)).await;
        self.answer(answer).await
    }

    /// Calls a method on many nodes at once; their results come as they are ready.
    pub async fn broadcast(&self, request: BroadcastRequest) -> Result<Broadcast, CallError> {
        let mut client = RpcServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.broadcast(self.request(request)).await;
        let results = self.answer(answer).await?;
        // The node ends the call in time; a node that hangs does not.
        let until = Instant::now() + self.options.timeout + ANSWER_SLACK;
        Ok(Broadcast { results, connection: self.clone(), until })
    }

    /// Makes a join token at the connected coordinator. Its text is in the answer and nowhere else.
    pub async fn create_join_token(
        &self,
        token: CreateJoinTokenRequest,
    ) -> Result<CreateJoinTokenResponse, CallError> {
        let mut client = EnrollmentServiceClient::new(self.channel());
        let answer = client.create_join_token(self.request(token)).await;
        self.answer(answer).await
    }

    /// The join tokens of the connected coordinator, oldest first.
    pub async fn list_join_tokens(&self) -> Result<Vec<JoinTokenInfo>, CallError> {
        let mut client =
            EnrollmentServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.list_join_tokens(self.request(ListJoinTokensRequest {})).await;
        self.answer(answer).await.map(|list| list.tokens)
    }

    /// Takes a join token of the connected coordinator back, by its id.
    pub async fn revoke_join_token(&self, id: &str) -> Result<JoinTokenInfo, CallError> {
        let mut client = EnrollmentServiceClient::new(self.channel());
        let request = RevokeJoinTokenRequest { id: id.to_owned() };
        let answer = client.revoke_join_token(self.request(request)).await;
        self.answer(answer).await.map(|answer| answer.info.unwrap_or_default())
    }

    /// Signs an access token at the connected coordinator. Its text is in the answer and nowhere else.
    pub async fn issue_token(&self, token: IssueTokenRequest) -> Result<IssueTokenResponse, CallError> {
        let mut client = AuthServiceClient::new(self.channel());
        let answer = client.issue_token(self.request(token)).await;
        self.answer(answer).await
    }

    /// Whether the connected node accepts an access token, and why not.
    pub async fn verify_token(&self, token: &str) -> Result<VerifyTokenResponse, CallError> {
        let mut client = AuthServiceClient::new(self.channel());
        let request = VerifyTokenRequest { token: token.to_owned() };
        let answer = client.verify_token(self.request(request)).await;
        self.answer(answer).await
    }

    /// Rotates the root of the cluster at the connected coordinator, as far as it goes now.
    pub async fn rotate_ca(&self, request: RotateCaRequest) -> Result<RotateCaStatus, CallError> {
        let mut client = EnrollmentServiceClient::new(self.channel());
        let answer = client.rotate_ca(self.request(request)).await;
        self.answer(answer).await
    }

    /// The same connection for a question whose answer may take `least`.
    fn patient(&self, least: Duration) -> Self {
        let timeout = self.options.timeout.max(least);
        let options = ConnectOptions { timeout, ..ConnectOptions::clone(&self.options) };
        Self { channel: self.channel.clone(), options: Arc::new(options) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.options.timeout);
        request
    }

    async fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, CallError> {
        match answer {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.failure(status).await),
        }
    }

    /// What a failed call means; looks for a refusal of our certificate, which libraries report as a closed connection.
    pub(crate) async fn failure(&self, status: Status) -> CallError {
        let error = CallError::new(status, &self.options.endpoint, self.options.timeout);
        if matches!(error, CallError::Connection(ConnectError::Unreachable { .. }))
            && let Some(refusal) = refusal(&self.options).await
        {
            return refusal.into();
        }
        error
    }
}

/// What a node comes to know of members.
#[derive(Debug)]
pub struct Events {
    events: Streaming<EventsResponse>,
    connection: Connection,
}

impl Events {
    /// The next event, as it comes; `None` when there are no more.
    pub async fn next(&mut self) -> Result<Option<EventsResponse>, CallError> {
        match self.events.message().await {
            Ok(event) => Ok(event),
            Err(status) => Err(self.connection.failure(status).await),
        }
    }
}

/// The results of a broadcast.
#[derive(Debug)]
pub struct Broadcast {
    results: Streaming<BroadcastResponse>,
    connection: Connection,
    until: Instant,
}

impl Broadcast {
    /// The next node's result; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<BroadcastResponse>, CallError> {
        let options = &self.connection.options;
        match tokio::time::timeout_at(self.until, self.results.message()).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(status)) => Err(self.connection.failure(status).await),
            Err(_elapsed) => Err(CallError::DeadlineExceeded {
                endpoint: options.endpoint.clone(),
                timeout: options.timeout,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_never_shown() {
        let token: Token = " a.b.c\n".parse().expect("a token");
        assert_eq!(token.header(), "Bearer a.b.c");
        assert!(token.header().is_sensitive());
        assert_eq!(format!("{token:?}"), "Token(..)");
        for bad in ["", " ", "a b", "a\nb", "ä"] {
            assert_eq!(bad.parse::<Token>(), Err(InvalidToken), "{bad:?}");
        }
    }
}
