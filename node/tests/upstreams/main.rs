//! Processes behind a node: services that it provides without implementing them.
//!
//! | file | what it shows |
//! |---|---|
//! | `process` | processes of the tests: a greeter, with reflection and health or without |
//! | `calls` | calls through another node arrive as sent, of every kind, with their deadlines and cancellation |
//! | `states` | registering, draining, disabling, leases, and what survives a restart |
//! | `hostile` | processes that answer nonsense, hang, break off or lie: a precise status, and a counter |

mod calls;
mod hostile;
mod process;
#[allow(clippy::all, missing_docs, unreachable_pub)]
#[path = "../../examples/greeter/proto.rs"]
mod proto;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/greeter/service.rs"]
mod service;
mod states;
#[path = "../support/mod.rs"]
mod support;
