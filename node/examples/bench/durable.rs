//! What is acknowledged only once it is on disk: revocations, and beside them the same disk with nothing around it.

use crate::TlsFiles;
use anyhow::{Context as _, ensure};
use clap::Args;
use p2p_proto::v1::{RevokeTokenRequest, auth_service_client::AuthServiceClient, revoke_token_request::What};
use std::{
    fs::{File, read_to_string},
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Connections that the callers share.
const CONNECTIONS: usize = 4;
/// About what one more revocation of a batch takes in the journal.
const RECORD_BYTES: usize = 48;

/// How many ask at a time, and how long.
#[derive(Clone, Debug, Args)]
struct Callers {
    /// Each asks again once it was answered
    #[arg(long, default_value_t = 64)]
    callers: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// A coordinator
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    #[command(flatten)]
    callers: Callers,
}

#[derive(Debug, Args)]
pub(crate) struct FsyncArgs {
    /// A directory on the disk in question
    #[arg(long)]
    directory: PathBuf,
    #[command(flatten)]
    callers: Callers,
}

/// Revokes tokens that nobody holds.
pub(crate) fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (latencies, took) = runtime.block_on(async {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(connect(args).await?);
        }
        let (started, seconds) = (Instant::now(), Duration::from_secs_f64(args.callers.seconds));
        let callers = (0..args.callers.callers).map(|caller| {
            let mut client = AuthServiceClient::new(channels[caller % CONNECTIONS].clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < seconds {
                    let jti = format!("{:032x}", rand::random::<u128>());
                    let asked = Instant::now();
                    client.revoke_token(RevokeTokenRequest { what: Some(What::Jti(jti)) }).await?;
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            })
        });
        let mut latencies = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            latencies.extend(caller.await??);
        }
        anyhow::Ok((latencies, started.elapsed()))
    })?;
    print(latencies, took, None)
}

async fn connect(args: &RevokeArgs) -> anyhow::Result<Channel> {
    let read = |path: &PathBuf| read_to_string(path).with_context(|| path.display().to_string());
    let identity = Identity::from_pem(read(&args.tls.cert)?, read(&args.tls.key)?);
    let ca = Certificate::from_pem(read(&args.tls.ca)?);
    let tls = ClientTlsConfig::new().ca_certificate(ca).identity(identity).domain_name("localhost");
    Ok(Endpoint::from_shared(format!("https://{}", args.address))?.tls_config(tls)?.connect().await?)
}

/// The bare loop: one thread writes whatever waits, and one fsync serves all who have waited for it.
pub(crate) fn fsync(args: &FsyncArgs) -> anyhow::Result<()> {
    let path = args.directory.join("bench-fsync");
    let mut file = File::create_new(&path).with_context(|| path.display().to_string())?;
    let (sender, orders) = mpsc::channel::<mpsc::SyncSender<()>>();
    let writer = std::thread::spawn(move || -> anyhow::Result<u64> {
        let mut syncs = 0;
        while let Ok(first) = orders.recv() {
            let waiting: Vec<_> = std::iter::once(first).chain(orders.try_iter()).collect();
            file.write_all(&vec![7; waiting.len() * RECORD_BYTES])?;
            file.sync_data()?;
            syncs += 1;
            waiting.iter().for_each(|done| done.send(()).unwrap_or_default());
        }
        Ok(syncs)
    });
    let (started, seconds) = (Instant::now(), Duration::from_secs_f64(args.callers.seconds));
    let callers = (0..args.callers.callers).map(|_| {
        let sender = sender.clone();
        std::thread::spawn(move || -> anyhow::Result<Vec<Duration>> {
            let mut latencies = Vec::new();
            while started.elapsed() < seconds {
                let ((done, answer), asked) = (mpsc::sync_channel(1), Instant::now());
                sender.send(done)?;
                answer.recv()?;
                latencies.push(asked.elapsed());
            }
            Ok(latencies)
        })
    });
    let callers: Vec<_> = callers.collect();
    drop(sender);
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.join().map_err(|_| anyhow::anyhow!("a caller has panicked"))??);
    }
    let took = started.elapsed();
    let syncs = writer.join().map_err(|_| anyhow::anyhow!("the writer has panicked"))??;
    std::fs::remove_file(path)?;
    print(latencies, took, Some(syncs))
}

fn print(mut latencies: Vec<Duration>, took: Duration, syncs: Option<u64>) -> anyhow::Result<()> {
    ensure!(!latencies.is_empty(), "nothing was acknowledged");
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let found = serde_json::json!({
        "acknowledged": latencies.len(), "per_second": latencies.len() as f64 / took.as_secs_f64(),
        "p50_ms": at(0.5), "p99_ms": at(0.99), "fsyncs": syncs,
    });
    Ok(writeln!(std::io::stdout(), "{found}")?)
}
