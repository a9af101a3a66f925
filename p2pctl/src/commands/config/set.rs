//! `p2pctl config set`, and what it shares with `unset`.

use super::{
    edit::{EditError, edit},
    effect, entries,
    file::{ConfigFile, FileOption, key},
    reload::{self, Reload},
    render,
};
use crate::{
    error::{Exit, Failure, Outcome},
    output::Output,
    session::Session,
};
use clap::Args;
use p2p_node::config::{Config, ConfigError, Key, raw};
use serde::Serialize;
use serde_yaml::Value;
use std::path::Path;

/// Changes one setting of a configuration file, and nothing else in it
///
/// Use it instead of an editor, by hand or in scripts: comments, order and quoting stay as they are, a value that the
/// node would refuse is refused here with the same words, and the file is replaced whole or not at all. VALUE is YAML,
/// as in --set of p2p-node: 9001, true, 30s, '["10.0.0.5:8001"]'. What is printed says when the value takes effect: at a
/// reload, or when the node is started again; --reload has the running node read its file at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config set port 9001 --file config/worker.yaml --dry-run
  p2pctl config set log_level info,p2p_node=debug --file config/worker.yaml
  p2pctl config set coordinator_addresses '[\"10.0.0.5:8001\", \"10.0.0.6:8001\"]' \\
      --file config/worker.yaml
  p2pctl config set labels '{disk: ssd}' --file config/worker.yaml
  p2pctl config set log_level debug --reload --file config/worker.yaml")]
pub(crate) struct SetArgs {
    /// Key to set
    #[arg(value_name = "KEY")]
    name: String,
    /// Its value, as YAML
    #[arg(allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    pub(super) edit: EditOptions,
}

/// What every edit takes.
#[derive(Debug, Args)]
pub(super) struct EditOptions {
    #[command(flatten)]
    pub(super) file: FileOption,
    /// Show the change as `diff -u` does, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Then have the node that is connected to read its configuration anew, as `config reload` does
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) reload: bool,
}

/// What became of a setting.
#[derive(Serialize)]
struct Change<'a> {
    file: String,
    key: &'a str,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    changed: bool,
    written: bool,
    takes_effect: &'static str,
    diff: &'a str,
    /// What the running node made of it, with --reload.
    reload: Option<&'a Reload>,
}

/// Runs the verb.
pub(super) async fn run(args: &SetArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let key = key(&args.name)?;
    let value = raw::value(&args.value, key.name).map_err(|errors| Failure::usage(errors.to_string()))?;
    if value.is_null() {
        return Err(Failure::usage(format!("{}: an empty value sets nothing", key.name)).hint(&format!(
            "`p2pctl config unset {}` returns to the default; for empty text write '\"\"'",
            key.name
        )));
    }
    change(&args.edit, key, Some(&value), session, output).await
}

/// Gives `key` the value, or takes it out.
pub(super) async fn change(
    options: &EditOptions,
    setting: &'static Key,
    value: Option<&Value>,
    session: &Session<'_>,
    output: &Output,
) -> Outcome {
    let key = setting.name;
    let file = if options.dry_run { options.file.read() } else { options.file.read_to_change() }?;
    let entries = entries(&file)?;
    let before = entries.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let splice = edit(&file.text, key, value).map_err(|error| refused(&file, key, &error))?;
    let mut patch = String::new();
    if let Some(splice) = &splice {
        let text = splice.apply(&file.text);
        check(&file, key, &text, output)?;
        patch = file.patch(splice);
        if !options.dry_run {
            file.replace(&text)?;
        }
    }
    // Others may edit it from here on, also while the node reads it.
    let (name, before) = (file.name(), before.cloned());
    drop(file);
    let changed = splice.is_some();
    let reload = if options.reload { Some(reload::ask(session, false).await) } else { None };
    let done = reload.as_ref().and_then(|reload| reload.as_ref().ok());
    let change = Change {
        file: name.clone(),
        key,
        before: before.as_ref(),
        after: value,
        changed,
        written: changed && !options.dry_run,
        takes_effect: effect::word(setting.takes_effect),
        diff: &patch,
        reload: done,
    };
    output.object("ConfigChange", &change, |_| match options.dry_run {
        true => patch.clone(),
        false => {
            let reloaded = done.map(Reload::text).unwrap_or_default();
            sentence(key, before.as_ref(), value, changed) + &reloaded
        }
    })?;
    if change.written && reload.is_none() {
        output.note(&format!("{name} is written; {}.", effect::sentence(setting.takes_effect)));
    } else if options.dry_run && !changed {
        output.note("Nothing would change.");
    }
    match reload {
        None => Ok(Exit::Success),
        Some(Err(failure)) if changed => Err(failure.hint(&format!("The change of {name} is written"))),
        Some(Err(failure)) => Err(failure),
        Some(Ok(done)) => {
            if changed && done.accepted() && !done.names(key) {
                let (node, file) = (&session.global().endpoint, done.file());
                output.note(&match is_another(&options.file, file) {
                    true => format!(
                        "The node at {node} reads another file, {file}. Name the node that reads {name} with --endpoint."
                    ),
                    false => format!(
                        "The node at {node} reads {file}: there {key} has the value in force, or its environment or --set override it."
                    ),
                });
            }
            done.advise(output);
            Ok(done.exit())
        }
    }
}

/// Whether the node's file is another than the one that was edited, as far as its name tells.
fn is_another(edited: &FileOption, of_node: &str) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    !of_node.is_empty() && real(&edited.file) != real(Path::new(of_node))
}

fn sentence(key: &str, before: Option<&Value>, after: Option<&Value>, changed: bool) -> String {
    match (after, before) {
        (Some(after), _) if !changed => format!("unchanged: {key} is {}\n", render::shown(after)),
        (Some(after), Some(before)) => {
            format!("changed: {key} is {}, was {}\n", render::shown(after), render::shown(before))
        }
        (Some(after), None) => format!("changed: {key} is {}, was not set\n", render::shown(after)),
        (None, Some(before)) => format!("changed: {key} is not set, was {}\n", render::shown(before)),
        (None, None) => format!("unchanged: {key} is not set\n"),
    }
}

fn refused(file: &ConfigFile, key: &str, error: &EditError) -> Failure {
    match error {
        EditError::Unreadable(why) => Failure::other(why.clone()),
        EditError::Form | EditError::Repeated | EditError::Anchored { .. } => {
            Failure::other(format!("{}: {key} {error}. Nothing was written", file.name()))
        }
    }
}

/// Refuses a text of which the node would say about `key`, or newly about another one, that it is wrong.
fn check(file: &ConfigFile, key: &str, text: &str, output: &Output) -> Result<(), Failure> {
    let mistakes = |text: &str| Config::from_yaml(text, &file.name()).err().map(|errors| errors.errors);
    let after = mistakes(text).unwrap_or_default();
    let what = |error: &ConfigError| (error.key.clone(), error.problem.to_string());
    let before: Vec<_> = mistakes(&file.text).unwrap_or_default().iter().map(what).collect();
    let ours = |error: &&ConfigError| error.key.as_deref() == Some(key) || !before.contains(&what(error));
    let refused: Vec<String> = after.iter().filter(ours).map(ToString::to_string).collect();
    if !refused.is_empty() {
        return Err(Failure::usage(refused.join("\n")).hint("Nothing was written"));
    }
    if !after.is_empty() {
        output.note(&format!(
            "{} has other mistakes: `p2pctl config validate` shows them; the node would not start.",
            file.name()
        ));
    }
    Ok(())
}
