//! Taking access tokens back, at a coordinator, and what is revoked, anywhere.

use super::{Parts, coordinator_only};
use crate::{
    error::{Fault, Reason},
    gossip::Revoke,
    identity::UnixTime,
    token::{LEEWAY, TokenRefusal, issuer::MAX_TTL},
};
use p2p_core::{Principal, Subject, revocation::EXPIRY_GRACE};
use p2p_proto::{
    Timestamp,
    v1::{
        ListRevocationsResponse, Revocation, RevocationInfo, RevokeSubject, RevokeTokenRequest,
        RevokeTokenResponse, SubjectRevocation, revocation::What, revoke_token_request::What as Asked,
    },
};

/// How far ahead of now the revocation of a subject reaches at least, in seconds: tokens that are just being issued
/// elsewhere, by a clock that is ahead, are met.
const MIN_AHEAD: u64 = 60;
/// Most tokens, and most subjects, in one answer.
const LIST_LIMIT: usize = 10_000;
/// Longest `jti`, in bytes.
const MAX_JTI_LEN: usize = 64;

/// Revokes what is asked for.
pub(super) async fn revoke(
    parts: &Parts,
    request: RevokeTokenRequest,
    by: &Principal,
) -> Result<RevokeTokenResponse, Fault> {
    coordinator_only(parts)?;
    let entry = entry(parts, request, UnixTime::now())?;
    let info = info(&entry);
    parts.gossip.revoke(Revoke::Entry(entry)).await?;
    tracing::warn!(kind = info.kind, name = info.name, %by, "revoked");
    Ok(RevokeTokenResponse { revocation: Some(info) })
}

/// What is to be revoked, for the audit log: a token that was shown whole is not repeated.
pub(super) fn named(request: &RevokeTokenRequest) -> String {
    match &request.what {
        None => "nothing".to_owned(),
        Some(Asked::Jti(jti)) => format!("token {jti}"),
        Some(Asked::Token(_)) => "a token that was shown".to_owned(),
        Some(Asked::Subject(RevokeSubject { subject, .. })) => format!("subject {subject}"),
    }
}

fn entry(parts: &Parts, request: RevokeTokenRequest, now: UnixTime) -> Result<Revocation, Fault> {
    let invalid = |why: String| Fault::new(Reason::InvalidArgument, why);
    // No token that is out there outlives it; the store keeps it some minutes longer.
    let longest = now.as_secs() + MAX_TTL.as_secs() + LEEWAY;
    match request.what {
        None => Err(invalid("name a jti, a token or a subject".to_owned())),
        Some(Asked::Jti(jti)) => {
            let fine =
                (1..=MAX_JTI_LEN).contains(&jti.len()) && jti.bytes().all(|byte| byte.is_ascii_graphic());
            if !fine {
                return Err(invalid("jti: a token's id is 1 to 64 visible ASCII characters".to_owned()));
            }
            Ok(Revocation { expires_at: longest, what: Some(What::Token(jti)) })
        }
        Some(Asked::Token(token)) => match parts.router.auth().verifier().verify(&token, now) {
            Ok(token) => Ok(Revocation {
                expires_at: token.expires_at + LEEWAY,
                what: Some(What::Token(token.holder.jti.to_string())),
            }),
            Err(TokenRefusal::Revoked) => {
                Err(Fault::new(Reason::Precondition, "the token is revoked already"))
            }
            Err(refusal) => Err(invalid(format!("nothing to revoke: {refusal}"))),
        },
        Some(Asked::Subject(RevokeSubject { subject, before })) => {
            let subject: Subject = subject.parse().map_err(|error| invalid(format!("subject: {error}")))?;
            if before > longest {
                return Err(invalid("before: at most 30d ahead".to_owned()));
            }
            let before = before.max(now.as_secs() + MIN_AHEAD);
            let revocation = SubjectRevocation { subject: subject.to_string(), before };
            let expires_at = before + MAX_TTL.as_secs() + LEEWAY;
            Ok(Revocation { expires_at, what: Some(What::Subject(revocation)) })
        }
    }
}

/// What this node enforces.
pub(super) fn list(parts: &Parts) -> ListRevocationsResponse {
    let listed = parts.revocations.list(LIST_LIMIT);
    let tokens = listed.tokens.into_iter().map(|(id, expires_at)| row("token", id, 0, expires_at));
    let subjects = listed
        .subjects
        .into_iter()
        .map(|(name, before, expires_at)| row("subject", name, before, expires_at));
    let nodes = listed.nodes.into_iter().map(|node| row("node", node.to_string(), 0, 0));
    ListRevocationsResponse {
        revocations: tokens.chain(subjects).chain(nodes).collect(),
        truncated: listed.truncated,
    }
}

fn info(entry: &Revocation) -> RevocationInfo {
    match &entry.what {
        Some(What::Token(id)) => row("token", id.clone(), 0, entry.expires_at),
        Some(What::Subject(subject)) => {
            row("subject", subject.subject.clone(), subject.before, entry.expires_at)
        }
        Some(What::Node(node)) => row("node", node.node_id.clone(), 0, entry.expires_at),
        None => RevocationInfo::default(),
    }
}

/// A time of 0 is none. The end is that of the entry itself, some minutes after what it forbids.
fn row(kind: &str, name: String, before: u64, expires_at: u64) -> RevocationInfo {
    let time = |seconds: u64| {
        (seconds != 0).then(|| Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 })
    };
    let end = if expires_at == 0 { 0 } else { expires_at.saturating_add(EXPIRY_GRACE.as_secs()) };
    RevocationInfo { kind: kind.to_owned(), name, before: time(before), expires_at: time(end) }
}
