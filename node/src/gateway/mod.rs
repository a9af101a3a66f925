//! The HTTP gateway: a few endpoints for people, scrapers and scripts, on the same port and through the same
//! stack as gRPC.
//!
//! | endpoint | who may | answers |
//! |---|---|---|
//! | `GET /livez` | anybody | 200 while the process lives |
//! | `GET /readyz` | anybody | 200 while it takes calls, else 503; `?verbose` tells each check |
//! | `GET /health` | anybody; details for members | `healthy`, `degraded`, or 503 |
//! | `GET /metrics` | anybody, or members (`metrics_require_auth`) | Prometheus text or OpenMetrics, gzip if asked for |
//! | `GET /.well-known/jwks.json` | anybody | the keys that verify access tokens (RFC 7517) |
//! | `GET /cluster/nodes` | members | the members, as `p2pctl cluster nodes -o json`, by role and state, in pages |
//! | `GET /prometheus/targets` | members | the members for Prometheus, which finds all nodes by one (`http_sd_config`) |
//! | `POST /rpc` | members | JSON-RPC 2.0 |
//! | `GET /openapi.json` | anybody | this table for programs: `openapi.json` beside this file |
//!
//! HEAD is answered as GET without its body, OPTIONS with what an endpoint takes; other methods get 405, other paths 404, and
//! who takes no media type that there is gets 406. Errors are problem documents (RFC 9457), whatever `Accept` says.

mod accept;
mod jsonrpc;
mod nodes;
mod targets;

use crate::{
    auth::{Access, Caller, access_of},
    error::{Fault, Reason},
    limit::RateClass,
    rpc::{Parts, cluster},
    shutdown::Phase,
    telemetry::{Format, Metrics},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
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
    /// `/prometheus/targets`
    PrometheusTargets,
    /// `/rpc`
    Rpc,
    /// `/.well-known/jwks.json`
    Jwks,
    /// `/openapi.json`
    OpenApi,
}

impl Endpoint {
    const ALL: [(&'static str, Self); 9] = [
        ("/livez", Self::Livez),
        ("/readyz", Self::Readyz),
        ("/health", Self::Health),
        ("/metrics", Self::Metrics),
        ("/cluster/nodes", Self::ClusterNodes),
        ("/prometheus/targets", Self::PrometheusTargets),
        ("/rpc", Self::Rpc),
        ("/.well-known/jwks.json", Self::Jwks),
        ("/openapi.json", Self::OpenApi),
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
            Self::ClusterNodes | Self::PrometheusTargets | Self::Jwks | Self::OpenApi => RateClass::Default,
            Self::Rpc => RateClass::Rpc,
        }
    }

