//! A closed-loop measurement: how many calls were answered, how fast, and what that cost each process.

use crate::process::Watched;
use anyhow::ensure;
use clap::Args;
use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::task::{JoinHandle, LocalSet};

/// How much load, for how long.
#[derive(Debug, Args)]
pub(crate) struct Closed {
    /// Connections
    #[arg(long, default_value_t = 8)]
    pub(crate) connections: usize,
    /// Calls in flight on each
    #[arg(long, default_value_t = 32)]
    pub(crate) in_flight: usize,
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
pub(crate) struct Tally {
    calls: Cell<u64>,
    counting: Cell<bool>,
    stop: Cell<bool>,
    nanos: RefCell<Vec<u64>>,
}

impl Tally {
    /// Whether the measurement is over.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.get()
    }

    /// One more call was answered, `took` after it was sent.
    pub(crate) fn answered(&self, took: Duration) {
        if self.counting.get() {
            self.nanos.borrow_mut().push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        self.many(1);
    }

    /// So many more were answered, whose times nobody asks for.
    pub(crate) fn many(&self, calls: u64) {
        self.calls.set(self.calls.get() + calls);
    }
}

/// A worker: calls until the tally says stop.
pub(crate) type Worker = JoinHandle<anyhow::Result<()>>;

/// Runs what `start` sets to work, and prints one line of JSON.
pub(crate) fn run(
    args: &Closed,
    start: impl AsyncFnOnce(&Rc<Tally>) -> anyhow::Result<Vec<Worker>>,
) -> anyhow::Result<()> {
    on_one_thread(async {
        let tally = Rc::new(Tally::default());
        let workers = start(&tally).await?;
        drive(args, &tally, workers).await
    })
}

/// Runs a part that prints one line of JSON.
pub(crate) fn on_one_thread(
    part: impl Future<Output = anyhow::Result<serde_json::Value>>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = LocalSet::new().block_on(&runtime, part)?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

async fn drive(args: &Closed, tally: &Tally, workers: Vec<Worker>) -> anyhow::Result<serde_json::Value> {
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
        nanos.get(index.min(nanos.len().saturating_sub(1))).map(|nanos| *nanos as f64 / 1000.0)
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
