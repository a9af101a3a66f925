//! Clients that hold connections and say as little as possible ("slow loris"), each from one of many addresses. Who is cut
//! off comes back.

use crate::{TlsFiles, grpc, measure};
use clap::Args;
use std::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// Between two bytes that a client sends.
const PAUSE: Duration = Duration::from_secs(1);
/// Before a client that was cut off comes back.
const BACK: Duration = Duration::from_millis(500);
/// The beginning of a call of Health/Check whose message does not come: preface, SETTINGS, HEADERS (POST, https, path,
/// authority, content-type).
const CHECK: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x3e\x01\x04\0\0\0\x01\
    \x83\x87\x04\x1c/grpc.health.v1.Health/Check\x01\x09localhost\x0f\x10\x10application/grpc";

#[derive(Debug, Args)]
pub(crate) struct LorisArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// Connections
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// The first address that they come from
    #[arg(long, default_value_t = Ipv4Addr::new(127, 1, 0, 1))]
    source: Ipv4Addr,
    /// How many there are from there on
    #[arg(long, default_value_t = 100)]
    sources: u32,
    /// Seconds in all
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
}

#[derive(Debug, Default)]
struct Tally {
    open: Cell<i64>,
    most: Cell<i64>,
    cut: Cell<u64>,
}

pub(crate) fn run(args: &LorisArgs) -> anyhow::Result<()> {
    measure::on_one_thread(async {
        let tls = |protocol: &[u8]| -> anyhow::Result<Arc<rustls::ClientConfig>> {
            let mut config = grpc::stranger_config(&args.tls)?;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(config))
        };
        let (http1, http2) = (tls(b"http/1.1")?, tls(b"h2")?);
        let (tally, end) =
            (Rc::new(Tally::default()), Instant::now() + Duration::from_secs_f64(args.seconds));
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..args.connections {
            let (tally, http1, http2) = (tally.clone(), http1.clone(), http2.clone());
            let source = Ipv4Addr::from_bits(args.source.to_bits() + number % args.sources.max(1));
            let address = args.address;
            clients.spawn_local(async move {
                while Instant::now() < end {
                    let tls = if number % 4 == 3 { http2.clone() } else { http1.clone() };
                    let held = hold(address, source, number % 4, tls, &tally);
                    if tokio::time::timeout_at(end.into(), held).await.is_ok() {
                        tally.cut.set(tally.cut.get() + 1);
                        tokio::time::sleep(BACK).await;
                    }
                }
            });
            if number % 50 == 49 {
                // So many at a time, or the queue of the socket is what is measured.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        while let Some(ended) = clients.join_next().await {
            ended?;
        }
        Ok(serde_json::json!({ "most_open": tally.most.get(), "cut_off": tally.cut.get() }))
    })
}

/// Holds a connection until the server has enough of it.
async fn hold(
    address: SocketAddr,
    source: Ipv4Addr,
    kind: u32,
    tls: Arc<rustls::ClientConfig>,
    tally: &Tally,
) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let tcp: TcpStream = socket.connect(address).await?;
    let _open = Open::new(tally);
    match kind {
        // Before TLS, after it, amid the head of a request, and amid a call.
        0 => drip(tcp, b"", b"").await,
        1 => drip(grpc::secured(tcp, tls).await?, b"", b"").await,
        2 => drip(grpc::secured(tcp, tls).await?, b"GET /livez HTTP/1.1\r\nx: ", b"y").await,
        _ => drip(grpc::secured(tcp, tls).await?, CHECK, b"").await,
    }
}

async fn drip(stream: impl AsyncRead + AsyncWrite, first: &[u8], then: &[u8]) -> anyhow::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let read = async {
        let mut ignored = [0; 256];
        while read.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    };
    let write = async {
        write.write_all(first).await?;
        write.flush().await?;
        loop {
            tokio::time::sleep(PAUSE).await;
            write.write_all(then).await?;
            write.flush().await?;
        }
    };
    tokio::select! {
        () = read => Ok(()),
        error = write => error,
    }
}

/// Counts an open connection.
struct Open<'a>(&'a Tally);

impl<'a> Open<'a> {
    fn new(tally: &'a Tally) -> Self {
        tally.open.set(tally.open.get() + 1);
        tally.most.set(tally.most.get().max(tally.open.get()));
        Self(tally)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