    /// The method that shows or does the same: who may call it may use the endpoint.
    pub fn method(self) -> &'static str {
        match self {
            // What anybody may ask, anybody may read about.
            Self::Livez | Self::Readyz | Self::Health | Self::OpenApi => "grpc.health.v1.Health/Check",
            Self::Metrics => "p2p.v1.SystemService/GetMetrics",
            Self::ClusterNodes | Self::PrometheusTargets => "p2p.v1.ClusterService/ListNodes",
            Self::Rpc => jsonrpc::GENERIC,
            // Reading the keys tells what verifying a token does.
            Self::Jwks => "p2p.v1.AuthService/VerifyToken",
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Self::Rpc => "POST, OPTIONS",
            Self::Livez
            | Self::Readyz
            | Self::Health
            | Self::Metrics
            | Self::ClusterNodes
            | Self::PrometheusTargets
            | Self::Jwks
            | Self::OpenApi => "GET, HEAD, OPTIONS",
        }
    }

    fn takes(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// The media types of its answers.
    fn media(self) -> &'static [&'static str] {
        match self {
            Self::Metrics => &[TEXT, OPEN_METRICS],
            Self::Livez
            | Self::Readyz
            | Self::Health
            | Self::ClusterNodes
            | Self::PrometheusTargets
            | Self::Rpc
            | Self::Jwks
            | Self::OpenApi => &[JSON],
        }
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const OPEN_METRICS: &str = "application/openmetrics-text";

/// The document that describes the endpoints; its version is filled in.
const OPENAPI: &str = include_str!("openapi.json");

/// What browsers are told with every answer: nothing here is a page. (No Strict-Transport-Security: it would bind the
/// other ports of the host, too.)
const SECURITY: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// Adds what every answer of the gateway carries, refusals too.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The gateway of one node.
#[derive(Debug)]
pub struct Gateway {
    parts: Parts,
    metrics: Arc<Metrics>,
    metrics_require_auth: AtomicBool,
}

impl Gateway {
    /// A gateway to `parts`.
    pub fn new(parts: Parts, metrics: Arc<Metrics>, metrics_require_auth: bool) -> Self {
        Self { parts, metrics, metrics_require_auth: metrics_require_auth.into() }
    }

    /// Sets whether metrics ask for evidence, from now on.
    pub fn require_auth_for_metrics(&self, required: bool) {
        self.metrics_require_auth.store(required, Ordering::Relaxed);
    }

    /// Who may use an endpoint.
    pub fn access(&self, endpoint: Endpoint) -> Access {
        match endpoint {
            Endpoint::Metrics if !self.metrics_require_auth.load(Ordering::Relaxed) => Access::Public,
            Endpoint::Livez
            | Endpoint::Readyz
            | Endpoint::Health
            | Endpoint::Metrics
            | Endpoint::ClusterNodes
            | Endpoint::PrometheusTargets
            | Endpoint::Rpc
            | Endpoint::Jwks
            | Endpoint::OpenApi => access_of(endpoint.method()),
        }
    }

    /// Answers one request that may be answered.
    pub async fn answer(
        &self,
        endpoint: Endpoint,
        caller: &Arc<Caller>,
        request: &mut Request<Body>,
    ) -> Result<Response<Body>, Fault> {
        if !endpoint.takes(request.method()) {
            let mut fault = Fault::new(
                Reason::MethodNotAllowed,
                format!("{} takes {}", endpoint.path(), endpoint.allow()),
            );
            fault.allow = Some(endpoint.allow());
            return Err(fault);
        }
        if request.method() == Method::OPTIONS {
            return Ok(options(endpoint));
        }
        let media = endpoint.media();
        if media.iter().all(|media| accept::quality(request.headers(), media) == 0.0) {
            let text = format!(
                "{} answers with {}, which your Accept excludes",
                endpoint.path(),
                media.join(" or ")
            );
            return Err(Fault::new(Reason::NotAcceptable, text));
        }
        match endpoint {
            Endpoint::Livez => Ok(json_answer(StatusCode::OK, &json!({"status": "alive"}))),
            Endpoint::Readyz => Ok(self.ready(request.uri().query())),
            Endpoint::Health => Ok(self.health(caller)),
            Endpoint::Metrics => self.metrics(request.headers()).await,
            Endpoint::ClusterNodes => self.cluster_nodes(request.uri().query()),
            Endpoint::PrometheusTargets => {
                let nodes = cluster::nodes(&self.parts.gossip.view().borrow());
                let groups = targets::groups(self.parts.gossip.cluster(), &nodes);
                Ok(json_answer(StatusCode::OK, &groups))
            }
            Endpoint::Jwks => Ok(self.jwks()),
            Endpoint::OpenApi => {
                let document = OPENAPI.replace("VERSION", env!("CARGO_PKG_VERSION"));
                Ok(answer(StatusCode::OK, JSON, document))
            }
            Endpoint::Rpc => jsonrpc::answer_request(&self.parts, caller, request).await,
        }
    }

    fn is_ready(&self) -> bool {
        self.parts.shutdown.phase() == Phase::Running
    }

    fn ready(&self, query: Option<&str>) -> Response<Body> {
        let (code, word) = match self.is_ready() {
            true => (StatusCode::OK, "ready"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        };
        let mut answer = json!({"status": word});
        if form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| name == "verbose") {
            // Only the first decides: a node whose cluster is degraded is still better than none.
            let serving = if self.is_ready() { "ok" } else { word };
            let healthy = cluster::status(&self.parts).problems.is_empty();
            answer["checks"] =
                json!({"serving": serving, "cluster": if healthy { "ok" } else { "degraded" }});
        }
        json_answer(code, &answer)
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

    async fn metrics(&self, headers: &HeaderMap) -> Result<Response<Body>, Fault> {
        let liked = |media| accept::quality(headers, media);
        // A `*` means the format that everything reads.
        let format = match accept::names(headers, OPEN_METRICS) && liked(OPEN_METRICS) >= liked(TEXT) {
            true => Format::OpenMetrics,
            false if liked(TEXT) == 0.0 => Format::OpenMetrics,
            false => Format::Prometheus,
        };
        let text = self.metrics.encode(format).map_err(Fault::internal)?;
        let mut response = if accept::takes_gzip(headers) {
            let packed = tokio::task::spawn_blocking(move || gzip(text.as_bytes())).await;
            let packed = packed.map_err(Fault::internal)?.map_err(Fault::internal)?;
            let mut response = answer(StatusCode::OK, format.content_type(), packed);
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        } else {
            answer(StatusCode::OK, format.content_type(), text)
        };
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
        Ok(response)
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

    fn cluster_nodes(&self, query: Option<&str>) -> Result<Response<Body>, Fault> {
        let query = nodes::Query::parse(query.unwrap_or_default())?;
        let list = query.page(cluster::nodes(&self.parts.gossip.view().borrow()));
        Ok(json_answer(StatusCode::OK, &list))
    }
}

/// What an endpoint takes.
fn options(endpoint: Endpoint) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(endpoint.allow()));
    response
}

fn gzip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let room = Vec::with_capacity(text.len() / 8);
    let mut packer = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
    packer.write_all(text)?;
    packer.finish()
}

/// How long others may keep the keys, in seconds; a new key is published longer before it signs.
const JWKS_MAX_AGE: &str = "public, max-age=300";

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    answer(status, JSON, value.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_describes_every_endpoint_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        assert_eq!(described, Endpoint::ALL.iter().map(|(path, _)| *path).collect());
        for (path, endpoint) in Endpoint::ALL {
            let methods: Vec<&str> =
                paths[path].as_object().expect("methods").keys().map(String::as_str).collect();
            let method = if endpoint == Endpoint::Rpc { "post" } else { "get" };
            assert_eq!(methods, [method], "{path}");
            let operation = &paths[path][method];
            assert!(operation["responses"]["default"]["$ref"].is_string(), "{path} may always fail");
            let media = operation["responses"]["200"]["content"].as_object().expect("media types");
            let media: BTreeSet<&str> = media.keys().map(String::as_str).collect();
            assert_eq!(media, endpoint.media().iter().copied().collect(), "{path}");
        }
    }
}
