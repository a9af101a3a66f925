//! `p2pctl token inspect`

use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Output,
        table::{Cell, Table, Tone},
        time::{relative, unix_now},
    },
    session::{Session, TokenSource},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use p2p_proto::{Timestamp, v1::VerifyTokenResponse};
use serde::Serialize;
use serde_json::{Map, Value};

/// Shows what an access token says, and whether the node accepts it
///
/// Use it when a call is refused, or to see what a token allows. Header and claims are read here and prove
/// nothing; where the node can be reached, its verdict follows: exit code 4 means that it refuses the token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl token inspect @ci.token
  p2pctl --token @ci.token token inspect
  p2pctl token inspect @ci.token -o json | jq .claims.scope")]
pub(crate) struct InspectArgs {
    /// The token; @FILE reads a file, - stdin. The one of --token otherwise
    #[arg(value_name = "TOKEN|@FILE|-", allow_hyphen_values = true)]
    token: Option<TokenSource>,
}

/// What scripts see. The token itself is a secret and not shown.
#[derive(Serialize)]
struct Inspected {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    verdict: Option<Verdict>,
}

/// What a node says of the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    node: String,
    accepted: bool,
    reason: Option<String>,
    message: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: &InspectArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let source = args.token.as_ref().or(session.global().token.as_ref());
    let source = source.ok_or_else(|| Failure::usage("name a token: TOKEN, @FILE or -"))?;
    let token = source.read()?;
    let (header, claims) = read(&token)?;
    let verdict = match verdict(&token, session).await {
        Ok(verdict) => Some(verdict),
        Err(failure) => {
            output.note(&format!("No node was asked whether it accepts the token: {}", failure.message));
            None
        }
    };
    let inspected = Inspected { header, claims, verdict };
    output.object("AccessTokenInspection", &inspected, |output| text(&inspected, output, unix_now()))?;
    Ok(match &inspected.verdict {
        Some(verdict) if !verdict.accepted => Exit::Denied,
        Some(_) | None => Exit::Success,
    })
}

/// The token is judged, not shown as evidence: a node would refuse the whole request with a bad one.
async fn verdict(token: &str, session: &Session<'_>) -> Result<Verdict, Failure> {
    let connection = session.connect_without_token().await?;
    let answer = connection.verify_token(token).await.map_err(|error| session.call_failure(&error))?;
    let VerifyTokenResponse { node_id, accepted, reason, message, info: _ } = answer;
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(Verdict { node: node_id, accepted, reason: given(reason), message: given(message) })
}

type Object = Map<String, Value>;

fn read(token: &str) -> Result<(Object, Object), Failure> {
    let none = || {
        Failure::usage(
            "this is no access token: expected three base64url parts with dots between, the first two JSON",
        )
    };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _signature] = parts.as_slice() else { return Err(none()) };
    let object = |part: &str| {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Object>(&json).ok()
    };
    object(header).zip(object(claims)).ok_or_else(none)
}

fn text(inspected: &Inspected, output: &Output, now: i64) -> String {
    let mut lines = Table::lines("");
    for (prefix, fields) in [("header.", &inspected.header), ("", &inspected.claims)] {
        for (name, value) in fields {
            let label = format!("{prefix}{name}");
            for shown in values(name, value, now) {
                lines.row(vec![label.as_str().into(), shown.into()]);
            }
        }
    }
    if let Some(verdict) = &inspected.verdict {
        let (word, tone) = match verdict.accepted {
            true => ("accepts it".to_owned(), Tone::Good),
            false => (
                format!("refuses it: {}", verdict.message.as_deref().unwrap_or("no reason given")),
                Tone::Bad,
            ),
        };
        lines.row(vec![format!("node {}", verdict.node).into(), Cell::new(word, tone)]);
    }
    output.render(&lines)
}

/// A value as people read it: times also relative, each glob of the scope on its own line.
fn values(name: &str, value: &Value, now: i64) -> Vec<String> {
    match (name, value) {
        ("iat" | "exp" | "nbf", Value::Number(seconds)) => {
            let at = seconds.as_i64().map(|seconds| Timestamp { seconds, nanos: 0 });
            vec![format!("{seconds} ({})", relative(at.as_ref(), now))]
        }
        ("scope", Value::String(scope)) => scope.split(' ').map(str::to_owned).collect(),
        (_, Value::String(text)) => vec![text.clone()],
        (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            vec![value.to_string()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn token() -> String {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let header = part(r#"{"typ":"at+jwt","alg":"EdDSA"}"#);
        format!("{header}.{}.c2ln", part(r#"{"sub":"ci","exp":3700,"scope":"shop.* bank.*"}"#))
    }

    #[test]
    fn claims_are_shown_without_any_node() {
        let (header, claims) = read(&token()).expect("a token");
        let verdict = Verdict {
            node: "w1".into(),
            accepted: false,
            reason: Some("expired".into()),
            message: Some("the token has expired".into()),
        };
        let inspected = Inspected { header, claims, verdict: Some(verdict) };
        let shown = text(&inspected, &Output::new(Format::Table), 100);
        for line in [
            "header.alg  EdDSA",
            "sub         ci",
            "exp         3700 (in 1h)",
            "scope       shop.*",
            "scope       bank.*",
            "node w1     refuses it: the token has expired",
        ] {
            assert!(shown.contains(line), "{line:?} in\n{shown}");
        }
        let json = serde_json::to_string(&inspected).expect("serializes");
        assert!(json.contains(r#""verdict":{"node":"w1","accepted":false,"reason":"expired""#), "{json}");
    }

    #[test]
    fn what_is_no_token_is_a_usage_error() {
        for bad in ["", "a", "a.b.c", "e30.e30", "e30.e30.x.y", "e30.WzFd.x"] {
            assert_eq!(read(bad).expect_err(bad).exit, Exit::Usage, "{bad}");
        }
    }
}
