//! A client that takes more than its share: unary calls without a pause, whatever the answers are.

use crate::{TlsFiles, grpc, load::Caller, measure};
use clap::Args;
use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(crate) struct FloodArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// An access token to send with every call
    #[arg(long)]
    token: Option<String>,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Calls in flight on each
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Most calls a second in all; none for as many as it can
    #[arg(long)]
    rate: Option<u32>,
    /// Seconds in all
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Debug, Default)]
struct Tally {
    begun: Cell<u32>,
    answered: Cell<u64>,
    refused: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

pub(crate) fn run(args: &FloodArgs) -> anyhow::Result<()> {
    measure::on_one_thread(async {
        let tls = Arc::new(grpc::client_config(&args.tls)?);
        let message = grpc::greeting(grpc::NAME_BYTES);
        let (tally, began) = (Rc::new(Tally::default()), Instant::now());
        let end = began + Duration::from_secs_f64(args.seconds);
        let apart = args.rate.map(|rate| Duration::from_secs(1) / rate.max(1));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..args.connections {
            let sender = grpc::connect(args.address, tls.clone()).await?;
            let caller =
                Caller { sender, address: args.address, token: args.token.clone(), message: message.clone() };
            for _ in 0..args.in_flight {
                let (mut caller, tally) = (caller.clone(), tally.clone());
                workers.spawn_local(async move {
                    while Instant::now() < end {
                        if let Some(apart) = apart {
                            let number = tally.begun.replace(tally.begun.get() + 1);
                            tokio::time::sleep_until((began + apart * number).into()).await;
                        }
                        match caller.call().await {
                            Ok(_) => count(&tally.answered),
                            Err(_) if caller.sender.is_closed() => return,
                            Err(_) => count(&tally.refused),
                        }
                    }
                });
            }
        }
        while let Some(ended) = workers.join_next().await {
            ended?;
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(serde_json::json!({
            "answered_per_second": tally.answered.get() as f64 / seconds,
            "refused_per_second": tally.refused.get() as f64 / seconds,
        }))
    })
}
