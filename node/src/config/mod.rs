//! The configuration of a node: what may be set, where it comes from, and what is wrong with it.
//!
//! | file | what it holds |
//! |---|---|
//! | `keys` | the one table of every key: type, default, how to choose it |
//! | `table` | the macro that makes [`Config`], [`Key`]s and the reader of that table |
//! | [`file`](mod@file) | where a configuration comes from, to be read more than once |
//! | `sources` | file, environment and `--set` read as YAML values with their origins |
//! | `setting` | how one YAML value becomes one typed setting |
//! | `check` | rules that span several keys |
//! | [`raw`] | what stands in a file, before it is typed: for tools that edit it |
//! | [`running`] | the configuration of a running node: shown, and asked to be read anew |
//! | [`access`] [`address`] [`audit`] [`duration`] [`limit`] [`name`] [`service`] | the types of settings |
//! | [`error`] | every mistake, with its place and the remedy |
//!
//! ```text
//! file ┐
//! env  ├─ sources ─ one value per key ─ keys (typed) ─ check ─ Config
//! --set┘      └───────────── mistakes of all stages ─────────── ConfigErrors
//! ```
//!
//! A stage never stops at its first mistake, so that one run reports them all. Nothing here opens what a
//! key names: a certificate that is missing is for the part that reads it to say.

pub mod access;
pub mod address;
pub mod audit;
mod check;
pub mod duration;
pub mod error;
pub mod file;
mod keys;
pub mod limit;
pub mod name;
pub mod raw;
pub mod running;
pub mod service;
mod setting;
mod sources;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    access::{AccessRule, AccessRules, Allow},
    address::{AdvertiseAddress, SeedAddress, SeedHost},
    audit::AuditTarget,
    duration::{InvalidDuration, format_duration, parse_duration},
    error::{ConfigError, ConfigErrors, Origin, Problem},
    file::ConfigFile,
    keys::Config,
    limit::{LimitRule, LimitRules, Network},
    name::{FileName, Labels, LogFormat},
    running::{NotReloaded, ReloadAnswer, ReloadRequest, ReloadSource, Report, Running},
    service::{HealthCheck, ServiceConfig, Services, UpstreamUrl},
};

use self::{keys::Parsed, sources::Sources, table::Reader};
use std::path::Path;

/// Environment variables that start with this set the key that the rest of their name spells.
pub const ENV_PREFIX: &str = "P2PNODE_";

/// What is known about one key without any file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Its default as YAML; empty where the default is found at start, as the documentation says.
    pub default: &'static str,
    /// What a value must be, in words that follow "expected".
    pub expected: &'static str,
    /// One paragraph: what it does and how to choose the value.
    pub doc: &'static str,
    /// When a new value takes effect.
    pub takes_effect: TakesEffect,
}

/// When a new value of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// Only when the node is started again.
    AtStart,
    /// When the running node reads its configuration anew.
    AtReload,
}

/// Who gave a key its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GivenBy {
    /// Nobody: it has its default.
    #[default]
    Default,
    /// The configuration file.
    File,
    /// The environment.
    Environment,
    /// `--set`.
    Argument,
}

impl GivenBy {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Argument => "argument",
        }
    }
}

impl From<&Origin> for GivenBy {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::File { .. } => Self::File,
            Origin::Env(_) => Self::Environment,
            Origin::Set => Self::Argument,
        }
    }
}

/// Every key, in the order in which the example files list them.
pub fn keys() -> &'static [Key] {
    keys::KEYS
}

impl Config {
    /// Reads `file`, then lets `env` (names starting with [`ENV_PREFIX`]; others are ignored) and then
    /// `sets` (`KEY=VALUE`) override it. A value is YAML; an empty one returns the key to its default.
    ///
    /// # Errors
    ///
    /// Every mistake in every source. A value that a later source overrides must be valid too.
    pub fn load(
        file: &Path,
        env: impl Iterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, ConfigErrors> {
        let mut sources = Sources::new(file.display().to_string());
        sources.add_file(file);
        sources.add_env(env);
        sources.add_sets(sets);
        Self::from_sources(sources, &host_name())
    }

    /// Reads a configuration from `text`; errors call it `origin_name`.
    ///
    /// # Errors
    ///
    /// Every mistake in `text`.
    pub fn from_yaml(text: &str, origin_name: &str) -> Result<Self, ConfigErrors> {
        let mut sources = Sources::new(origin_name.to_owned());
        sources.add_text(text);
        Self::from_sources(sources, &host_name())
    }

    fn from_sources(mut sources: Sources, host_name: &str) -> Result<Self, ConfigErrors> {
        let mut errors = std::mem::take(&mut sources.errors);
        if sources.file_is_readable {
            let mut reader = Reader::new(&sources, host_name);
            let parsed = Parsed::read(&mut reader);
            errors.append(&mut reader.errors);
            errors.append(&mut check::across_keys(&parsed, &sources));
            if errors.is_empty()
                && let Some(config) = parsed.complete(&sources)
            {
                return Ok(config);
            }
        }
        Err(ConfigErrors::new(errors))
    }
}

/// This host's name; empty where the system does not tell.
fn host_name() -> String {
    sysinfo::System::host_name().unwrap_or_default()
}
