//! `p2pctl cluster status`

use crate::{
    error::{Exit, Outcome},
    output::{
        Output,
        table::{Cell, Table, Tone},
    },
    session::Session,
};
use clap::Args;
use p2p_proto::v1::ClusterStatus;

/// Sums the cluster up: members by state, coordinators, services, and what is wrong
///
/// Use it in cron and dashboards: exit code 0 means no problems, 6 means that some are listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster status
  p2pctl cluster status -o json | jq '.problems'")]
pub(crate) struct StatusArgs {}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let status = connection.cluster_status().await.map_err(|error| session.call_failure(&error))?;
    output.object("ClusterStatus", &status, |output| output.render(&table(&status)))?;
    Ok(exit(&status))
}

fn exit(status: &ClusterStatus) -> Exit {
    if status.problems.is_empty() { Exit::Success } else { Exit::Degraded }
}

fn table(status: &ClusterStatus) -> Table {
    let mut lines = Table::lines("");
    let (word, tone) =
        if status.problems.is_empty() { ("healthy", Tone::Good) } else { ("degraded", Tone::Warn) };
    let ClusterStatus { alive, suspect, down, left, .. } = status;
    lines.row(vec!["cluster".into(), status.cluster_id.as_str().into()]);
    lines.row(vec!["status".into(), Cell::new(word, tone)]);
    lines.row(vec![
        "members".into(),
        format!("{alive} alive, {suspect} suspect, {down} down, {left} left").into(),
    ]);
    lines.row(vec!["coordinators".into(), status.coordinators.to_string().into()]);
    lines.row(vec!["services".into(), status.services.to_string().into()]);
    lines.row(vec!["seen by".into(), status.node_id.as_str().into()]);
    for problem in &status.problems {
        lines.row(vec!["problem".into(), Cell::new(problem.as_str(), Tone::Warn)]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_listed_and_change_the_exit_code() {
        let mut status = ClusterStatus {
            cluster_id: "p2p-dev".into(),
            node_id: "coordinator-1".into(),
            alive: 3,
            coordinators: 1,
            services: 2,
            ..ClusterStatus::default()
        };
        assert_eq!(exit(&status), Exit::Success);
        status.problems.push("worker-2 is down".into());
        assert_eq!(exit(&status), Exit::Degraded);
        assert_eq!(
            table(&status).render(false),
            "\
cluster       p2p-dev
status        degraded
members       3 alive, 0 suspect, 0 down, 0 left
coordinators  1
services      2
seen by       coordinator-1
problem       worker-2 is down
"
        );
    }
}
