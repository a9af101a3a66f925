//! The audit log: who did which act that changes who may do what, from where, and with what result. One JSON object a line,
//! into a file or to standard error; off unless `audit_log` is set.
//!
//! A line never holds a token, key or join secret: only what names the caller, the method, and a note that the service that
//! acted makes of what it acted on. What is written is written by a thread of its own, so that a slow disk delays no call;
//! lines that it cannot take are counted, and the log says that some are missing.

mod writer;

use crate::{config::AuditTarget, telemetry::Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use serde::Serialize;
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};
use writer::{Message, Writer};

/// Lines that wait for the disk; more are counted as missing.
const QUEUE: usize = 1024;
/// Longest note, in bytes.
const NOTE_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {} cannot be opened: {error}; set audit_log to a file in a directory that this user may write", path.display())]
pub struct AuditError {
    path: PathBuf,
    error: io::Error,
}

/// What a line says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entry {
    /// The method.
    pub act: String,
    /// Who: a SPIFFE id, the subject of a token, or `anonymous`.
    pub by: String,
    /// What proves it: `certificate`, `token`, `local` or `none`.
    pub evidence: &'static str,
    /// The id of the token, which is not the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The user of this host, for calls through the local socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Where the call came from.
    pub address: String,
    /// The node that forwarded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_by: Option<String>,
}

/// What a service says of the act: whom or what it concerned. In the extensions of audited requests.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<OnceLock<String>>);

impl Note {
    /// Notes what the act concerns. The first word counts.
    pub fn set(&self, mut text: String) {
        let end = (0..=NOTE_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        self.0.get_or_init(|| text);
    }

    fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// The audit log of a node; without a target it takes nothing.
#[derive(Debug)]
pub struct Audit {
    sender: Option<SyncSender<Message>>,
    written: Counter,
    missing: Counter,
}

impl Audit {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for appending.
    pub fn open(target: Option<&AuditTarget>, metrics: &Metrics) -> Result<Arc<Self>, AuditError> {
        let lines = Family::<Labels, Counter>::default();
        let of = |result| lines.get_or_create_owned(&Labels { result });
        let (written, missing) = (of("written"), of("missing"));
        metrics.register(|registry| {
            registry.register(
                "audit_lines",
                "Lines of the audit log, and those that could not be written",
                lines,
            );
        });
        let sender = match target {
            None => None,
            Some(target) => {
                let writer = Writer::open(target, written.clone(), missing.clone())?;
                let (sender, receiver) = sync_channel(QUEUE);
                std::thread::Builder::new()
                    .name("audit".to_owned())
                    .spawn(move || writer.run(&receiver))
                    .map_err(|error| AuditError { path: target.path(), error })?;
                Some(sender)
            }
        };
        Ok(Arc::new(Self { sender, written, missing }))
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Writes that `entry` ended with `result`, the name of a gRPC status.
    fn record(&self, entry: &Entry, result: &str, note: Option<&Note>) {
        let Some(sender) = &self.sender else { return };
        let now = time::OffsetDateTime::from(SystemTime::now());
        let time = now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        let line = Line { time, entry, result, note: note.and_then(Note::get) };
        let taken = match serde_json::to_string(&line) {
            Ok(mut text) => {
                text.push('\n');
                sender.try_send(Message::Line(text)).is_ok()
            }
            Err(_) => false,
        };
        if !taken {
            self.missing.inc();
        }
    }

    /// Waits until everything is written, but not for long.
    pub async fn flush(&self) {
        let Some(sender) = &self.sender else { return };
        let (done, written) = tokio::sync::oneshot::channel();
        if sender.try_send(Message::Flush(done)).is_err()
            || tokio::time::timeout(Duration::from_secs(1), written).await.is_err()
        {
            tracing::warn!(written = self.written.get(), "the audit log was not written to its end");
        }
    }
}

/// An act under way. It is written when this is dropped: with its result, and as CANCELLED if it has none, since what was begun
/// may have been done although its caller did not wait.
#[derive(Debug)]
pub struct Act {
    audit: Arc<Audit>,
    entry: Entry,
    note: Option<Note>,
    result: &'static str,
}

impl Act {
    /// `entry` begins; the service that acts may leave a `note`.
    pub fn begin(audit: &Arc<Audit>, entry: Entry, note: Option<Note>) -> Self {
        Self { audit: audit.clone(), entry, note, result: "CANCELLED" }
    }

    /// More is known of it than when it began.
    pub fn is(&mut self, entry: Entry) {
        self.entry = entry;
    }

    /// It has ended with `result`, the name of a gRPC status.
    pub fn ended(&mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        self.audit.record(&self.entry, self.result, self.note.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn entry(by: &str) -> Entry {
        Entry {
            act: "p2p.v1.ClusterService/Evict".to_owned(),
            by: by.to_owned(),
            evidence: "certificate",
            address: "192.0.2.1".to_owned(),
            ..Entry::default()
        }
    }

    fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[tokio::test]
    async fn a_line_says_who_did_what_from_where_with_what_result() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let target: AuditTarget = path.display().to_string().parse().expect("a target");
        let audit = Audit::open(Some(&target), &Metrics::default()).expect("opened");
        let note = Note::default();
        note.set("node w2".to_owned());
        note.set("too late".to_owned());
        audit.record(&entry("spiffe://c/admin/a\n\"b"), "OK", Some(&note));
        audit.flush().await;
        let written = lines(&path);
        assert_eq!(written.len(), 1, "a name with a line break is still one line");
        let line = &written[0];
        assert!(line["time"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));
        assert_eq!(line["act"], "p2p.v1.ClusterService/Evict");
        assert_eq!(line["by"], "spiffe://c/admin/a\n\"b");
        assert_eq!((&line["result"], &line["note"]), (&"OK".into(), &"node w2".into()));
        assert!(line.get("uid").is_none() && line.get("token_id").is_none());
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_that_is_moved_away_is_followed_by_a_new_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
        let target: AuditTarget = path.display().to_string().parse().expect("a target");
        let metrics = Metrics::default();
        let audit = Audit::open(Some(&target), &metrics).expect("opened");
        audit.record(&entry("a"), "OK", None);
        audit.flush().await;
        fs::rename(&path, &old).expect("moved");
        audit.record(&entry("b"), "PERMISSION_DENIED", None);
        audit.flush().await;
        assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
        assert_eq!(lines(&path)[0]["by"], "b");
        assert_eq!((audit.written.get(), audit.missing.get()), (2, 0));
    }

    #[tokio::test]
    async fn what_its_caller_did_not_wait_for_is_written_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let target: AuditTarget = path.display().to_string().parse().expect("a target");
        let audit = Audit::open(Some(&target), &Metrics::default()).expect("opened");
        let mut act = Act::begin(&audit, entry("not authenticated"), None);
        act.is(entry("a"));
        drop(act);
        Act::begin(&audit, entry("b"), None).ended("OK");
        audit.flush().await;
        let written: Vec<_> =
            lines(&path).iter().map(|line| (line["by"].clone(), line["result"].clone())).collect();
        assert_eq!(written, [("a".into(), "CANCELLED".into()), ("b".into(), "OK".into())]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_at_start() {
        let target: AuditTarget = "/no/such/directory/audit.jsonl".parse().expect("a target");
        let error = Audit::open(Some(&target), &Metrics::default()).expect_err("refused").to_string();
        assert!(
            error.contains("/no/such/directory/audit.jsonl") && error.contains("set audit_log"),
            "{error}"
        );
    }
}
