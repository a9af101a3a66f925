//! Logs and metrics.
//!
//! Metrics are typed structs of the components that own them, registered with [`Metrics`] at start; this
//! module owns only the registry, its text forms, and what is counted of the process itself. All names start with `p2p_`, but
//! those of the process. docs/metrics.md lists them, and is compared with them by a test.

mod panics;
mod process;
mod text;

pub use panics::count_panics;
pub use text::Format;

use prometheus_client::{encoding::text as open_metrics, metrics::info::Info, registry::Registry};
use std::sync::Mutex;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    components: Mutex<Registry>,
    process: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("p2p");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("protocol", "1")]);
        registry.register("build", "What this node runs", build);
        panics::register(&mut registry);
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process));
        Self { components: Mutex::new(registry), process }
    }
}

impl Metrics {
    /// Registers a component's metrics.
    pub fn register<T>(&self, component: impl FnOnce(&mut Registry) -> T) -> T {
        component(&mut self.components.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// All metrics as text.
    pub fn encode(&self, format: Format) -> Result<String, std::fmt::Error> {
        let registry = self.components.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::with_capacity(16 * 1024);
        open_metrics::encode_registry(&mut text, &registry)?;
        drop(registry);
        open_metrics::encode_registry(&mut text, &self.process)?;
        open_metrics::encode_eof(&mut text)?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Prometheus => text::to_prometheus(&text),
        })
    }
}

/// What is logged, which can be changed while the process runs.
#[derive(Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl LogFilter {
    /// Logs from now on what `filter` says.
    ///
    /// # Errors
    ///
    /// When the filter does not parse; what is logged stays as it is.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.0.reload(parse(filter)?).map_err(|error| error.to_string())
    }
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("log_level {filter:?}: {error}"))
}

/// Starts logging to standard error, once per process. `filter` is in the syntax of tracing's `EnvFilter`.
///
/// # Errors
///
/// When the filter does not parse, or logging was started before.
pub fn start_logging(filter: &str, json: bool) -> Result<LogFilter, String> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        let colour =
            std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(layer.with_ansi(colour).with_target(false)).try_init()
    };
    started.map_err(|error| error.to_string())?;
    Ok(LogFilter(handle))
}
