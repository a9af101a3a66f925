//! A node as a process: configuration, signals, exit codes.

use super::{Node, NodeBuilder, error::StartError, systemd};
use crate::{
    config::{Config, LogFormat},
    identity::Reloaded,
    registry::ServiceError,
    telemetry,
};
use std::{io::Write as _, path::Path, process::ExitCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a bad configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code of any other failure.
pub const EXIT_FAILURE: u8 = 1;

/// Runs the node that a configuration file describes, until a signal stops it.
pub fn main_with(file: &Path) -> ExitCode {
    match Config::load(file, std::env::vars(), &[]) {
        Ok(config) => run(config),
        Err(errors) => {
            complain(&errors.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Runs a node with the built-in services until a signal stops it.
pub fn run(config: Config) -> ExitCode {
    run_with_services(config, Ok)
}

/// Runs a node with services of its own until a signal stops it: SIGTERM and SIGINT shut it down, a second
/// one ends it at once, SIGHUP reloads the certificates.
pub fn run_with_services(
    config: Config,
    add: impl FnOnce(NodeBuilder) -> Result<NodeBuilder, ServiceError>,
) -> ExitCode {
    if let Err(error) = telemetry::start_logging(&config.log_level, config.log_format == LogFormat::Json) {
        complain(&error);
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let builder = NodeBuilder::new(config);
    let outcome = match add(builder) {
        Ok(builder) => runtime.block_on(serve(builder)),
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

async fn serve(builder: NodeBuilder) -> Result<(), StartError> {
    let mut stop = StopSignals::new().map_err(|error| StartError::Signals { error })?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| StartError::Signals { error })?;
    let mut node = tokio::select! {
        node = builder.start() => node?,
        () = stop.received() => return Ok(()),
    };
    systemd::ready(&node);
    let mut watchdog = systemd::Watchdog::from_environment();
    loop {
        tokio::select! {
            () = stop.received() => break,
            _ = hangup.recv() => {
                systemd::reloading();
                reload(&node).await;
                systemd::ready(&node);
            }
            patience = watchdog.due() => watchdog.check(&node, patience).await,
            part = node.broken() => return Err(StartError::Broken { part }),
        }
    }
    systemd::stopping();
    tracing::info!("shutting down; a second signal ends the node at once");
    tokio::select! {
        () = node.shutdown() => Ok(()),
        () = stop.received() => Err(StartError::Hurried),
    }
}

async fn reload(node: &Node) {
    match node.reload_certificates().await {
        Ok(Reloaded::Unchanged) => {
            tracing::info!("reload: certificates unchanged; other settings take a restart")
        }
        Ok(Reloaded::Replaced) => {
            tracing::info!("reload: new certificates in force; other settings take a restart")
        }
        Err(error) => tracing::error!(%error, "reload refused; the certificates in force stay"),
    }
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
