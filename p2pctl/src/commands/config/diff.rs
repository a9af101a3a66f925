//! `p2pctl config diff`

use super::{default_of, entries, file::FileOption, render, running};
use crate::{
    error::{Exit, Outcome},
    output::{Output, table::Table},
    session::Session,
};
use clap::Args;
use p2p_node::config::{self, Key, parse_duration};
use serde::Serialize;
use serde_yaml::Value;
use std::time::Duration;

/// Shows in what a configuration file differs from the defaults, or from what the running node has in force
///
/// Use it to see at a glance what is special about a node: a key that the file gives its default value is not listed.
/// With --running, see what of the file is not in force, and why: it was not reloaded, waits for a restart, or the
/// node's environment or --set say otherwise. That takes an admin, or the node's user over its socket.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config diff --file config/worker.yaml
  p2pctl config diff --file config/coordinator.yaml -o json
  p2pctl config diff --running --file config/coordinator.yaml")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    file: FileOption,
    /// Compare with the node that is connected to, instead of the defaults
    #[arg(long)]
    pub(super) running: bool,
}

#[derive(Serialize)]
struct Difference {
    key: &'static str,
    value: Value,
    /// Null where it is found when the node starts.
    default: Value,
}

/// Runs the verb.
pub(super) async fn run(args: &DiffArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let file = args.file.read()?;
    if args.running {
        return running::diff(&file, session, output).await;
    }
    let entries = entries(&file)?;
    let difference = |key: &'static Key| {
        let (_, value) = entries.iter().find(|(name, value)| name == key.name && !value.is_null())?;
        let default = default_of(key);
        let same = *value == default || is_same_time(key, value, &default);
        (!same).then(|| Difference { key: key.name, value: value.clone(), default })
    };
    let differences: Vec<Difference> = config::keys().iter().filter_map(difference).collect();
    output.list("ConfigDifferenceList", &differences, |_| {
        let mut table = Table::new(&["KEY", "FILE", "DEFAULT"]);
        for one in &differences {
            let default = if one.default.is_null() { String::new() } else { render::shown(&one.default) };
            table.row(vec![one.key.into(), render::shown(&one.value).into(), default.into()]);
        }
        table
    })?;
    Ok(Exit::Success)
}

/// Whether both are the same time, as 10 and "10s" are.
fn is_same_time(key: &Key, one: &Value, other: &Value) -> bool {
    let time = |value: &Value| -> Option<Duration> { parse_duration(&render::shown(value)).ok() };
    // The key's default tells whether it takes a time.
    let is_time = other.is_string() && key.expected.contains("seconds or a duration");
    is_time && time(one).is_some() && time(one) == time(other)
}
