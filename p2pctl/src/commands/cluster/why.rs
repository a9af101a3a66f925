//! `p2pctl cluster why`

use super::evidence::{change, time};
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
use p2p_proto::v1::WhyResponse;

/// Says why the answering node takes a member to be alive, suspect, down or left
///
/// Use it when a node is suspect or down and you want to know on what grounds: a probe that failed and who was asked to
/// help, a refused connection, another member's word, the time that ran out, or how it came back. The last 16 pieces of
/// evidence are kept. Another node may have its own: ask it with --endpoint.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster why worker-3
  p2pctl cluster why worker-3 -o json | jq -r '.evidence[-1].reason'")]
pub(crate) struct WhyArgs {
    /// Id of the node, as `cluster nodes` shows it
    #[arg(value_name = "NODE")]
    node: p2p_core::NodeId,
}

/// Runs the verb.
pub(crate) async fn run(args: &WhyArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let why = connection.why(args.node.as_str()).await.map_err(|error| session.call_failure(&error))?;
    output.object("Why", &why, |output| text(&why, output, unix_now()))?;
    Ok(Exit::Success)
}

fn text(why: &WhyResponse, output: &Output, now: i64) -> String {
    let state = if why.evicted { "evicted" } else { why.state().word() };
    let since = why.since.as_ref().map(ToString::to_string).unwrap_or_default();
    let ago = relative(why.since.as_ref(), now);
    let summary = format!("{} is {state} since {since} ({ago}), as {} sees it.\n", why.node_id, why.seen_by);
    if why.evidence.is_empty() {
        let reason = if why.node_id == why.seen_by {
            "It is the node that answers; ask another one about it."
        } else {
            "Nothing is kept that speaks for or against it."
        };
        return format!("{summary}{reason}\n");
    }
    let mut table = Table::new(&["TIME", "AGO", "STATE", "WHY"]);
    for evidence in &why.evidence {
        table.row(vec![
            time(evidence).into(),
            relative(evidence.at.as_ref(), now).into(),
            change(evidence, 0),
            evidence.reason.as_str().into(),
        ]);
    }
    format!("{summary}\n{}", output.render(&table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use p2p_proto::{
        Timestamp,
        v1::{Evidence, MemberState},
    };

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 250_000_000 })
    }

    #[test]
    fn the_state_and_its_evidence_read_as_sentences() {
        let evidence = |seconds, from: MemberState, to: MemberState, reason: &str| Evidence {
            at: at(seconds),
            node_id: "worker-3".into(),
            from: from.into(),
            to: to.into(),
            reason: reason.into(),
            ..Evidence::default()
        };
        let why = WhyResponse {
            node_id: "worker-3".into(),
            state: MemberState::Down.into(),
            since: at(1_004),
            seen_by: "coordinator-1".into(),
            evidence: vec![
                evidence(900, MemberState::Unspecified, MemberState::Alive, "first heard of, from worker-1"),
                evidence(1_001, MemberState::Alive, MemberState::Suspect, "worker-1 says so"),
                evidence(1_002, MemberState::Suspect, MemberState::Suspect, "no answer"),
                evidence(1_004, MemberState::Suspect, MemberState::Down, "it did not refute"),
            ],
            ..WhyResponse::default()
        };
        let output = Output::new(Format::Table);
        assert_eq!(
            text(&why, &output, 1_010),
            "\
worker-3 is down since 1970-01-01T00:16:44.250Z (6s ago), as coordinator-1 sees it.

TIME                      AGO     STATE             WHY
1970-01-01T00:15:00.250Z  1m ago  new -> alive      first heard of, from worker-1
1970-01-01T00:16:41.250Z  9s ago  alive -> suspect  worker-1 says so
1970-01-01T00:16:42.250Z  8s ago  suspect           no answer
1970-01-01T00:16:44.250Z  6s ago  suspect -> down   it did not refute
"
        );
    }

    #[test]
    fn a_node_says_of_itself_that_others_must_be_asked() {
        let why = WhyResponse {
            node_id: "w1".into(),
            seen_by: "w1".into(),
            state: MemberState::Alive.into(),
            since: at(5),
            ..WhyResponse::default()
        };
        assert_eq!(
            text(&why, &Output::new(Format::Table), 5),
            "w1 is alive since 1970-01-01T00:00:05.250Z (0s ago), as w1 sees it.\n\
             It is the node that answers; ask another one about it.\n"
        );
    }
}
