//! Unary calls in a closed loop: connections × calls in flight, each worker sending its next call when the last is answered.
//!
//! Every answer is checked: OK in the trailers, and as many bytes as the first one.

use crate::{
    TlsFiles, grpc,
    measure::{self, Closed},
};
use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use std::{net::SocketAddr, sync::Arc, time::Instant};

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// An access token to send with every call
    #[arg(long)]
    token: Option<String>,
    #[command(flatten)]
    load: Closed,
}

pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    measure::run(&args.load, async |tally| {
        let tls = Arc::new(grpc::client_config(&args.tls)?);
        let message = grpc::greeting(grpc::NAME_BYTES);
        let mut workers = Vec::new();
        for _ in 0..args.load.connections {
            let sender = grpc::connect(args.address, tls.clone()).await?;
            let caller =
                Caller { sender, address: args.address, token: args.token.clone(), message: message.clone() };
            let expected = caller.clone().call().await?;
            for _ in 0..args.load.in_flight {
                let (mut caller, tally) = (caller.clone(), tally.clone());
                workers.push(tokio::task::spawn_local(async move {
                    while !tally.stopped() {
                        let started = Instant::now();
                        let bytes = caller.call().await?;
                        ensure!(bytes == expected, "an answer of {bytes} bytes, not {expected}");
                        tally.answered(started.elapsed());
                    }
                    Ok(())
                }));
            }
        }
        Ok(workers)
    })
}

/// Whoever calls over one connection.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) message: Bytes,
}

impl Caller {
    /// One call; the length of its answer's body.
    pub(crate) async fn call(&mut self) -> anyhow::Result<usize> {
        let body = Full::new(self.message.clone());
        let request = grpc::request(self.address, "SayHello", self.token.as_deref(), body)?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?;
        grpc::ensure_ok(&head.headers, body.trailers())?;
        Ok(body.to_bytes().len())
    }
}
