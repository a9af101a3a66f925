//! `p2pctl config`: the configuration file of a node; and, where that is asked for, what the node has of it in force.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@file`] | which file, its text, replacing it whole |
//! | [`layout`] | where each entry stands in the text |
//! | [`edit`] | the one place of the text that an edit replaces, and the proof that it does what was meant |
//! | [`effect`] | when a running node takes a value over |
//! | [`render`] | values as YAML text |
//! | [`patch`] | a change as `diff -u` shows it |
//! | [`reload`] | a running node reads its file anew |
//! | [`running`] | a file compared with what a running node has in force |
//!
//! ```text
//! file ─ layout ─ edit (splice) ─ read again as the node reads it ─ compared with what was meant ─ replaced whole
//! ```

mod defaults;
mod diff;
mod edit;
mod effect;
mod file;
mod get;
mod init;
mod layout;
mod patch;
mod reload;
mod render;
mod running;
mod set;
#[cfg(test)]
mod tests;
mod unset;
mod validate;

use crate::{
    error::{Failure, Outcome},
    output::Output,
    session::Session,
};
use clap::Subcommand;
use file::ConfigFile;
use p2p_node::config::raw;
use serde_yaml::Value;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Init(init::InitArgs),
    Get(get::GetArgs),
    Set(set::SetArgs),
    Unset(unset::UnsetArgs),
    Validate(validate::ValidateArgs),
    Diff(diff::DiffArgs),
    ShowDefaults(defaults::ShowDefaultsArgs),
    Reload(reload::ReloadArgs),
}

impl ConfigCommand {
    /// Whether it connects to a node.
    pub(crate) fn connects(&self) -> bool {
        match self {
            Self::Reload(_) => true,
            Self::Set(args) => args.edit.reload,
            Self::Unset(args) => args.edit.reload,
            Self::Diff(args) => args.running,
            Self::Init(_) | Self::Get(_) | Self::Validate(_) | Self::ShowDefaults(_) => false,
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(command: &ConfigCommand, session: &Session<'_>, output: &Output) -> Outcome {
    match command {
        ConfigCommand::Init(args) => init::run(args, output),
        ConfigCommand::Get(args) => get::run(args, output),
        ConfigCommand::Set(args) => set::run(args, session, output).await,
        ConfigCommand::Unset(args) => unset::run(args, session, output).await,
        ConfigCommand::Validate(args) => validate::run(args, output),
        ConfigCommand::Diff(args) => diff::run(args, session, output).await,
        ConfigCommand::ShowDefaults(args) => defaults::run(args, output),
        ConfigCommand::Reload(args) => reload::run(args, session, output).await,
    }
}

/// What the file gives each key.
fn entries(file: &ConfigFile) -> Result<Vec<(String, Value)>, Failure> {
    raw::entries(&file.text, &file.name())
        .map_err(|errors| Failure::other(errors.to_string()).hint("Mend it by hand; nothing was changed"))
}

/// The default of a key; null where it is found when the node starts.
fn default_of(key: &p2p_node::config::Key) -> Value {
    raw::value(key.default, key.name).unwrap_or_default()
}
