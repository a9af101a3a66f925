//! `p2pctl cluster nodes`

use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Detail, Output,
        table::{Cell, Table, Tone},
        time::{relative, unix_now},
    },
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_proto::v1::{MemberState, NodeInfo};
use std::time::Duration;

/// Pause between two looks with --watch.
const LOOK: Duration = Duration::from_secs(1);
/// Has a terminal begin again at its upper left corner, with nothing on it.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";
/// How many service names the normal table shows.
const SERVICES_SHOWN: usize = 2;

/// From when on before its end a certificate is shown as a warning, in seconds. Nodes renew those of join tokens
/// ten days before.
pub(crate) const EXPIRES_SOON: i64 = 7 * 86_400;

/// Lists the members of the cluster as the answering node sees them
///
/// Use it first when something is wrong: it shows who is alive, suspect, down or has left, since when, and
/// how far away it is from the answering node.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster nodes
  p2pctl cluster nodes -o wide
  p2pctl cluster nodes --watch
  p2pctl cluster nodes -o json | jq -r \\
      '.items[] | select(.state == \"down\").node_id'")]
pub(crate) struct NodesArgs {
    /// Go on until Ctrl-C: on a terminal the list stays up to date, elsewhere it is printed again at each change
    #[arg(long)]
    watch: bool,
}

/// Runs the verb.
pub(crate) async fn run(args: &NodesArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    if !args.watch {
        let nodes = connection.list_nodes().await.map_err(|error| session.call_failure(&error))?;
        output.list("NodeList", &nodes, |detail| table(&nodes, detail, unix_now()))?;
        return Ok(Exit::Success);
    }
    tokio::select! {
        ended = watch(&connection, session, output) => ended,
        stop = tokio::signal::ctrl_c() => match stop {
            Ok(()) => Ok(Exit::Success),
            Err(error) => Err(Failure::other(format!("cannot await Ctrl-C: {error}"))),
        },
    }
}

