//! Processor time and memory of processes, from /proc.

use anyhow::Context as _;
use std::{fs, str::FromStr};

/// Clock ticks a second in /proc: 100 on every Linux that user space can see (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A process under test: `NAME=PID`.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pid: u32,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("write NAME=PID")?;
        let pid = pid.parse().map_err(|error| format!("{pid:?}: {error}"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

impl Watched {
    /// This process.
    pub(crate) fn own() -> Self {
        Self { name: "load".to_owned(), pid: std::process::id() }
    }

    /// User and system time so far of all its threads, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.pid);
        let stat = fs::read_to_string(&path).with_context(|| format!("{path} ({})", self.name))?;
        // The second field is the program's name in parentheses and may hold anything; proc(5) counts from it:
        // utime is field 14, stime 15.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks: Vec<f64> = fields.into_iter().flatten().filter_map(|field| field.parse().ok()).collect();
        anyhow::ensure!(ticks.len() == 2, "{path} is not as proc(5) describes it");
        Ok(ticks.iter().sum::<f64>() / TICKS)
    }

    /// Resident memory.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| format!("{path} ({})", self.name))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(1024 * kib.with_context(|| format!("{path} is not as proc(5) describes it"))?)
    }
}
