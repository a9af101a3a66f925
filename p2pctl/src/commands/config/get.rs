//! `p2pctl config get`

use super::{
    default_of, entries,
    file::{FileOption, key},
    render,
};
use crate::{
    error::{Exit, Outcome},
    output::{Output, table::Table},
};
use clap::Args;
use p2p_node::config;
use serde::Serialize;
use serde_yaml::Value;

/// Shows what a configuration file sets, or the value of one key
///
/// Use it to see a setting, in scripts too: one key prints its value and nothing else. A key that the file does not
/// set has its default; what the environment and --set override at the node's start is not looked at.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config get --file config/worker.yaml
  p2pctl config get port --file config/worker.yaml
  p2pctl config get labels -o json --file config/worker.yaml")]
pub(crate) struct GetArgs {
    /// Key to show; all that the file sets if not given
    #[arg(value_name = "KEY")]
    name: Option<String>,
    #[command(flatten)]
    file: FileOption,
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    value: Value,
    /// Whether the file says so; otherwise it is the default.
    set: bool,
}

/// Runs the verb.
pub(super) fn run(args: &GetArgs, output: &Output) -> Outcome {
    // A key that does not exist is told before a file that does not.
    let wanted = args.name.as_deref().map(key).transpose()?;
    let entries = entries(&args.file.read()?)?;
    let setting = |key: &'static config::Key| {
        let given = entries.iter().find(|(name, value)| name == key.name && !value.is_null());
        let value = given.map_or_else(|| default_of(key), |(_, value)| value.clone());
        Setting { key: key.name, value, set: given.is_some() }
    };
    match wanted {
        Some(key) => output.object("Setting", &setting(key), |_| {
            let value = setting(key).value;
            if value.is_null() { "\n".to_owned() } else { render::shown(&value) + "\n" }
        })?,
        None => {
            let settings: Vec<Setting> = config::keys().iter().map(setting).filter(|it| it.set).collect();
            output.list("SettingList", &settings, |_| {
                let mut table = Table::new(&["KEY", "VALUE"]);
                for setting in &settings {
                    table.row(vec![setting.key.into(), render::shown(&setting.value).into()]);
                }
                table
            })?;
        }
    }
    Ok(Exit::Success)
}