async fn watch(connection: &Connection, session: &Session<'_>, output: &Output) -> Outcome {
    // Data is for programs, wherever it goes.
    let redraws = output.redraws() && !output.format().is_structured();
    let mut shown = None;
    loop {
        let nodes = connection.list_nodes().await.map_err(|error| session.call_failure(&error))?;
        let lasting = Some(nodes.iter().cloned().map(without_figures).collect::<Vec<_>>());
        if redraws {
            output.data(CLEAR)?;
        }
        if redraws || lasting != shown {
            output.next_list("NodeList", &nodes, |detail| table(&nodes, detail, unix_now()))?;
            shown = lasting;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The node without what changes from look to look.
fn without_figures(node: NodeInfo) -> NodeInfo {
    NodeInfo { rtt_ms: None, ..node }
}

fn table(nodes: &[NodeInfo], detail: Detail, now: i64) -> Table {
    let mut header = vec!["NODE", "ROLE", "STATE", "ADDRESS", "SERVICES", "RTT", "LAST CHANGE"];
    if detail == Detail::Wide {
        header.extend(["ZONE", "LABELS", "EPOCH", "VERSION", "CERT EXPIRES"]);
    }
    let mut table = Table::new(&header);
    for node in nodes {
        let mut row: Vec<Cell> = vec![
            node.node_id.as_str().into(),
            node.role.as_str().into(),
            Cell::new(if node.evicted { "evicted" } else { node.state().word() }, tone(node.state())),
            addresses(node, detail).into(),
            services(node, detail).into(),
            node.rtt_ms.map(|rtt| format!("{rtt:.1}ms")).unwrap_or_default().into(),
            relative(node.last_change.as_ref(), now).into(),
        ];
        if detail == Detail::Wide {
            let labels: Vec<String> =
                node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            row.extend::<[Cell; 5]>([
                node.zone.as_str().into(),
                labels.join(",").into(),
                node.epoch.to_string().into(),
                node.version.as_str().into(),
                expiry(node, now),
            ]);
        }
        table.row(row);
    }
    table
}

pub(crate) fn tone(state: MemberState) -> Tone {
    match state {
        MemberState::Alive => Tone::Good,
        MemberState::Suspect => Tone::Warn,
        MemberState::Down => Tone::Bad,
        MemberState::Left => Tone::Dim,
        MemberState::Unspecified => Tone::Plain,
    }
}

/// How long the certificate is still valid.
fn expiry(node: &NodeInfo, now: i64) -> Cell {
    let left = node.cert_expires_at.as_ref().map(|end| end.seconds.saturating_sub(now));
    let tone = match left {
        Some(..=0) => Tone::Bad,
        Some(1..=EXPIRES_SOON) => Tone::Warn,
        Some(_) | None => Tone::Plain,
    };
    let text = relative(node.cert_expires_at.as_ref(), now);
    Cell::new(if left.is_some_and(|left| left <= 0) { format!("expired {text}") } else { text }, tone)
}

fn addresses(node: &NodeInfo, detail: Detail) -> String {
    match detail {
        Detail::Normal => node.addresses.first().cloned().unwrap_or_default(),
        Detail::Wide => node.addresses.join(","),
    }
}

fn services(node: &NodeInfo, detail: Detail) -> String {
    let hidden = match detail {
        Detail::Normal => node.services.len().saturating_sub(SERVICES_SHOWN),
        Detail::Wide => 0,
    };
    let shown = node.services[..node.services.len() - hidden].join(",");
    if hidden > 0 { format!("{shown} +{hidden}") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::Timestamp;

    fn nodes() -> Vec<NodeInfo> {
        let coordinator = NodeInfo {
            node_id: "coordinator-1".into(),
            role: "coordinator".into(),
            state: MemberState::Alive.into(),
            addresses: vec!["127.0.0.1:8001".into()],
            services: vec!["p2p.v1.SystemService".into()],
            last_change: Some(Timestamp { seconds: 988, nanos: 0 }),
            ..NodeInfo::default()
        };
        let worker = NodeInfo {
            node_id: "worker-1".into(),
            role: "worker".into(),
            state: MemberState::Suspect.into(),
            addresses: vec!["127.0.0.1:8002".into(), "10.0.0.2:8002".into()],
            zone: "eu-1".into(),
            labels: [("rack".to_owned(), "b".to_owned())].into(),
            epoch: 7,
            version: "0.1.0".into(),
            services: vec!["a.A".into(), "b.B".into(), "c.C".into(), "d.D".into()],
            rtt_ms: Some(0.42),
            last_change: Some(Timestamp { seconds: 400, nanos: 0 }),
            cert_expires_at: Some(Timestamp { seconds: 1_000 + 30 * 86_400, nanos: 0 }),
            evicted: false,
        };
        vec![coordinator, worker]
    }

    #[test]
    fn the_table_reads_as_the_contract_says() {
        assert_eq!(
            table(&nodes(), Detail::Normal, 1_000).render(false),
            "\
NODE           ROLE         STATE    ADDRESS         SERVICES              RTT    LAST CHANGE
coordinator-1  coordinator  alive    127.0.0.1:8001  p2p.v1.SystemService  -      12s ago
worker-1       worker       suspect  127.0.0.1:8002  a.A,b.B +2            0.4ms  10m ago
"
        );
    }

    #[test]
    fn the_wide_table_hides_nothing() {
        let wide = table(&nodes(), Detail::Wide, 1_000).render(false);
        let columns = |line: &str| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).count();
        assert!(wide.lines().all(|line| columns(line) == 12), "{wide}");
        for text in ["ZONE", "CERT EXPIRES", "rack=b", "10.0.0.2:8002", "d.D", "in 30d", "eu-1"] {
            assert!(wide.contains(text), "{text} is missing:\n{wide}");
        }
    }

    #[test]
    fn a_certificate_that_ends_soon_or_has_ended_stands_out() {
        let node = |seconds| NodeInfo {
            cert_expires_at: Some(Timestamp { seconds, nanos: 0 }),
            ..NodeInfo::default()
        };
        assert_eq!(expiry(&node(8 * 86_400), 0), Cell::new("in 8d", Tone::Plain));
        assert_eq!(expiry(&node(7 * 86_400), 0), Cell::new("in 7d", Tone::Warn));
        assert_eq!(expiry(&node(0), 2 * 86_400), Cell::new("expired 2d ago", Tone::Bad));
        assert_eq!(expiry(&NodeInfo::default(), 0), Cell::new("", Tone::Plain));
    }
}
