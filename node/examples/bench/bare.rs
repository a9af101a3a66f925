//! The greeter without us: tonic's own server, as its documentation shows it.

use crate::{TlsFiles, proto::greeter_server::GreeterServer, service::Greetings};
use anyhow::Context as _;
use clap::Args;
use std::{fs, net::SocketAddr};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

#[derive(Debug, Args)]
pub(crate) struct BareArgs {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
}

pub(crate) fn run(args: BareArgs) -> anyhow::Result<()> {
    let read = |path: &std::path::Path| fs::read(path).with_context(|| path.display().to_string());
    // Client certificates are verified but optional, as on a node.
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&args.tls.cert)?, read(&args.tls.key)?))
        .client_ca_root(Certificate::from_pem(read(&args.tls.ca)?))
        .client_auth_optional(true);
    let greeter = GreeterServer::new(Greetings { node: "bare".to_owned() });
    // The runtime that a node pinned to one core has: multi-threaded, with one worker.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let serving = Server::builder().tls_config(tls)?.add_service(greeter).serve(args.listen);
        // On a worker, as a node's connections are, not on the thread that waits here.
        Ok(tokio::spawn(serving).await??)
    })
}
