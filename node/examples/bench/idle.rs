//! What idle client connections cost a server: its memory before and after they are there.

use crate::{TlsFiles, grpc, load::Caller, measure, process::Watched};
use clap::Args;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Time for a server to put away what a handshake and a call took.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// Connections
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// The server's process
    #[arg(long = "watch", value_name = "NAME=PID")]
    watched: Watched,
}

pub(crate) fn run(args: &IdleArgs) -> anyhow::Result<()> {
    measure::on_one_thread(async {
        let tls = Arc::new(grpc::client_config(&args.tls)?);
        let message = grpc::greeting(grpc::NAME_BYTES);
        // One call on each, as somebody would have made who connects.
        let connected = async || -> anyhow::Result<Caller> {
            let sender = grpc::connect(args.address, tls.clone()).await?;
            let mut caller = Caller { sender, address: args.address, token: None, message: message.clone() };
            caller.call().await?;
            Ok(caller)
        };
        // The first one makes what a server makes once.
        drop(connected().await?);
        tokio::time::sleep(SETTLE).await;
        let before = args.watched.resident_bytes()?;
        let mut kept = Vec::with_capacity(args.connections);
        for _ in 0..args.connections {
            kept.push(connected().await?);
        }
        tokio::time::sleep(SETTLE).await;
        let grown = args.watched.resident_bytes()?.saturating_sub(before);
        for caller in &mut kept {
            // They are all still there.
            caller.sender.ready().await?;
        }
        Ok(serde_json::json!({
            "connections": kept.len(),
            "grown_bytes": grown,
            "bytes_each": grown as f64 / kept.len() as f64,
        }))
    })
}
