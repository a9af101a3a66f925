//! What is wrong with this node and its host, as it finds itself: what `p2pctl doctor` asks each node for.
//!
//! | file | what it looks at |
//! |---|---|
//! | `files` | who may read and change its files, the state directory, the backup of the CA |
//! | `legs` | which members answer it |
//!
//! A check is a function from what it looks at to findings. Nothing here changes anything; the probe of the state directory
//! takes its file away again.

mod files;
mod legs;

use crate::{
    config::{Config, ReloadAnswer, Running},
    gossip::Gossip,
    revocation::Revocations,
};
use p2p_core::{NodeId, Role};
use p2p_proto::v1::{ExamineResponse, Finding};
use std::time::{Duration, SystemTime};

/// How long after an alarm a node still says that another process holds its id. While both run, alarms come every minute.
const TWIN_REMEMBERED: Duration = Duration::from_secs(600);
/// Share of the limit of open files beyond which it is told, in percent.
const FILES_USED_MAX: u64 = 80;

/// What is looked at.
#[derive(Debug)]
pub struct Examined<'a> {
    /// This node.
    pub node: &'a NodeId,
    /// Its role.
    pub role: Role,
    /// Its configuration.
    pub running: &'a Running,
    /// The cluster as it sees it.
    pub gossip: &'a Gossip,
    /// What is revoked.
    pub revocations: &'a Revocations,
}

/// Looks at everything. Takes as long as the slowest of a disk and a member that does not answer, within their limits.
pub async fn examine(examined: Examined<'_>) -> ExamineResponse {
    let Examined { node, role, running, gossip, revocations } = examined;
    let (config, file) = (running.in_force(), running.file().map(ToOwned::to_owned));
    let on_disk = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || files::all(&config, role, file.as_deref()))
    };
    let view = gossip.view().borrow().clone();
    let (on_disk, drift, legs) =
        tokio::join!(on_disk, running.reload(true), legs::walk(gossip.pool(), node, &view));

    let mut findings = on_disk.unwrap_or_default();
    findings.extend(drift.ok().and_then(|answer| drifted(&answer, running)));
    findings.extend(open_files(&config, OpenFiles::now()));
    findings.extend(twin(gossip.twin_noticed(), SystemTime::now()));
    if revocations.is_incomplete() {
        findings.push(finding(
            "state_directory",
            "revocations were lost, and no other node has told them again".to_owned(),
            "it accepts no access token: one that was taken back could be among them",
            "see that a coordinator is alive, and it ends by itself; where this is the only node, start it once with \
             `p2p-node --accept-state-loss`"
                .to_owned(),
        ));
    }
    for finding in &mut findings {
        finding.subject = node.to_string();
    }
    ExamineResponse { node_id: node.to_string(), findings, called: legs.called, legs: legs.broken }
}

/// A finding about this node.
fn finding(check: &str, what: String, why: &str, mend: String) -> Finding {
    Finding { check: check.to_owned(), subject: String::new(), what, why: why.to_owned(), mend }
}

/// What of the file, as a reload would answer, is not in force.
fn drifted(answer: &ReloadAnswer, running: &Running) -> Option<Finding> {
    let file = running.file()?.display();
    let report = match answer {
        Ok(report) => report,
        Err(mistakes) => {
            let first = mistakes.first().map(String::as_str).unwrap_or_default();
            let more = mistakes.len().saturating_sub(1);
            let others = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            return Some(finding(
                "config_drift",
                format!("its configuration is not valid: {first}{others}"),
                "it runs with what it has read before, and would not start again",
                format!(
                    "on its host, `p2pctl config validate --file {file}` lists the mistakes; mend them, then `p2pctl config reload`"
                ),
            ));
        }
    };
    let (reload, restart) = (!report.applied.is_empty(), !report.needs_restart.is_empty());
    let mend = match (reload || report.certificates, restart) {
        (false, false) => return None,
        (true, false) => "`p2pctl config reload` at this node".to_owned(),
        (false, true) => "`systemctl restart p2p-node` on its host".to_owned(),
        (true, true) => "`systemctl restart p2p-node` on its host; `p2pctl config reload` puts what it can into force at once".to_owned(),
    };
    let mut differ: Vec<&str> = report.applied.iter().chain(&report.needs_restart).copied().collect();
    if report.certificates {
        differ.push("certificates");
    }
    Some(finding(
        "config_drift",
        format!("what {file} says is not in force: {}", differ.join(", ")),
        "what is read there is not what the node does, and its next start will change that",
        mend,
    ))
}

