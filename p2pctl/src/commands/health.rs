//! `p2pctl health`

use super::http;
use crate::{
    error::{Exit, Outcome},
    output::{
        Output,
        table::{Cell, Table, Tone},
    },
    session::Session,
};
use clap::Args;
use reqwest::StatusCode;
use serde_json::{Map, Value};

/// Asks one node whether it is healthy
///
/// Prints what the node says of itself; with an admin's certificate also why. Use it in probes and
/// scripts: exit code 0 means healthy, 6 degraded, 1 not ready, 5 unreachable.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl --ca certs/ca_cert.pem health
  p2pctl --endpoint 10.0.0.7:8001 health -o json")]
pub(crate) struct HealthArgs {}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, output: &Output) -> Outcome {
    let answer = http::get(session, "/health").await?;
    let ready = answer.status.is_success();
    if !ready && answer.status != StatusCode::SERVICE_UNAVAILABLE {
        return Err(answer.failure("its health", session));
    }
    let health = parse(&answer.body);
    let Some(health) = health else {
        let what = if ready { "a health document" } else { "its health" };
        return Err(answer.failure(what, session));
    };
    output.object("Health", &health, |output| text(&health, output))?;
    Ok(exit(ready, &health))
}

/// The document, if it is one; a 503 may carry a problem document instead, which has no status word.
fn parse(body: &str) -> Option<Map<String, Value>> {
    let document: Map<String, Value> = serde_json::from_str(body).ok()?;
    document.get("status").is_some_and(Value::is_string).then_some(document)
}

fn exit(ready: bool, health: &Map<String, Value>) -> Exit {
    match (ready, health.get("status").and_then(Value::as_str)) {
        (true, Some("healthy")) => Exit::Success,
        (true, Some(_) | None) => Exit::Degraded,
        (false, _) => Exit::Failure,
    }
}

fn text(health: &Map<String, Value>, output: &Output) -> String {
    let mut lines = Table::lines("");
    let status = health.get("status").and_then(Value::as_str).unwrap_or_default();
    let tone = match status {
        "healthy" => Tone::Good,
        "degraded" => Tone::Warn,
        _ => Tone::Bad,
    };
    lines.row(vec!["status".into(), Cell::new(status, tone)]);
    for (key, value) in health.iter().filter(|(key, _)| *key != "status") {
        push(&mut lines, key, value);
    }
    output.render(&lines)
}

fn push(lines: &mut Table, key: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                push(lines, &format!("{key}.{name}"), value);
            }
        }
        Value::Array(items) => {
            for item in items {
                push(lines, key, item);
            }
        }
        Value::String(text) => lines.row(vec![key.into(), text.as_str().into()]),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            lines.row(vec![key.into(), value.to_string().into()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn health_becomes_an_exit_code() {
        for (ready, body, expected) in [
            (true, r#"{"status":"healthy"}"#, Exit::Success),
            (true, r#"{"status":"degraded"}"#, Exit::Degraded),
            (false, r#"{"status":"starting"}"#, Exit::Failure),
        ] {
            assert_eq!(exit(ready, &parse(body).expect("a document")), expected);
        }
        assert!(parse(r#"{"status":503,"title":"not ready"}"#).is_none());
        assert!(parse("<html>").is_none());
    }

    #[test]
    fn reasons_stand_below_the_status() {
        let health = parse(r#"{"reasons":["a","b"],"cluster":{"alive":2},"status":"degraded"}"#);
        assert_eq!(
            text(&health.expect("a document"), &Output::new(Format::Table)),
            "status         degraded\ncluster.alive  2\nreasons        a\nreasons        b\n"
        );
    }
}
