//! `p2pctl token revocations`

use super::revoke::rfc3339;
use crate::{
    error::{Exit, Outcome},
    output::{
        Output,
        table::Table,
        time::{relative, unix_now},
    },
    session::Session,
};
use clap::Args;
use p2p_proto::v1::RevocationInfo;

/// Lists what is revoked, as the answering node enforces it: tokens, subjects and evicted nodes
///
/// Use it to see whether a revocation has arrived at a node. An entry vanishes some minutes after the last token that it
/// forbids has expired; evictions stay until the node is readmitted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl token revocations
  p2pctl --endpoint worker-1:8001 token revocations -o json | jq '.items[].name'")]
pub(crate) struct RevocationsArgs {}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let listed = connection.list_revocations().await.map_err(|error| session.call_failure(&error))?;
    if listed.truncated {
        output.note("There are more tokens or subjects than are shown");
    }
    output.list("RevocationList", &listed.revocations, |_| table(&listed.revocations, unix_now()))?;
    Ok(Exit::Success)
}

fn table(revocations: &[RevocationInfo], now: i64) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "ISSUED BEFORE", "KEPT UNTIL"]);
    for revocation in revocations {
        let before = revocation.before.as_ref().map(|before| rfc3339(before.seconds)).unwrap_or_default();
        let end = match (&revocation.expires_at, revocation.kind.as_str()) {
            (None, "node") => "readmitted".to_owned(),
            (end, _) => relative(end.as_ref(), now),
        };
        table.row(vec![
            revocation.kind.as_str().into(),
            revocation.name.as_str().into(),
            before.into(),
            end.into(),
        ]);
    }
    table
}