/// How many files are open, and may be.
#[derive(Clone, Copy, Debug)]
struct OpenFiles {
    used: Option<u64>,
    limit: Option<u64>,
}

impl OpenFiles {
    fn now() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        // Reading the directory opens it.
        let used =
            std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
        Self { used, limit }
    }
}

fn open_files(config: &Config, files: OpenFiles) -> Option<Finding> {
    let limit = files.limit?;
    let wanted = u64::from(config.connections_max.get()).saturating_mul(2);
    let used = files.used.filter(|used| used.saturating_mul(100) > limit.saturating_mul(FILES_USED_MAX));
    let what = match used {
        Some(used) => format!("{used} of {limit} files that it may have open are"),
        None if limit < wanted => {
            format!(
                "it may have {limit} files open, and connections_max ({}) takes {wanted}",
                config.connections_max
            )
        }
        None => return None,
    };
    Some(finding(
        "open_files",
        what,
        "a node without file descriptors accepts no connections, and cannot write its state",
        format!(
            "raise LimitNOFILE= of its unit (or `ulimit -n`) to {} and restart it; or, on its host, `p2pctl config set \
             connections_max {} --reload`",
            wanted.max(limit.saturating_mul(2)),
            (limit / 2).max(1)
        ),
    ))
}

/// Whether another process holds this node's id, as far as it has just been noticed.
fn twin(noticed: Option<SystemTime>, now: SystemTime) -> Option<Finding> {
    let ago = now.duration_since(noticed?).unwrap_or_default();
    (ago < TWIN_REMEMBERED).then(|| {
        finding(
            "duplicate_id",
            format!("another process holds its id and key; noticed {} s ago", ago.as_secs()),
            "both take each other's place again and again: calls and records reach now one, now the other",
            "stop one of them, and give it a name and certificate of its own: `p2pctl cluster join-token create`, then \
             `p2p-node --join` with another node_id"
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ReloadSource, Report};
    use std::path::Path;
    use tokio::sync::watch;

    fn config(text: &str) -> Config {
        Config::from_yaml(&format!("node_id: a\n{text}"), "test").expect("valid")
    }

    #[test]
    fn the_limit_of_open_files_is_measured_by_the_connections() {
        let config = config("connections_max: 100\n");
        let found = |used, limit| open_files(&config, OpenFiles { used, limit }).map(|finding| finding.what);
        assert_eq!(found(Some(10), Some(200)), None);
        assert_eq!(found(Some(10), None), None);
        assert_eq!(
            found(None, Some(199)).expect("too few"),
            "it may have 199 files open, and connections_max (100) takes 200"
        );
        assert_eq!(
            found(Some(321), Some(400)).expect("nearly all"),
            "321 of 400 files that it may have open are"
        );
        assert_eq!(found(Some(320), Some(400)), None);
        let mend = open_files(&config, OpenFiles { used: None, limit: Some(150) }).expect("too few").mend;
        assert!(
            mend.contains("to 300 and restart") && mend.contains("connections_max 75 --reload"),
            "{mend}"
        );
    }

    #[test]
    fn a_twin_is_told_of_for_a_while() {
        let now = SystemTime::now();
        let ago = |seconds| twin(Some(now - Duration::from_secs(seconds)), now);
        assert!(twin(None, now).is_none() && ago(600).is_none());
        assert!(ago(12).expect("just now").what.ends_with("noticed 12 s ago"));
    }

    #[test]
    fn what_of_a_file_is_not_in_force_names_what_puts_it_there() {
        let (source, _requests) = ReloadSource::new(Path::new("/etc/p2p/node.yaml"));
        let running = Running::new(watch::channel(config("")).1, Some(source));
        let report = |applied: &[&'static str], needs_restart: &[&'static str], certificates| {
            let answer =
                Ok(Report { applied: applied.into(), needs_restart: needs_restart.into(), certificates });
            drifted(&answer, &running)
        };
        assert_eq!(report(&[], &[], false), None);
        let found = report(&["zone"], &[], true).expect("drift");
        assert_eq!(found.what, "what /etc/p2p/node.yaml says is not in force: zone, certificates");
        assert!(found.mend.starts_with("`p2pctl config reload`"));
        assert!(report(&[], &["port"], false).expect("drift").mend.starts_with("`systemctl restart"));
        assert!(report(&["zone"], &["port"], false).expect("drift").mend.contains("puts what it can"));
        let wrong = drifted(&Err(vec!["node.yaml:1: a".into(), "b".into()]), &running).expect("a finding");
        assert_eq!(wrong.what, "its configuration is not valid: node.yaml:1: a (and 1 more)");
    }
}
