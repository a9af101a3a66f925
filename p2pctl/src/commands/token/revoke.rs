//! `p2pctl token revoke`

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
use p2p_core::Subject;
use p2p_proto::{
    Timestamp,
    v1::{RevocationInfo, RevokeSubject, RevokeTokenRequest, revoke_token_request::What},
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Takes access tokens back, everywhere and for good
///
/// Use it when a token went to the wrong place, or when all tokens of somebody must end. It is on a coordinator's
/// disk when it is answered, and in force on every node within a second: calls with the token are refused, and
/// connections over which it was shown are closed. It takes an admin's certificate. Name one of --jti, --token and
/// --subject.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl token revoke --jti 6f0d2c1e9b8a47d5a3c4e5f600112233
  p2pctl token revoke --token @leaked.token
  p2pctl token revoke --subject ci
  p2pctl token revoke --subject ci --before 2h")]
pub(crate) struct RevokeArgs {
    /// Id of the token, as `token inspect` shows it
    #[arg(long, value_name = "ID", conflicts_with = "subject")]
    jti: Option<String>,
    /// All tokens of this subject that have been issued, and that are within the next minute
    #[arg(long, value_name = "NAME")]
    subject: Option<Subject>,
    /// All that will be issued before then, too: a time as in 2026-12-24T18:00:00Z, or one from now, as in 2h
    #[arg(long, value_name = "TIME", requires = "subject", conflicts_with = "jti", value_parser = before)]
    before: Option<i64>,
}

/// What scripts see.
#[derive(Serialize)]
struct Revoked<'a> {
    what: &'a str,
    name: &'a str,
    before: Option<String>,
    expires_at: Option<String>,
}

fn time(at: &Option<Timestamp>) -> Option<String> {
    at.as_ref().map(|at| rfc3339(at.seconds))
}

/// Unix seconds.
fn before(text: &str) -> Result<i64, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        let time = time.unix_timestamp();
        return if time > unix_now() { Ok(time) } else { Err("it must lie ahead".to_owned()) };
    }
    let ahead = p2p_node::config::parse_duration(text)
        .map_err(|_| "write a time as in 2026-12-24T18:00:00Z, or how far ahead, as in 2h".to_owned())?;
    Ok(unix_now().saturating_add_unsigned(ahead.as_secs()))
}

/// Runs the verb.
pub(crate) async fn run(args: &RevokeArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let request = RevokeTokenRequest { what: Some(what(args, session)?) };
    let revoke = async |connection: &Connection| connection.revoke_token(request.clone()).await;
    let info = session.at_coordinator_without_token(output, revoke).await?;
    let body = Revoked {
        what: &info.kind,
        name: &info.name,
        before: time(&info.before),
        expires_at: time(&info.expires_at),
    };
    output.object("Revocation", &body, |_| sentence(&info, unix_now()))?;
    Ok(Exit::Success)
}

fn what(args: &RevokeArgs, session: &Session<'_>) -> Result<What, Failure> {
    if let Some(subject) = &args.subject {
        let before = u64::try_from(args.before.unwrap_or(0)).unwrap_or(0);
        return Ok(What::Subject(RevokeSubject { subject: subject.to_string(), before }));
    }
    if let Some(jti) = &args.jti {
        return Ok(What::Jti(jti.clone()));
    }
    match &session.global().token {
        Some(source) => Ok(What::Token(source.read()?)),
        None => Err(Failure::usage("name what to revoke: --jti ID, --token TOKEN or --subject NAME")),
    }
}

fn sentence(info: &RevocationInfo, now: i64) -> String {
    let until = relative(info.expires_at.as_ref(), now);
    match info.before.as_ref() {
        Some(before) => format!(
            "revoked all tokens of {} issued before {}; kept until the last of them has expired, {until}\n",
            info.name,
            rfc3339(before.seconds),
        ),
        None => format!("revoked token {}; kept until it has expired, {until}\n", info.name),
    }
}

/// The time as people write it; nothing for one that no calendar has.
pub(super) fn rfc3339(unix_s: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_a_distance() {
        assert_eq!(before("2126-12-24T18:00:00Z"), Ok(4_953_808_800));
        let hour = before("1h").expect("a distance") - unix_now();
        assert!((3_599..=3_601).contains(&hour), "{hour}");
        for bad in ["", "yesterday", "2026-12-24", "-1h", "2020-01-01T00:00:00Z"] {
            assert!(before(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_answer_says_what_is_revoked_and_until_when() {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let token = RevocationInfo {
            kind: "token".into(),
            name: "ab".into(),
            before: None,
            expires_at: time(86_400),
        };
        assert_eq!(sentence(&token, 0), "revoked token ab; kept until it has expired, in 1d\n");
        let subject = RevocationInfo { kind: "subject".into(), name: "ci".into(), before: time(60), ..token };
        assert_eq!(
            sentence(&subject, 0),
            "revoked all tokens of ci issued before 1970-01-01T00:01:00Z; kept until the last of them has expired, \
             in 1d\n"
        );
    }
}
