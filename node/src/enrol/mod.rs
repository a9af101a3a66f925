//! How hosts become nodes and stay it: join tokens, made and redeemed at a coordinator, and the certificates
//! that follow.
//!
//! | file | what it holds |
//! |---|---|
//! | [`token`] | a join token as its coordinator keeps it, and the rules of redeeming it |
//! | [`store`] | all of them, durable in `identity_state.json` |
//! | [`attempts`] | how often strangers may try |
//! | [`refusal`] | why an enrolment is refused: one answer for strangers, each reason told to the operator |
//! | [`coordinator`] | [`Enrolment`]: makes tokens, checks requests, dials the new node back, issues; issues anew |
//! | [`names`] | which of the names that a node asks for its certificate may carry |
//! | [`mod@join`] | the new node's side: finds the coordinator, proves it, asks, installs |
//! | [`renew`] [`mod@recover`] | a node's next certificate: before the present one ends, and after |
//! | [`reissue`] | the CAs of coordinators, issued anew |
//! | [`rotation`] | a new root without an outage |
//! | `source` | where a join token is given: argument, file, standard input |
//!
//! ```text
//! p2pctl ── CreateJoinToken ──▶ Enrolment ──▶ TokenStore ──▶ identity_state.json (before the answer)
//! new node: token ─▶ TLS 1.3 to a pinned coordinator ─▶ Enroll ─▶ attempts ─▶ token ─▶ dial back ─▶ CA
//!           └─ three files ◀── checked certificate ◀── answer ◀── identity_state.json (before the answer)
//! ```
//!
//! A coordinator joins the same way with a second request, for a CA of its own below the root
//! ([`crate::identity::authority`]); from then on it enrols workers itself.
//!
//! Not here: what a certificate is and how it is verified ([`crate::identity`]), when a node renews and the reload
//! that follows (`app`).

pub mod attempts;
pub mod coordinator;
pub mod join;
mod metrics;
pub mod names;
pub mod recover;
pub mod refusal;
pub mod reissue;
pub mod renew;
pub mod rotation;
mod source;
pub mod store;
pub mod token;

pub use coordinator::{Enrolment, IssuePolicy, Issuing, NewToken, RecoverRequest, RenewRequest, Request};
pub use join::{JoinError, Joining, join};
pub use metrics::RenewalMetrics;
pub use recover::{Recovery, recover};
pub use refusal::Refusal;
pub use reissue::CaKeeper;
pub use renew::{How, RenewError, Renewal, Renewer};
pub use rotation::{Rotation, RotationFile};
pub use source::{JoinSource, SourceError};
pub use store::{StoreError, TokenStore};
