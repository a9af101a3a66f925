//! Typed calls into a cluster through several nodes, going on while nodes come and go.
//!
//! ```text
//! p2pctl dev
//! cargo run -p p2p-client --example call -- --certs .p2p-dev/certs 127.0.0.1:8001 127.0.0.1:8002
//! ```
//!
//! It prints which node answered, once a second. Stop the first node, and the second answers; with --token FILE the caller is
//! the bearer of that access token, which needs `p2p.v1.SystemService/*` in its scope, in place of the admin.

use anyhow::Context as _;
use clap::Parser;
use p2p_client::{Channel, ConnectOptions, Endpoint, Identity};
use p2p_proto::v1::{GetInfoRequest, system_service_client::SystemServiceClient};
use std::{
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    time::Duration,
};
use tonic::Request;

/// Asks a cluster who it is
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory with ca_cert.pem, and admin_cert.pem and admin_key.pem unless a token is given
    #[arg(long, default_value = ".p2p-dev/certs", value_name = "DIR")]
    certs: PathBuf,
    /// File with an access token
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// How often to ask
    #[arg(long, default_value_t = 5)]
    count: u32,
    /// Nodes to enter the cluster by, best first
    #[arg(default_value = "127.0.0.1:8001", value_name = "HOST:PORT")]
    entries: Vec<Endpoint>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let read = |file: &str| {
        let path = arguments.certs.join(file);
        fs::read(&path).with_context(|| format!("cannot read {}; does `p2pctl dev` run?", path.display()))
    };
    let mut entries = arguments.entries.into_iter();
    let mut options = ConnectOptions::new(entries.next().context("name a node")?);
    options.others = entries.collect();
    options.ca_pem = Some(read("ca_cert.pem")?);
    match &arguments.token {
        Some(file) => options.token = Some(fs::read_to_string(file)?.parse()?),
        None => {
            options.identity =
                Some(Identity { cert_pem: read("admin_cert.pem")?, key_pem: read("admin_key.pem")? });
        }
    }
    let channel = Channel::connect(&options).await?;
    // Any generated client; it calls methods of any node.
    let mut system = SystemServiceClient::new(channel.clone());
    let mut pause = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..arguments.count {
        pause.tick().await;
        let mut request = Request::new(GetInfoRequest {});
        request.set_timeout(Duration::from_secs(2));
        match system.get_info(request).await {
            Ok(info) => {
                let info = info.into_inner();
                writeln!(stdout(), "{} ({}) through {}", info.node_id, info.role, channel.entry().await)?;
            }
            // A call that was sent is not repeated: only its caller knows whether it may be.
            Err(status) => writeln!(stdout(), "{:?}: {}", status.code(), status.message())?,
        }
    }
    Ok(())
}
