//! `p2pctl top`: the cluster on one screen.
//!
//! | module | what it holds |
//! |---|---|
//! | [`source`] | asks the cluster; sends updates |
//! | [`model`] | what is known, from updates |
//! | [`history`] | a node's latest answers, and the rates that follow |
//! | [`rows`] | which rows are shown, sorted and filtered |
//! | [`view`] | what the user chose, from keys |
//! | [`draw`] | from model and view to a picture in a buffer |
//! | [`units`] | figures as text |
//! | [`terminal`] | the terminal, taken and given back |
//! | [`live`] `once` | what moves all of it: until a key says stop, or for one picture |
//!
//! Only `source`, `live` and `terminal` do I/O.

mod draw;
mod history;
mod live;
mod model;
mod once;
mod rows;
mod source;
mod terminal;
mod units;
mod view;

use crate::{
    error::{Failure, Outcome},
    output::{Output, time::unix_now},
    session::Session,
};
use clap::Args;
use draw::{Paint, Setting};
use rows::SortBy;
use source::Source;
use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};
use view::View;

/// The width of a picture where there is no terminal, and COLUMNS does not say.
const WIDTH: u16 = 120;

/// How often nodes may be asked. Rate limits allow 100 generic calls a minute by default.
const INTERVAL_LEAST: Duration = Duration::from_secs(1);
const INTERVAL_MOST: Duration = Duration::from_secs(60);

/// Shows the cluster on one screen, live: nodes with their figures, services with their providers, and what happened
///
/// Use it to watch a cluster during an update or an incident. It asks one node, which asks the others; when that node goes
/// away, it asks another one. Calls are those of your services, and of Echo; a routed call counts at the node where it
/// enters and at the one that serves it. Rates and P99 (of unary calls) are of the last five intervals. INTERVAL is the
/// pause between comparisons of records by gossip, GOSSIP/S its bytes both ways, CERT how long the certificate is still
/// valid. A dash stands for what a node did not tell: because it is down, had no calls, or runs a release that does not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl top
  p2pctl top --sort calls --filter zone-a
  p2pctl top --once
  p2pctl top --once -o json | jq '.nodes[] | {node_id, p99_seconds}'

Keys:
  q, Ctrl-C          quit
  Tab                the next list: nodes, services, events
  Up, Down, PgUp, PgDn, Home, End
                     another row; j, k, g and G do as well
  Enter              the row in full; Esc leads back
  s, S               sort nodes by the next column, or the one before
  r                  reverse the order
  /                  filter by name, state, role, zone, label or address;
                     Esc clears it")]
pub(crate) struct TopArgs {
    /// Print one picture and end; with -o json as data
    #[arg(long)]
    once: bool,
    /// What nodes are sorted by
    #[arg(long, value_name = "COLUMN", default_value = "state")]
    sort: SortBy,
    /// Only what contains this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Pause between questions, from 1s to 1m
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = p2p_node::config::parse_duration(text).map_err(|error| error.to_string())?;
    if !(INTERVAL_LEAST..=INTERVAL_MOST).contains(&interval) {
        return Err("write a time from 1s to 1m".to_owned());
    }
    Ok(interval)
}

/// Runs the verb.
pub(crate) async fn run(args: &TopArgs, session: &Session<'_>, output: &Output) -> Outcome {
    if !args.once {
        needs_terminal(output)?;
    }
    let view = View::new(args.sort, &args.filter);
    let mut setting = Setting {
        paint: Paint { color: output.color() },
        now: unix_now(),
        asking: String::new(),
        keys: !args.once,
    };
    let (source, first) = Source::open(session).await?;
    if args.once {
        return once::run(&source, first, view, &setting, width(), (session, output)).await;
    }
    setting.asking = format!("every {:?}", args.interval);
    live::run(&source, first, args.interval, view, setting).await
}

fn needs_terminal(output: &Output) -> Result<(), Failure> {
    if output.format().is_structured() {
        return Err(Failure::usage("-o json and -o yaml go with --once, which prints one picture"));
    }
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !stdout().is_terminal() || dumb {
        return Err(Failure::usage(
            "top draws on a terminal that can move its cursor, and stdout is none; --once prints one picture",
        ));
    }
    Ok(())
}

/// How wide a picture on paper is.
fn width() -> u16 {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen = || stdout().is_terminal().then(crossterm::terminal::size)?.ok().map(|(columns, _)| columns);
    said.or_else(seen).unwrap_or(WIDTH).max(draw::SMALLEST.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_bounded() {
        assert_eq!(interval("1m"), Ok(Duration::from_secs(60)));
        for bad in ["0s", "500ms", "61s", "fast"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
