//! What this process takes of its host, and how its runtime is, read when somebody asks.
//!
//! The names `process_*` are those that Prometheus' own client libraries give to the same numbers, so that dashboards and
//! alerts for any process fit. Linux only: elsewhere these families are absent.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::{fmt::Error, fs};

/// The collector.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        if let Some(facts) = Facts::read() {
            facts.encode(&mut encoder)?;
        }
        // Asked outside of a runtime, there is none to tell of.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => encode_runtime(&runtime.metrics(), &mut encoder),
            Err(_) => Ok(()),
        }
    }
}

/// From `/proc`, see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Facts {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    /// Unix time.
    started: f64,
    open_files: u64,
    /// `None`: without limit.
    files_limit: Option<u64>,
}

impl Facts {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let stat = Stat::parse(&stat)?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        // Reading the directory opens it.
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: stat.cpu_ticks as f64 / ticks,
            resident_bytes: stat.resident_pages.saturating_mul(rustix::param::page_size() as u64),
            virtual_bytes: stat.virtual_bytes,
            threads: stat.threads,
            started: booted + stat.started_ticks as f64 / ticks,
            open_files,
            files_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        })
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let counter = ConstCounter::new(self.cpu_seconds);
        put(encoder, "process_cpu_seconds", "CPU time of this process, user and system.", &counter)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory of this process that is in RAM.", self.resident_bytes),
            ("process_virtual_memory_bytes", "Address space of this process.", self.virtual_bytes),
            ("process_threads", "Threads of this process.", self.threads),
            ("process_open_fds", "Open file descriptors, connections among them.", self.open_files),
        ] {
            put(encoder, name, help, &gauge(value))?;
        }
        if let Some(limit) = self.files_limit {
            put(encoder, "process_max_fds", "Most open file descriptors (LimitNOFILE).", &gauge(limit))?;
        }
        let help = "Start of this process, Unix time.";
        put(encoder, "process_start_time_seconds", help, &ConstGauge::new(self.started))
    }
}

/// The fields of `/proc/self/stat` that are wanted.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Counted from one in the manual; `rest` begins with the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn encode_runtime(
    runtime: &tokio::runtime::RuntimeMetrics,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let workers = runtime.num_workers();
    for (name, help, value) in [
        ("p2p_runtime_workers", "Threads that run tasks.", workers),
        ("p2p_runtime_tasks", "Tasks that have not ended.", runtime.num_alive_tasks()),
        (
            "p2p_runtime_queue_depth",
            "Tasks in the shared queue that wait for a thread.",
            runtime.global_queue_depth(),
        ),
    ] {
        put(encoder, name, help, &gauge(value as u64))?;
    }
    let busy = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64()).sum();
    let help = "Time that the threads which run tasks were busy, of all together.";
    put(encoder, "p2p_runtime_busy_seconds", help, &ConstCounter::<f64>::new(busy))
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual_whatever_the_program_is_called() {
        let text =
            "42 (p2p) node) S 1 42 42 0 -1 4194560 900 0 0 0 150 50 7 8 20 0 11 0 4000 123456 789 18446 1 1";
        let expected = Stat {
            cpu_ticks: 200,
            threads: 11,
            started_ticks: 4000,
            virtual_bytes: 123_456,
            resident_pages: 789,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (p2p-node) S 1"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let before = Facts::read().expect("Linux");
        let files: Vec<_> = (0..10).map(|_| fs::File::open("/proc/self/stat").expect("opened")).collect();
        let facts = Facts::read().expect("Linux");
        // Other tests of this binary open and close files meanwhile.
        assert!(facts.open_files >= files.len() as u64, "{facts:?}");
        assert!(facts.files_limit.is_none_or(|limit| limit >= facts.open_files), "{facts:?}");
        assert!(facts.resident_bytes > 1 << 20 && facts.virtual_bytes >= facts.resident_bytes, "{facts:?}");
        assert!(facts.threads >= 1 && facts.cpu_seconds >= before.cpu_seconds, "{facts:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
        let age = now.as_secs_f64() - facts.started;
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago: {facts:?}");
    }
}
