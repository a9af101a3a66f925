//! The client library of P2P Core: connect to any node, call any method.
//!
//! | module | what it holds |
//! |---|---|
//! | [`endpoint`] | where a node listens, as people type it |
//! | [`channel`] | calls of generated clients, through one of several nodes |
//! | [`connection`] | the same with one async method per question an admin asks |
//! | [`replay`] | a request that is sent again where the peer has provably not processed it; nodes use it, too |
//! | [`raw`] | calls with encoded messages, for tools that have descriptors in place of stubs |
//! | `dial` `tls` | opening one connection |
//! | [`error`] | why a connection or a call failed, by kind, as a sentence |
//! | [`refusal`] | finding out that the node does not accept our certificate |
//!
//! Not here: reading files and flags, output. A node routes, so one address is enough; with several, the next takes the calls
//! when one dies or stops. Data flows one way: [`ConnectOptions`] → [`Channel`] or [`Connection`] → an answer, or a
//! [`CallError`].
//!
//! ```no_run
//! use p2p_client::{ConnectOptions, Connection, Identity};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = ConnectOptions::new("127.0.0.1:8001".parse()?);
//! options.ca_pem = Some(std::fs::read("certs/ca_cert.pem")?);
//! options.identity = Some(Identity {
//!     cert_pem: std::fs::read("certs/admin_cert.pem")?,
//!     key_pem: std::fs::read("certs/admin_key.pem")?,
//! });
//! let node = Connection::connect(&options).await?;
//!
//! for member in node.list_nodes().await? {
//!     println!("{} {}", member.node_id, member.role);
//! }
//! let answer = node.call_json("p2p.v1.SystemService/Echo", r#"{"message": "hello"}"#, Some("worker-1")).await?;
//! println!("{answer:?}");
//!
//! // Generated clients, your own too, take the channel; `Channel::connect` makes one alone.
//! let mut system = p2p_proto::v1::system_service_client::SystemServiceClient::new(node.channel());
//! println!("{:?}", system.get_info(p2p_proto::v1::GetInfoRequest {}).await?);
//! # Ok(())
//! # }
//! ```

pub mod channel;
pub mod connection;
mod dial;
pub mod endpoint;
pub mod error;
pub mod raw;
pub mod refusal;
pub mod replay;
mod tls;

pub use channel::Channel;
pub use connection::{Broadcast, ConnectOptions, Connection, Events, Identity, InvalidToken, Token};
pub use endpoint::Endpoint;
pub use error::{CallError, ConnectError, ErrorKind};
pub use raw::{RawAnswers, RawError};
pub use replay::{Replay, is_reset_here, is_unprocessed};
