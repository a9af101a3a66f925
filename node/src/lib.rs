//! The daemon of P2P Core as a library: one TLS port that gossips, serves and routes.
//!
//! Modules, highest first; each may use those below it and none beside it (`tests/imports.rs` holds it):
//!
//! | line | modules |
//! |---|---|
//! | [`app`] | builds every part and wires them; the only one that knows them all |
//! | [`server`] | listener, TLS handshake, mux (gRPC or HTTP), the stack |
//! | [`gateway`] | HTTP endpoints, which show what the gRPC services show |
//! | [`rpc`] | gRPC services |
//! | [`examine`] | what is wrong with this node, as it finds itself |
//! | [`router`] [`gossip`] [`enrol`] [`upstream`] | where a call goes; the one task that drives `p2p-core`; joining; processes behind this node |
//! | [`registry`] | THE method registry |
//! | [`limit`] [`schema`] [`peer`] | rate limits; descriptors and JSON; connections to other nodes |
//! | [`auth`] | evidence and policy |
//! | [`token`] [`revocation`] | access tokens: signing keys, verification; what is revoked: lookups, live connections |
//! | [`identity`] | certificates, CA, trust, hot reload |
//! | [`audit`] | who did which act of an admin |
//! | [`telemetry`] [`persist`] | logs and metrics; state on disk |
//! | [`error`] [`shutdown`] [`config`] [`tap`] | faults and their answers; the stop signal; configuration; byte streams that are looked at |
//!
//! A request's life is one file: [`server::stack`].

pub mod app;
pub mod audit;
pub mod auth;
pub mod config;
pub mod enrol;
pub mod error;
pub mod examine;
pub mod gateway;
pub mod gossip;
pub mod identity;
pub mod limit;
pub mod peer;
pub mod persist;
pub mod registry;
pub mod revocation;
pub mod router;
pub mod rpc;
pub mod schema;
pub mod server;
pub mod shutdown;
pub mod tap;
pub mod telemetry;
pub mod token;
pub mod upstream;
