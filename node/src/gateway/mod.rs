//! The HTTP gateway: a few endpoints for people, scrapers and scripts, on the same port and through the same
//! stack as gRPC.
//!
//! | endpoint | who may | answers |
//! |---|---|---|
//! | `GET /livez` | anybody | 200 while the process lives |
//! | `GET /readyz` | anybody | 200 while it takes calls, else 503 |
//! | `GET /health` | anybody; details for members | `healthy`, `degraded`, or 503 |
//! | `GET /metrics` | anybody, or members (`metrics_require_auth`) | Prometheus text or OpenMetrics |
//! | `GET /.well-known/jwks.json` | anybody | the keys that verify access tokens (RFC 7517) |
//! | `GET /cluster/nodes` | members | the members, as `p2pctl cluster nodes -o json` |
//! | `POST /rpc` | members | JSON-RPC 2.0 |

mod jsonrpc;

use crate::{
    auth::{Access, Caller, access_of},
    error::{Fault, Reason},
    limit::{Limits, RateClass},
    rpc::{Parts, cluster},
    shutdown::Phase,
    telemetry::{Format, Metrics},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use std::sync::Arc;
use tonic::body::Body;

/// Something that the gateway answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/livez`
    Livez,
    /// `/readyz`
    Readyz,
    /// `/health`
    Health,
    /// `/metrics`
    Metrics,
    /// `/cluster/nodes`
    ClusterNodes,
    /// `/rpc`
    Rpc,
    /// `/.well-known/jwks.json`
    Jwks,
}

impl Endpoint {
    const ALL: [(&'static str, Self); 7] = [
        ("/livez", Self::Livez),
        ("/readyz", Self::Readyz),
        ("/health", Self::Health),
        ("/metrics", Self::Metrics),
        ("/cluster/nodes", Self::ClusterNodes),
        ("/rpc", Self::Rpc),
        ("/.well-known/jwks.json", Self::Jwks),
    ];

    /// The endpoint of a path.
    pub fn resolve(path: &str) -> Result<Self, Fault> {
        let found = Self::ALL.iter().find(|(known, _)| *known == path);
        found.map(|(_, endpoint)| *endpoint).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(path, _)| *path).collect();
            Fault::new(Reason::NotFound, format!("nothing here; known paths: {}", known.join(" ")))
        })
    }

    /// Its path: a closed set, fit for metrics.
    pub fn path(self) -> &'static str {
        Self::ALL.iter().find(|(_, endpoint)| *endpoint == self).map_or("/", |(path, _)| path)
    }

    /// Its class of rate limit.
    pub fn class(self) -> RateClass {
        match self {
            Self::Livez | Self::Readyz | Self::Health => RateClass::Health,
            Self::Metrics => RateClass::Metrics,
            Self::ClusterNodes | Self::Jwks => RateClass::Default,
            Self::Rpc => RateClass::Rpc,
        }
    }

    /// The method that shows or does the same: who may call it may use the endpoint.
    pub fn method(self) -> &'static str {
        match self {
            Self::Livez | Self::Readyz | Self::Health => "grpc.health.v1.Health/Check",
            Self::Metrics => "p2p.v1.SystemService/GetMetrics",
            Self::ClusterNodes => "p2p.v1.ClusterService/ListNodes",
            Self::Rpc => "p2p.v1.RpcService/Call",
            // Reading the keys tells what verifying a token does.
            Self::Jwks => "p2p.v1.AuthService/VerifyToken",
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Self::Rpc => "POST",
            Self::Livez | Self::Readyz | Self::Health | Self::Metrics | Self::ClusterNodes | Self::Jwks => {
                "GET, HEAD"
            }
        }
    }
}

/// The gateway of one node.
#[derive(Debug)]
pub struct Gateway {
    parts: Parts,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    metrics_require_auth: bool,
}

impl Gateway {
    /// A gateway to `parts`. `limits` are charged for each call of a batch but the first, which the request was charged
    /// for.
    pub fn new(parts: Parts, limits: Arc<Limits>, metrics: Arc<Metrics>, metrics_require_auth: bool) -> Self {
        Self { parts, limits, metrics, metrics_require_auth }
    }

