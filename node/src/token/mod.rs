//! Access tokens: statements signed by a coordinator that let their bearer call what their scope says.
//!
//! | file | what it holds |
//! |---|---|
//! | `claims` | what a token says, as JSON: header and claims, each field once |
//! | [`key`] | public keys that verify, their RFC 7638 thumbprints and JWKs |
//! | [`refusal`] | why a token is refused: a word for metrics, a sentence, and what strangers are told |
//! | [`signers`] | the keys of all coordinators: learned by gossip, proven by certificate, kept on disk |
//! | [`verifier`] | [`Verifier`]: from compact text to [`AccessToken`], cached |
//! | [`issuer`] | [`Issuer`]: a coordinator's signing keys, their rotation, and signing |
//!
//! ```text
//! coordinator: CA ─▶ Issuer (identity_state.json) ─▶ NodeRecord.token_signers ─ gossip ─▶ every node:
//!              Signers ◀─ certificate chain proven, name = publisher ─┘      └─▶ token_signers.json
//! request:     Bearer text ─▶ size ─▶ cache (SHA-256) ─▶ header ─▶ kid in Signers ─▶ signature ─▶ claims
//! ```
//!
//! A node verifies by itself: no token is ever sent to a coordinator to be judged, and the keys outlive
//! restarts, so tokens work while all coordinators are down. What a token allows is decided in `auth`, which
//! tokens are revoked in `revocation`; neither is known here. The time is an argument.

mod claims;
pub mod issuer;
pub mod key;
pub mod refusal;
pub mod signers;
#[cfg(test)]
pub(crate) mod tests;
pub mod verifier;

pub use issuer::{IssueError, Issuer, KeepSigners, NewAccessToken, StoredSigner};
pub use key::VerifyingKey;
pub use refusal::TokenRefusal;
pub use signers::{SignerFile, Signers, follow};
pub use verifier::{AccessToken, Verifier};

/// Largest token, in bytes of its compact text; nothing larger is looked into.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// How far a token's end and its `nbf` may lie on the wrong side of our clock, in seconds.
pub const LEEWAY: u64 = 60;
/// How far ahead of our clock a token may have been issued, in seconds. Clocks minutes apart are common, and
/// `iat` forbids nothing by itself (RFC 7519 § 4.1.6); what lies further ahead is a defect or a trick.
pub const MAX_ISSUED_AHEAD: u64 = 300;
/// `typ` of our tokens (RFC 9068 § 2.1), so that no other JWT of the same key passes for one.
pub const TYPE: &str = "at+jwt";
