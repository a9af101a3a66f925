//! Clients of one node.

use super::{
    eventually,
    greeter::{HelloReply, HelloRequest, greeter_client::GreeterClient},
    state_of,
};
use p2p_proto::v1::{
    CallRequest, CallResponse, CreateJoinTokenRequest, IssueTokenRequest, ListMethodsRequest,
    ListNodesRequest, MemberState, NodeInfo, RevocationInfo, RevokeTokenRequest, VerifyTokenRequest,
    auth_service_client::AuthServiceClient, call_request::Payload,
    cluster_service_client::ClusterServiceClient, enrollment_service_client::EnrollmentServiceClient,
    registry_service_client::RegistryServiceClient, revoke_token_request::What,
    rpc_service_client::RpcServiceClient, system_service_client::SystemServiceClient,
};
use std::{net::SocketAddr, time::Duration};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// A client of one node: gRPC over HTTP/2, and HTTP.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub channel: Channel,
    ca: String,
    identity: Option<(String, String)>,
}

impl Client {
    /// Connects with the certificate `identity` (certificate and key), if one is given.
    pub async fn connect(address: SocketAddr, ca: &str, identity: Option<(String, String)>) -> Self {
        let channel = endpoint(address, ca, identity.as_ref()).connect().await.expect("connected");
        Self { address, channel, ca: ca.to_owned(), identity }
    }

    /// A client that connects when it is first used.
    pub fn connect_lazily(address: SocketAddr, ca: &str, identity: (String, String)) -> Self {
        let channel = endpoint(address, ca, Some(&identity)).connect_lazy();
        Self { address, channel, ca: ca.to_owned(), identity: Some(identity) }
    }

    /// The same without a certificate.
    pub fn connect_without_identity(address: SocketAddr, ca: &str) -> Self {
        let channel = endpoint(address, ca, None).connect_lazy();
        Self { address, channel, ca: ca.to_owned(), identity: None }
    }

    pub fn greeter(&self) -> GreeterClient<Channel> {
        GreeterClient::new(self.channel.clone())
    }

    pub fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel.clone())
    }

    pub async fn hello(&self, name: &str) -> Result<HelloReply, Status> {
        let request = HelloRequest { name: name.to_owned() };
        self.greeter().say_hello(request).await.map(tonic::Response::into_inner)
    }

    /// `RpcService.Call` with JSON.
    pub async fn call(&self, method: &str, node: &str, json: &str) -> Result<CallResponse, Status> {
        let payload = Some(Payload::Json(json.to_owned()));
        let request = CallRequest { method: method.to_owned(), node: node.to_owned(), payload };
        let answer = RpcServiceClient::new(self.channel.clone()).call(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Has an access token issued that lives for ten minutes.
    pub async fn issue(&self, subject: &str, scope: &[&str]) -> Result<String, Status> {
        let scope = scope.iter().map(|&glob| glob.to_owned()).collect();
        let request = IssueTokenRequest { subject: subject.to_owned(), scope, ttl_seconds: 600 };
        let answer = AuthServiceClient::new(self.channel.clone()).issue_token(request).await?;
        Ok(answer.into_inner().token)
    }

    /// Why the node refuses an access token; empty if it accepts it.
    pub async fn verdict(&self, token: &str) -> Result<String, String> {
        let request = VerifyTokenRequest { token: token.to_owned() };
        let answer = AuthServiceClient::new(self.channel.clone()).verify_token(request).await;
        answer.map(|answer| answer.into_inner().reason).map_err(|status| status.to_string())
    }

    /// Waits until the node refuses an access token for the reason `expected`, or accepts it if that is empty.
    pub async fn awaits_verdict(&self, token: &str, expected: &str) -> Duration {
        eventually(&format!("the verdict {expected:?}"), async || match self.verdict(token).await? {
            reason if reason == expected => Ok(()),
            reason => Err(format!("{reason:?}")),
        })
        .await
    }

    pub async fn revoke(&self, what: What) -> Result<RevocationInfo, Status> {
        let request = RevokeTokenRequest { what: Some(what) };
        let answer = AuthServiceClient::new(self.channel.clone()).revoke_token(request).await?;
        Ok(answer.into_inner().revocation.expect("what was revoked"))
    }

    /// Has a join token made.
    pub async fn join_token(&self, request: CreateJoinTokenRequest) -> Result<String, Status> {
        let mut client = EnrollmentServiceClient::new(self.channel.clone());
        client.create_join_token(request).await.map(|answer| answer.into_inner().token)
    }

    pub async fn members(&self) -> Result<Vec<NodeInfo>, Status> {
        let answer = ClusterServiceClient::new(self.channel.clone()).list_nodes(ListNodesRequest {}).await?;
        Ok(answer.into_inner().nodes)
    }

    /// Waits until the node sees `member` in `state`.
    pub async fn awaits_state(&self, member: &str, state: MemberState) -> Duration {
        eventually(&format!("{member} {}", state.word()), async || {
            let seen = self.members().await.map_err(|status| status.to_string())?;
            match state_of(&seen, member) {
                Some(found) if found == state => Ok(()),
                found => Err(format!("it is {}", found.map_or("unknown", MemberState::word))),
            }
        })
        .await
    }

    /// Waits until the node routes `method` to `provider`.
    pub async fn awaits_provider(&self, method: &str, provider: &str) {
        eventually(&format!("{provider} to provide {method}"), async || {
            let providers = self.providers(method).await?;
            if providers.iter().any(|found| found == provider) {
                return Ok(());
            }
            Err(format!("providers: {providers:?}"))
        })
        .await;
    }

    pub async fn providers(&self, method: &str) -> Result<Vec<String>, String> {
        let mut registry = RegistryServiceClient::new(self.channel.clone());
        let answer =
            registry.list_methods(ListMethodsRequest {}).await.map_err(|status| status.to_string())?;
        let mut rows = answer.into_inner().methods.into_iter();
        Ok(rows.find(|row| row.path == method).map(|row| row.providers).unwrap_or_default())
    }

    /// An HTTP client with the same certificate, HTTP/2 if `http2`, else HTTP/1.1.
    pub fn http(&self, http2: bool) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.ca.as_bytes()).expect("a certificate");
        let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only([ca]);
        builder = if http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
        if let Some((certificate, key)) = &self.identity {
            let pem = format!("{certificate}\n{key}");
            builder =
                builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).expect("certificate and key"));
        }
        builder.timeout(Duration::from_secs(10)).build().expect("an HTTP client")
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// The node's metrics as Prometheus text.
    pub async fn metrics(&self) -> String {
        let answer = self.http(false).get(self.url("/metrics")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.text().await.expect("text")
    }

    /// Waits until the sample `name` is at least `least`.
    pub async fn awaits_sample(&self, name: &str, least: f64) {
        let http = self.http(false);
        eventually(name, async || {
            let answer = http.get(self.url("/metrics")).send().await.map_err(|error| error.to_string())?;
            let text = answer.text().await.map_err(|error| error.to_string())?;
            let found = sample(&text, name);
            found.filter(|found| *found >= least).map(|_| ()).ok_or_else(|| format!("it is {found:?}"))
        })
        .await;
    }
}

fn endpoint(address: SocketAddr, ca: &str, identity: Option<&(String, String)>) -> Endpoint {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("a URI");
    endpoint.connect_timeout(Duration::from_secs(10)).tls_config(tls).expect("TLS")
}

/// The value of a sample in Prometheus text, by its name with labels as they are written.
pub fn sample(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

/// The `google.rpc` details of a status.
pub fn error_details(status: &Status) -> ErrorDetails {
    status.get_error_details()
}
