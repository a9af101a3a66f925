//! A file compared with what a running node has in force.

use super::{effect, file::ConfigFile, render};
use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, table::Table},
    session::Session,
};
use p2p_node::config::{Config, GivenBy, TakesEffect, raw};
use p2p_proto::v1::{GetConfigResponse, Setting};
use serde::Serialize;
use serde_yaml::Value;

#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    key: String,
    file: Value,
    /// Null where the node, of another release, does not know the key.
    running: Value,
    given_by: String,
    takes_effect: &'static str,
    #[serde(skip)]
    why: &'static str,
}

/// Shows in what `file` differs from what the session's node has in force.
pub(super) async fn diff(file: &ConfigFile, session: &Session<'_>, output: &Output) -> Outcome {
    let config = Config::from_yaml(&file.text, &file.name()).map_err(|errors| {
        Failure::other(errors.to_string()).hint("Only a file that the node would take can be compared")
    })?;
    let connection = session.connect().await?;
    let running = connection.config().await.map_err(|error| session.call_failure(&error))?;
    let differences = differences(&config, &running);
    output.list("RunningDifferenceList", &differences, |_| {
        let mut table = Table::new(&["KEY", "FILE", "RUNNING", "WHY"]);
        for one in &differences {
            let shown = |value: &Value| if value.is_null() { String::new() } else { render::shown(value) };
            let (file, running) = (shown(&one.file), shown(&one.running));
            table.row(vec![one.key.as_str().into(), file.into(), running.into(), one.why.into()]);
        }
        table
    })?;
    if differences.is_empty() {
        output.note("What the file says is in force.");
    }
    if !running.file.is_empty() {
        output.note(&format!("The node at {} reads {}.", session.global().endpoint, running.file));
    }
    Ok(Exit::Success)
}

fn differences(file: &Config, running: &GetConfigResponse) -> Vec<Difference> {
    let difference = |(key, value): (&'static p2p_node::config::Key, Value)| {
        let in_force = running.settings.iter().find(|setting| setting.key == key.name);
        let given = file.given_by(key) != GivenBy::Default;
        let Some(in_force) = in_force else {
            return given.then(|| Difference {
                key: key.name.to_owned(),
                file: value,
                running: Value::Null,
                given_by: String::new(),
                takes_effect: effect::word(key.takes_effect),
                why: "the node does not know it",
            });
        };
        // Where nobody gives a value, each host finds its own.
        let both_default = !given && in_force.given_by == GivenBy::Default.word();
        let running = raw::value(&in_force.value, key.name).unwrap_or_default();
        (!both_default && running != value).then(|| Difference {
            key: key.name.to_owned(),
            file: value,
            running,
            given_by: in_force.given_by.clone(),
            takes_effect: effect::word(key.takes_effect),
            why: why(in_force, key.takes_effect),
        })
    };
    file.values().into_iter().filter_map(difference).collect()
}

fn why(in_force: &Setting, effect: TakesEffect) -> &'static str {
    let by = |who: GivenBy| in_force.given_by == who.word();
    if by(GivenBy::Environment) {
        "the node's environment says so"
    } else if by(GivenBy::Argument) {
        "--set says so"
    } else {
        match effect {
            TakesEffect::AtReload => "not reloaded",
            TakesEffect::AtStart => "not restarted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str, given_by: &str) -> Setting {
        Setting { key: key.into(), value: value.into(), given_by: given_by.into(), at_reload: true }
    }

    #[test]
    fn only_what_means_something_else_differs() {
        let file = Config::from_yaml(
            "node_id: a\nshutdown_grace: 10000ms\nport: 9001\nzone: b\nlog_level: warn\ncalls_max: 5\n",
            "f",
        )
        .expect("valid");
        let running = GetConfigResponse {
            settings: vec![
                setting("node_id", "\"a\"", "argument"),
                setting("shutdown_grace", "\"10s\"", "default"),
                setting("port", "8001", "file"),
                setting("zone", "\"c\"", "environment"),
                setting("log_level", "\"info\"", "default"),
                // Found at the start of a node in another directory.
                setting("ssl_ca_cert_file", "\"/elsewhere/ca_cert.pem\"", "default"),
                setting("key_of_a_newer_release", "5", "file"),
            ],
            ..GetConfigResponse::default()
        };
        let found: Vec<_> =
            differences(&file, &running).into_iter().map(|one| (one.key, one.running, one.why)).collect();
        let difference = |key: &str, running: Value, why| (key.to_owned(), running, why);
        assert_eq!(
            found,
            [
                difference("port", 8001.into(), "not restarted"),
                difference("zone", "c".into(), "the node's environment says so"),
                difference("calls_max", Value::Null, "the node does not know it"),
                difference("log_level", "info".into(), "not reloaded"),
            ]
        );
    }
}
