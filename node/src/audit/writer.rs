//! The thread that writes the audit log.

use super::AuditError;
use crate::config::AuditTarget;
use prometheus_client::metrics::counter::Counter;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
};
use tokio::sync::oneshot;

pub(super) enum Message {
    Line(String),
    /// Answered once all lines before it are written.
    Flush(oneshot::Sender<()>),
}

enum Output {
    Stderr,
    File { path: PathBuf, file: File },
}

pub(super) struct Writer {
    output: Output,
    written: Counter,
    missing: Counter,
    /// Whether the log was told of lines that could not be written, until one can again.
    troubled: bool,
}

impl Writer {
    pub(super) fn open(target: &AuditTarget, written: Counter, missing: Counter) -> Result<Self, AuditError> {
        let output = match target {
            AuditTarget::Stderr => Output::Stderr,
            AuditTarget::File(path) => {
                let file = append(path).map_err(|error| AuditError { path: path.clone(), error })?;
                Output::File { path: path.clone(), file }
            }
        };
        Ok(Self { output, written, missing, troubled: false })
    }

    /// Writes until nobody sends any more.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Line(line) => self.write(&line),
                // Who waited may have given up.
                Message::Flush(done) => done.send(()).unwrap_or_default(),
            }
        }
    }

    fn write(&mut self, line: &str) {
        match self.output.write(line) {
            Ok(()) => {
                self.written.inc();
                self.troubled = false;
            }
            Err(error) => {
                self.missing.inc();
                if !self.troubled {
                    tracing::error!(%error, "the audit log cannot be written; its lines are lost until it can");
                }
                self.troubled = true;
            }
        }
    }
}

impl Output {
    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Self::File { path, file } => {
                // Whoever rotates logs moves the file away.
                if !is_at(file, path) {
                    *file = append(path)?;
                }
                file.write_all(line.as_bytes())
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: io::Result<std::fs::Metadata>| metadata.ok().map(|it| (it.dev(), it.ino()));
    let open = id(file.metadata());
    open.is_some() && open == id(std::fs::metadata(path))
}
