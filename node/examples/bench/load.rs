//! Closed-loop load: connections × calls in flight, each worker sending its next call when the last is answered.
//!
//! It works below tonic, on hyper with one encoded message for all calls, so that on its one core it can saturate
//! the server on the other. Every answer is checked: OK in the trailers, and as many bytes as the first one.

use crate::{TlsFiles, process::Watched, proto::HelloRequest};
use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::LocalSet};
use tokio_rustls::TlsConnector;

const PATH: &str = "/demo.v1.Greeter/SayHello";
/// Length of the name that is greeted: the payload of a small call.
const NAME_BYTES: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// Connections
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Calls in flight on each
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Seconds before anything counts
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that count
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Process whose processor time to report; repeat for more
    #[arg(long = "watch", value_name = "NAME=PID")]
    watched: Vec<Watched>,
}

/// What all workers share; they run on one thread.
#[derive(Debug, Default)]
struct Tally {
    calls: Cell<u64>,
    counting: Cell<bool>,
    stop: Cell<bool>,
    nanos: RefCell<Vec<u64>>,
}

pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = LocalSet::new().block_on(&runtime, drive(args))?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

async fn drive(args: &LoadArgs) -> anyhow::Result<serde_json::Value> {
    let tls = client_config(&args.tls)?;
    let message = framed(&HelloRequest { name: "x".repeat(NAME_BYTES) });
    let tally = Rc::new(Tally::default());
    let mut workers = Vec::new();
    for _ in 0..args.connections {
        let sender = connect(args.address, tls.clone()).await?;
        let expected = call(&mut sender.clone(), args.address, &message).await?;
        for _ in 0..args.in_flight {
            let (mut sender, message, tally, address) =
                (sender.clone(), message.clone(), tally.clone(), args.address);
            workers.push(tokio::task::spawn_local(async move {
                while !tally.stop.get() {
                    let started = Instant::now();
                    let bytes = call(&mut sender, address, &message).await?;
                    ensure!(bytes == expected, "an answer of {bytes} bytes, not {expected}");
                    if tally.counting.get() {
                        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        tally.nanos.borrow_mut().push(nanos);
                    }
                    tally.calls.set(tally.calls.get() + 1);
                }
                Ok(())
            }));
        }
    }

    let watched: Vec<Watched> = args.watched.iter().cloned().chain([Watched::own()]).collect();
    let cpu = || watched.iter().map(Watched::cpu_seconds).collect::<anyhow::Result<Vec<f64>>>();
    tokio::time::sleep(Duration::from_secs_f64(args.warmup)).await;
    tally.counting.set(true);
    let (cpu_before, calls_before, began) = (cpu()?, tally.calls.get(), Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let (cpu_after, calls, took) = (cpu()?, tally.calls.get() - calls_before, began.elapsed().as_secs_f64());
    tally.stop.set(true);
    for worker in workers {
        worker.await??;
    }

    ensure!(calls > 0, "no call was answered within {} s", args.seconds);
    let mut nanos = tally.nanos.take();
    nanos.sort_unstable();
    let quantile = |q: f64| {
        let index = (nanos.len() as f64 * q) as usize;
        nanos[index.min(nanos.len() - 1)] as f64 / 1000.0
    };
    let per_100k = watched.iter().zip(cpu_before.iter().zip(&cpu_after)).map(|(process, (before, after))| {
        (process.name.clone(), ((after - before) * 1e5 / calls as f64).into())
    });
    Ok(serde_json::json!({
        "connections": args.connections,
        "in_flight": args.in_flight,
        "calls": calls,
        "seconds": took,
        "calls_per_second": calls as f64 / took,
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "cpu_seconds_per_100k": serde_json::Map::from_iter(per_100k),
    }))
}

/// One call; the length of its answer's body.
pub(crate) async fn call(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    message: &Bytes,
) -> anyhow::Result<usize> {
    let request = http::Request::post(format!("https://{address}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message.clone()))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let status = status.or_else(|| head.headers.get("grpc-status"));
    ensure!(status.is_some_and(|status| status == "0"), "the call failed: {head:?} {:?}", body.trailers());
    Ok(body.to_bytes().len())
}

pub(crate) async fn connect(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let tcp = TcpStream::connect(address).await.with_context(|| address.to_string())?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let tls = TlsConnector::from(tls).connect(name, tcp).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    tokio::spawn(async move {
        // A connection that breaks fails the calls on it, which say why.
        connection.await.ok();
    });
    Ok(sender)
}

pub(crate) fn client_config(files: &TlsFiles) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&files.ca)? {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The message as gRPC frames it: a flag, its length, its bytes.
pub(crate) fn framed(request: &HelloRequest) -> Bytes {
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a message of some hundred bytes");
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(&message);
    frame.freeze()
}
