//! The client library of P2P Core: connect to any node, call any method.
//!
//! | module | what it holds |
//! |---|---|
//! | [`endpoint`] | where a node listens, as people type it |
//! | [`connection`] | a connection with mutual TLS, and one async method per question an admin asks |
//! | [`error`] | why a connection or a call failed, by kind, as a sentence |
//! | [`refusal`] | finding out that the node does not accept our certificate |
//!
//! Not here: reading files and flags, output, retries between nodes (a node routes, so a client needs
//! one address). Data flows one way: [`ConnectOptions`] → [`Connection`] → an answer of `p2p.v1`, or a
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
//! // Your own generated clients take the channel.
//! let channel = node.channel();
//! # drop(channel);
//! # Ok(())
//! # }
//! ```

pub mod connection;
pub mod endpoint;
pub mod error;
pub mod refusal;

pub use connection::{Broadcast, ConnectOptions, Connection, Events, Identity, InvalidToken, Token};
pub use endpoint::Endpoint;
pub use error::{CallError, ConnectError, ErrorKind};
