//! Who a node is and whom it believes: certificates, the CA, SPIFFE ids, trust and TLS.
//!
//! | file | what it holds |
//! |---|---|
//! | [`certificate`] | what a certificate says: SPIFFE id, validity, service grant |
//! | [`grant`] | which services a certificate may provide, and its X.509 extension |
//! | [`key`] [`pem`] `instant` | private keys, PEM files with limits, how times are printed |
//! | [`ca`] `san` | issuing: the CA of a cluster and the leaves below it |
//! | [`bundle`] [`anchors`] | the signed trust bundle; the one in force |
//! | [`rotation`] | the files of a root's rotation |
//! | [`authority`] | CAs of coordinators, below the root |
//! | [`backup`] | the CA in one file under a passphrase |
//! | [`bans`] [`vouchers`] | who was evicted, as trust asks it; on whose word a certificate rests |
//! | [`files`] `write` | `certs generate`: checks everything, then writes |
//! | [`mod@inspect`] | `certs inspect` and `certs verify` |
//! | [`trust`] | roots + cluster id: verifies chains and signed messages |
//! | [`tls`] [`explain`] | rustls configurations with our verifiers; failed handshakes as sentences |
//! | [`local`] `error` [`store`] | this node's own identity, loaded and checked; what can be wrong; hot reload |
//! | [`bootstrap`] | what to do at start when there is no certificate yet |
//! | [`join_token`] | the text of a join token |
//! | [`csr`] [`pinned`] [`enrolled`] | a new node's request, its TLS before it has a root, its files afterwards |
//! | [`schedule`] [`renewed`] [`watch`] | when a certificate is renewed; its files then; noticing new files |
//!
//! Not here: who may join (`enrol`), access tokens, revocations. They build on this module, which imports
//! nothing of this crate but the addresses of [`crate::config`] and the state files of [`crate::persist`].
//!
//! Data flows one way: files → [`Identity`] → [`rustls::ServerConfig`] / [`rustls::ClientConfig`] for
//! connections and [`Trust`] for signed messages. [`IdentityStore`] swaps the whole [`Identity`] at once, so
//! new handshakes see a renewed certificate and running connections are left alone.
//!
//! All cryptography is aws-lc's, handed to rustls explicitly ([`tls::provider`]): no process-wide default is
//! read or set. The time is an argument wherever we decide by it; only rustls reads a clock by itself.

pub mod anchors;
pub mod authority;
pub mod backup;
pub mod bans;
pub mod bootstrap;
pub mod bundle;
pub mod ca;
pub mod certificate;
pub mod csr;
pub mod enrolled;
mod error;
pub mod explain;
pub mod files;
pub mod grant;
pub mod inspect;
mod instant;
pub mod join_token;
pub mod key;
pub mod local;
pub mod pem;
pub mod pinned;
pub mod renewed;
pub mod rotation;
mod san;
pub mod schedule;
pub mod store;
pub mod tls;
pub mod trust;
pub mod vouchers;
pub mod watch;
mod write;

#[cfg(test)]
mod tests;

pub use anchors::{Anchors, AnchorsFile};
pub use authority::PendingCa;
pub use bans::Bans;
pub use bootstrap::{BootstrapPolicy, Created, ensure};
pub use bundle::{Bundle, leads_to_for, needs_reissue};
pub use ca::{Ca, CaError, Issued, LeafRequest, San, Validity, self_signed};
pub use certificate::{InvalidCertificate, PeerCertificate, ca_key_of, coordinator_of};
pub use csr::{InvalidCsr, proven_key};
pub use enrolled::{Enrolled, EnrolledError, PendingKey};
pub use error::{IdentityError, Warning, WhichFile};

pub use files::{AdminRequest, GenerateError, GenerateRequest, generate, issue_admin};
pub use inspect::{CertificateInfo, VerifyError, inspect, verify};
pub use join_token::{InvalidJoinToken, InvalidTokenId, JoinToken, RootPin, TokenId, TokenSecret};
pub use local::{Expected, Identity, IdentityFiles};
pub use pem::FileError;
pub use pinned::{NotTheCoordinator, PinnedCoordinator};
pub use renewed::{RenewalKey, recovery_message};
pub use store::{IdentityStore, Reloaded};
pub use trust::{Trust, TrustError, Usage};
pub use watch::FileWatch;
pub use write::WriteError;

/// The time as this module takes it: whole seconds since 1970.
pub use rustls_pki_types::UnixTime;

/// The cluster that certificates are made for when neither the caller nor an existing CA names one.
pub const DEFAULT_CLUSTER_ID: &str = "p2p-core";
