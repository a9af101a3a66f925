//! Upstreams: processes behind this node, in any language, that provide services through it.
//!
//! | file | what it holds |
//! |---|---|
//! | `spec` | one upstream as it was configured or registered |
//! | `channel` | its HTTP/2 connection: dialled when needed, shared by all calls |
//! | `preface` | what answers, by its first bytes |
//! | `relay` | a call on its way to the process and back |
//! | `learn` `descriptors` | its methods, by reflection or from descriptors; what is believed of them |
//! | `health` | whether it can take calls |
//! | `problem` | everything that can be wrong with it, and how it is counted |
//! | `configured` | what the configuration says: which run, and what a reload changes |
//! | `hosted` | all upstreams of the node: how each stands |
//! | `orders` | what admins order: registering, deregistering, states |
//! | `watch` | the task of each: learns, checks, tells the registry |
//! | `state` | what survives a restart |
//!
//! ```text
//! configuration ┐                         ┌─ learn ─ check ─┐ (watch, one task for each)
//! RegisterService ┴─ Upstreams ── Upstream ┴── registry.host ┴─► published, routed, reflected like any service
//!                       └ service_state.json
//! ```
//!
//! The node passes bodies on as bytes. What an upstream says of itself is not believed beyond the bounds in
//! `descriptors`, and a process that answers nonsense costs its callers a precise status and nobody else anything.

mod channel;
mod configured;
mod descriptors;
mod health;
mod hosted;
mod learn;
mod metrics;
mod orders;
mod preface;
mod problem;
mod relay;
mod spec;
mod state;
mod watch;

pub use hosted::Upstreams;
pub use orders::Registration;
pub use problem::Problem;
pub use spec::{LoadError, Spec};
pub use state::ServiceFile;