    /// Who may use an endpoint.
    pub fn access(&self, endpoint: Endpoint) -> Access {
        match endpoint {
            Endpoint::Metrics if !self.metrics_require_auth => Access::Public,
            Endpoint::Livez
            | Endpoint::Readyz
            | Endpoint::Health
            | Endpoint::Metrics
            | Endpoint::ClusterNodes
            | Endpoint::Rpc
            | Endpoint::Jwks => access_of(endpoint.method()),
        }
    }

    /// Answers one request that may be answered.
    pub async fn answer(
        &self,
        endpoint: Endpoint,
        caller: &Arc<Caller>,
        request: &mut Request<Body>,
    ) -> Result<Response<Body>, Fault> {
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        if reading == (endpoint == Endpoint::Rpc) || !(reading || request.method() == Method::POST) {
            let mut fault = Fault::new(
                Reason::MethodNotAllowed,
                format!("{} takes {}", endpoint.path(), endpoint.allow()),
            );
            fault.allow = Some(endpoint.allow());
            return Err(fault);
        }
        match endpoint {
            Endpoint::Livez => Ok(json_answer(StatusCode::OK, &json!({"status": "alive"}))),
            Endpoint::Readyz => Ok(self.ready()),
            Endpoint::Health => Ok(self.health(caller)),
            Endpoint::Metrics => self.metrics(request),
            Endpoint::ClusterNodes => self.cluster_nodes(),
            Endpoint::Jwks => Ok(self.jwks()),
            Endpoint::Rpc => jsonrpc::answer_request(&self.parts, &self.limits, caller, request).await,
        }
    }

    fn is_ready(&self) -> bool {
        self.parts.shutdown.phase() == Phase::Running
    }

    fn ready(&self) -> Response<Body> {
        if self.is_ready() {
            json_answer(StatusCode::OK, &json!({"status": "ready"}))
        } else {
            json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "shutting down"}))
        }
    }

    /// The word for everybody; reasons, cluster and version for members only.
    fn health(&self, caller: &Caller) -> Response<Body> {
        let status = cluster::status(&self.parts);
        let (code, word) = match (self.is_ready(), status.problems.is_empty()) {
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            (true, true) => (StatusCode::OK, "healthy"),
            (true, false) => (StatusCode::OK, "degraded"),
        };
        let mut answer = json!({"status": word});
        let details = "p2p.v1.ClusterService/GetStatus";
        if self.parts.router.auth().allows(caller, access_of(details), details) {
            answer["reasons"] = json!(status.problems);
            answer["cluster"] = json!(status);
            answer["version"] = json!(env!("CARGO_PKG_VERSION"));
        }
        json_answer(code, &answer)
    }

    fn metrics(&self, request: &Request<Body>) -> Result<Response<Body>, Fault> {
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let format = Format::accepted(accept);
        let text = self.metrics.encode(format).map_err(Fault::internal)?;
        Ok(answer(StatusCode::OK, format.content_type(), text))
    }

    /// The keys that verify access tokens, for those who verify them elsewhere.
    fn jwks(&self) -> Response<Body> {
        let signers = self.parts.router.auth().verifier().signers().all();
        let signers = signers.iter().filter(|signer| !self.parts.revocations.is_evicted(&signer.issuer.name));
        let keys: Vec<_> = signers.map(|signer| signer.key.jwk()).collect();
        let mut response = json_answer(StatusCode::OK, &json!({"keys": keys}));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(JWKS_MAX_AGE));
        response
    }

    fn cluster_nodes(&self) -> Result<Response<Body>, Fault> {
        let items = cluster::nodes(&self.parts.gossip.view().borrow());
        let list = json!({"schema": "p2pctl/v1", "kind": "NodeList", "items": items});
        Ok(json_answer(StatusCode::OK, &list))
    }
}

/// How long others may keep the keys, in seconds; a new key is published longer before it signs.
const JWKS_MAX_AGE: &str = "public, max-age=300";

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    answer(status, "application/json", value.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
