//! Open-loop load: calls begin at a fixed rate, however long others take, and each is measured from when it was due. So
//! a pause of the server shows in the calls that it held up, and failures are counted, not fatal.

use crate::{TlsFiles, grpc, load::Caller};
use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use p2p_client::{Channel, ConnectOptions, Identity};
use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{task::LocalSet, time::Instant};
use tonic::body::Body;
use tower::ServiceExt as _;

/// Calls that have not ended after this time have failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls in flight beyond which those that are due fail unsent.
const IN_FLIGHT_MAX: usize = 8_000;

#[derive(Debug, Args)]
pub(crate) struct PaceArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    /// Another node to enter the cluster by; the calls are then p2p-client's, which goes to the next where one stops
    #[arg(long = "or")]
    others: Vec<SocketAddr>,
    #[command(flatten)]
    tls: TlsFiles,
    /// An access token to send with every call; not with --or
    #[arg(long, conflicts_with = "others")]
    token: Option<String>,
    /// Calls a second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Connections
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds in all
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Seconds of each row of the result
    #[arg(long, default_value_t = 0.5)]
    every: f64,
}

/// The calls that were due within one span of time.
#[derive(Clone, Debug, Default)]
struct Row {
    failed: u64,
    nanos: Vec<u64>,
}

#[derive(Debug, Default)]
struct Tally {
    rows: RefCell<Vec<Row>>,
    in_flight: Cell<usize>,
    first_failure: RefCell<Option<String>>,
}

/// How calls enter the cluster.
#[derive(Clone)]
enum Through {
    One(Caller),
    Any(Channel, SocketAddr, Bytes),
}

impl Through {
    async fn connect(args: &PaceArgs) -> anyhow::Result<Self> {
        let (address, message) = (args.address, grpc::greeting(grpc::NAME_BYTES));
        if args.others.is_empty() {
            let sender = grpc::connect(address, Arc::new(grpc::client_config(&args.tls)?)).await?;
            return Ok(Self::One(Caller { sender, address, token: args.token.clone(), message }));
        }
        let mut options = ConnectOptions::new(address.to_string().parse()?);
        options.others =
            args.others.iter().map(|other| other.to_string().parse()).collect::<Result<_, _>>()?;
        options.ca_pem = Some(std::fs::read(&args.tls.ca)?);
        let (cert_pem, key_pem) = (std::fs::read(&args.tls.cert)?, std::fs::read(&args.tls.key)?);
        options.identity = Some(Identity { cert_pem, key_pem });
        Ok(Self::Any(Channel::connect(&options).await?, address, message))
    }

    async fn call(&mut self) -> anyhow::Result<()> {
        match self {
            Self::One(caller) => caller.call().await.map(drop),
            Self::Any(channel, address, message) => {
                let body = Body::new(Full::new(message.clone()));
                let request = grpc::request(*address, "SayHello", None, body)?;
                let (head, body) = channel.clone().oneshot(request).await?.into_parts();
                grpc::ensure_ok(&head.headers, body.collect().await?.trailers())
            }
        }
    }
}

pub(crate) fn run(args: &PaceArgs) -> anyhow::Result<()> {
    ensure!(args.rate > 0 && args.connections > 0 && args.every > 0.0, "nothing to do");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = LocalSet::new().block_on(&runtime, drive(args))?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

async fn drive(args: &PaceArgs) -> anyhow::Result<serde_json::Value> {
    let mut callers = Vec::new();
    for _ in 0..args.connections {
        callers.push(Through::connect(args).await?);
    }
    let tally = Rc::new(Tally::default());
    let (began, began_unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    let apart = Duration::from_secs(1) / args.rate;
    let calls = (args.seconds * f64::from(args.rate)) as u32;
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..calls {
        let due = began + apart * number;
        tokio::time::sleep_until(due).await;
        let row = ((due - began).as_secs_f64() / args.every) as usize;
        let (mut caller, tally) = (callers[number as usize % callers.len()].clone(), tally.clone());
        workers.spawn_local(async move {
            tally.in_flight.set(tally.in_flight.get() + 1);
            let result = if tally.in_flight.get() > IN_FLIGHT_MAX {
                Err(format!("more than {IN_FLIGHT_MAX} calls in flight"))
            } else {
                match tokio::time::timeout(CALL_TIMEOUT, caller.call()).await {
                    Ok(result) => result.map_err(|error| format!("{error:#}")),
                    Err(_elapsed) => Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
                }
            };
            tally.in_flight.set(tally.in_flight.get() - 1);
            let mut rows = tally.rows.borrow_mut();
            if rows.len() <= row {
                rows.resize(row + 1, Row::default());
            }
            match result {
                Ok(()) => rows[row].nanos.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX)),
                Err(why) => {
                    rows[row].failed += 1;
                    tally.first_failure.borrow_mut().get_or_insert(why);
                }
            }
        });
        while workers.try_join_next().is_some() {}
    }
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    let rows = tally.rows.take().into_iter().enumerate().map(|(index, mut row)| {
        row.nanos.sort_unstable();
        let quantile = |q: f64| {
            let index = (row.nanos.len() as f64 * q) as usize;
            row.nanos.get(index.min(row.nanos.len().saturating_sub(1))).map(|nanos| *nanos as f64 / 1e6)
        };
        serde_json::json!({
            "at": index as f64 * args.every,
            "answered": row.nanos.len(),
            "failed": row.failed,
            "p50_ms": quantile(0.5),
            "p99_ms": quantile(0.99),
            "most_ms": quantile(1.0),
        })
    });
    Ok(serde_json::json!({
        "rate": args.rate,
        "began_unix": began_unix.as_secs_f64(),
        "rows": rows.collect::<Vec<_>>(),
        "first_failure": tally.first_failure.take(),
    }))
}
