//! `p2pctl token issue`

use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Output,
        time::{relative, unix_now},
    },
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_core::{Scope, Subject};
use p2p_proto::v1::{AccessTokenInfo, IssueTokenRequest};
use serde::Serialize;
use std::time::Duration;

/// Issues an access token at a coordinator and prints it, alone, on stdout
///
/// Use it to let a program or person without a certificate call certain methods, through any node. Whoever
/// has the token can do so until it expires: give it the narrowest scope and the shortest life that do. A
/// token whose scope names p2p.v1.AuthService/IssueToken can issue others, with no more scope or life than
/// its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl token issue --subject ci --scope shop.Orders/Get --scope 'shop.Stock/*'
  p2pctl token issue --subject ci --scope 'shop.*' --ttl 1h | tee ci.token
  p2pctl token issue --subject viewer --scope p2p.v1.ClusterService/ListNodes
  p2pctl --token @ci.token token issue --subject ci-job-7 \\
      --scope shop.Orders/Get --ttl 10m")]
pub(crate) struct IssueArgs {
    /// For whom: what services, logs and revocations call its bearer
    #[arg(long, value_name = "NAME")]
    subject: Subject,
    /// Methods that it may call: shop.Orders/Get, 'shop.Orders/*', 'shop.*' or '*'; the last two never
    /// mean p2p. and grpc. services
    #[arg(long, value_name = "GLOB", required = true)]
    scope: Vec<String>,
    /// How long it can be used, as in 15m, 24h or 30d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = ttl)]
    ttl: Duration,
}

/// What scripts see.
#[derive(Serialize)]
struct Issued<'a> {
    token: &'a str,
    #[serde(flatten)]
    info: &'a AccessTokenInfo,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = p2p_node::config::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < Duration::from_secs(1) {
        Err("write a time of at least 1s, as in 24h".to_owned())
    } else {
        Ok(ttl)
    }
}

/// Runs the verb.
pub(crate) async fn run(args: &IssueArgs, session: &Session<'_>, output: &Output) -> Outcome {
    // One --scope may hold several globs, as the token itself does.
    let globs: Vec<&str> = args.scope.iter().flat_map(|text| text.split_whitespace()).collect();
    let scope = Scope::parse(&globs).map_err(|error| Failure::usage(format!("--scope: {error}")))?;
    let request = IssueTokenRequest {
        subject: args.subject.to_string(),
        scope: scope.globs().iter().map(ToString::to_string).collect(),
        ttl_seconds: args.ttl.as_secs(),
    };
    let issue = async |connection: &Connection| connection.issue_token(request.clone()).await;
    let issued = session.at_coordinator(output, issue).await?;
    let info = issued.info.unwrap_or_default();
    output.note(&hint(&info, unix_now()));
    let body = Issued { token: &issued.token, info: &info };
    output.object("AccessToken", &body, |_| format!("{}\n", issued.token))?;
    Ok(Exit::Success)
}

fn hint(info: &AccessTokenInfo, now: i64) -> String {
    format!(
        "{} can call {} with it, it expires {}; its id is {}\nIt is a secret. Show it with --token, or as \
         `authorization: Bearer TOKEN`",
        info.subject,
        info.scope.join(", "),
        relative(info.expires_at.as_ref(), now),
        info.jti
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::Timestamp;

    #[test]
    fn the_hint_says_who_may_do_what_until_when() {
        let info = AccessTokenInfo {
            jti: "ab".into(),
            subject: "ci".into(),
            scope: vec!["shop.*".into(), "bank.Ledger/Read".into()],
            expires_at: Some(Timestamp { seconds: 3_700, nanos: 0 }),
            ..AccessTokenInfo::default()
        };
        let hint = hint(&info, 100);
        assert!(
            hint.starts_with(
                "ci can call shop.*, bank.Ledger/Read with it, it expires in 1h; its id is ab\n"
            ),
            "{hint}"
        );
    }
}
