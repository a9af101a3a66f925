//! A node as a process: configuration, signals, exit codes.

use super::{Node, NodeBuilder, ReloadError, error::StartError, reload::tell, systemd};
use crate::{
    config::{ConfigFile, LogFormat, ReloadRequest, ReloadSource, Report},
    registry::ServiceError,
    telemetry::{self, LogFilter},
};
use std::{io::Write as _, path::Path, pin::pin, process::ExitCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a bad configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code of any other failure.
pub const EXIT_FAILURE: u8 = 1;

/// Runs the node that a configuration file describes, with the built-in services, until a signal stops it.
pub fn main_with(file: &Path) -> ExitCode {
    run_with_services(ConfigFile::new(file, Vec::new()), Ok)
}

/// Runs the node that a configuration file describes, with services of its own, until a signal stops it: SIGTERM and SIGINT
/// shut it down, a second one ends it at once. SIGHUP, and admins with `SystemService/Reload`, have it read the file again.
pub fn run_with_services(
    file: ConfigFile,
    add: impl FnOnce(NodeBuilder) -> Result<NodeBuilder, ServiceError>,
) -> ExitCode {
    let config = match file.load() {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let logging = telemetry::start_logging(&config.log_level, config.log_format == LogFormat::Json);
    let log = match logging {
        Ok(log) => log,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    telemetry::count_panics();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let builder = NodeBuilder::new(config);
    let outcome = match add(builder) {
        Ok(builder) => runtime.block_on(serve(builder, &file, &log)),
        Err(error) => Err(StartError::Service(error)),
    };
    // Blocking work that still runs (a name lookup, say) must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the node stops");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

async fn serve(builder: NodeBuilder, file: &ConfigFile, log: &LogFilter) -> Result<(), StartError> {
    let mut stop = StopSignals::new().map_err(|error| StartError::Signals { error })?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| StartError::Signals { error })?;
    let (source, mut requests) = ReloadSource::new(file.path());
    let builder = builder.reload_from(source);
    let mut node = tokio::select! {
        node = builder.start() => node?,
        () = stop.received() => return Ok(()),
    };
    systemd::ready(&node);
    let mut watchdog = systemd::Watchdog::from_environment();
    loop {
        // A signal is a request for whose answer nobody waits.
        let request = tokio::select! {
            () = stop.received() => break,
            _ = hangup.recv() => ReloadRequest::default(),
            Some(request) = requests.recv() => request,
            patience = watchdog.due() => {
                watchdog.check(&node, patience).await;
                continue;
            }
            part = node.broken() => return Err(StartError::Broken { part }),
        };
        let mut reload = pin!(reload(&node, file, log, request));
        let stopped = loop {
            tokio::select! {
                () = &mut reload => break false,
                () = stop.received() => break true,
                patience = watchdog.due() => watchdog.check(&node, patience).await,
            }
        };
        if stopped {
            break;
        }
    }
    systemd::stopping();
    tracing::info!("shutting down; a second signal ends the node at once");
    tokio::select! {
        () = node.shutdown() => Ok(()),
        () = stop.received() => Err(StartError::Hurried),
    }
}

/// Does what is asked for, and answers.
async fn reload(node: &Node, file: &ConfigFile, log: &LogFilter, request: ReloadRequest) {
    let source = file.clone();
    let outcome = if request.dry_run {
        node.preview_reload(move || source.load()).await
    } else {
        systemd::reloading();
        let outcome = node.reload(move || source.load()).await;
        log_outcome(node, log, &outcome);
        systemd::ready(node);
        outcome
    };
    if let Some(answer) = request.answer {
        // Who asked may have turned away.
        answer.send(outcome.map_err(|error| error.mistakes())).ok();
    }
}

fn log_outcome(node: &Node, log: &LogFilter, outcome: &Result<Report, ReloadError>) {
    let report = match outcome {
        Ok(report) => report,
        Err(ReloadError::Config(errors)) => {
            for error in &errors.errors {
                tracing::error!(%error, "reload: a mistake in the configuration");
            }
            return tracing::error!(mistakes = errors.errors.len(), "reload refused; nothing has changed");
        }
        Err(error) => return tracing::error!(%error, "reload refused; nothing has changed"),
    };
    if report.applied.contains(&"log_level")
        && let Err(error) = log.set(&node.config().log_level)
    {
        tracing::error!(error, "the log level could not be changed");
    }
    tell(report);
}

/// Signals that ask the node to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says something before logging has started, or to whoever started the process by hand.
fn complain(text: &str) {
    // A closed stderr leaves nobody to tell.
    writeln!(std::io::stderr(), "{text}").ok();
}
