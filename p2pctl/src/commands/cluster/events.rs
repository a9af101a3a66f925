//! `p2pctl cluster events`

use super::evidence::{change, time};
use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, table::Table},
    session::Session,
};
use clap::Args;
use p2p_client::Events;
use p2p_proto::v1::{Evidence, events_response::Event};
use serde::Serialize;

/// Width of the column of changes: "suspect -> alive" is the longest.
const CHANGE_WIDTH: usize = 16;
/// Width of the column of node ids while events are followed; longer ids push their line.
const NODE_WIDTH: usize = 16;

/// Shows what the answering node came to know of members, oldest first: who was suspected, went down, came back, and why
///
/// Use it to see what happened in the cluster and in which order, or to watch it during an update. A node keeps the last
/// 4096 events, at most 16 about each member, and none from before its own start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster events
  p2pctl cluster events --follow
  p2pctl cluster events -o json | jq -r \\
      '.items[] | select(.to == \"down\").node_id'

With --follow, -o json prints one object a line. A line that says how many events were missed means that the reader was \
too slow.")]
pub(crate) struct EventsArgs {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// What scripts see of a gap.
#[derive(Serialize)]
struct Missed {
    missed: u64,
}

/// Runs the verb.
pub(crate) async fn run(args: &EventsArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let events = connection.events(args.follow).await.map_err(|error| session.call_failure(&error))?;
    if !args.follow {
        let all = collect(events, session).await?;
        output.list("EventList", &all, |_| table(&all))?;
        return Ok(Exit::Success);
    }
    tokio::select! {
        followed = follow(events, session, output) => followed,
        stop = tokio::signal::ctrl_c() => match stop {
            Ok(()) => Ok(Exit::Success),
            Err(error) => Err(Failure::other(format!("cannot await Ctrl-C: {error}"))),
        },
    }
}

async fn collect(mut events: Events, session: &Session<'_>) -> Result<Vec<Evidence>, Failure> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await.map_err(|error| session.call_failure(&error))? {
        match event.event {
            Some(Event::Evidence(evidence)) => all.push(evidence),
            // Of what is kept nothing is missed, and a kind that a newer release sends is passed over.
            Some(Event::Missed(_)) | None => {}
        }
    }
    Ok(all)
}

async fn follow(mut events: Events, session: &Session<'_>, output: &Output) -> Outcome {
    while let Some(event) = events.next().await.map_err(|error| session.call_failure(&error))? {
        match event.event {
            Some(Event::Evidence(evidence)) => {
                output.next("Event", &evidence, |output| output.render(&line(&evidence)))?;
            }
            Some(Event::Missed(missed)) => {
                let text = format!("{missed} events were missed: this reader was too slow\n");
                output.next("Missed", &Missed { missed }, |_| text)?;
            }
            None => {}
        }
    }
    Err(Failure::unreachable(format!("{} has stopped", session.global().endpoint)))
}

fn table(events: &[Evidence]) -> Table {
    let mut table = Table::new(&["TIME", "NODE", "STATE", "WHY"]);
    for event in events {
        let cells = [time(event).into(), event.node_id.as_str().into(), change(event, 0)];
        table.row([cells.as_slice(), &[event.reason.as_str().into()]].concat());
    }
    table
}

/// One event, in columns as wide as those of the lines before it.
fn line(event: &Evidence) -> Table {
    let mut table = Table::lines("");
    let node = format!("{:<NODE_WIDTH$}", event.node_id);
    table.row(vec![
        time(event).into(),
        node.into(),
        change(event, CHANGE_WIDTH),
        event.reason.as_str().into(),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::{Timestamp, v1::MemberState};

    fn event(node: &str, from: MemberState, to: MemberState) -> Evidence {
        Evidence {
            at: Some(Timestamp { seconds: 1, nanos: 5_000_000 }),
            node_id: node.into(),
            from: from.into(),
            to: to.into(),
            reason: "w1 says so".into(),
            ..Evidence::default()
        }
    }

    #[test]
    fn events_are_a_table_and_followed_ones_align_with_each_other() {
        let events = [
            event("worker-3", MemberState::Alive, MemberState::Suspect),
            event("worker-3", MemberState::Suspect, MemberState::Down),
        ];
        assert_eq!(
            table(&events).render(false),
            "\
TIME                      NODE      STATE             WHY
1970-01-01T00:00:01.005Z  worker-3  alive -> suspect  w1 says so
1970-01-01T00:00:01.005Z  worker-3  suspect -> down   w1 says so
"
        );
        let lines: Vec<String> = events.iter().map(|event| line(event).render(false)).collect();
        assert_eq!(
            lines,
            [
                "1970-01-01T00:00:01.005Z  worker-3          alive -> suspect  w1 says so\n",
                "1970-01-01T00:00:01.005Z  worker-3          suspect -> down   w1 says so\n",
            ]
        );
    }
}
