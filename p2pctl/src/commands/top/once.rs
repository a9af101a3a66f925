//! One picture as text or JSON, for scripts.

use super::{
    draw::{self, Setting},
    model::{Model, Occurrence, Question, Update},
    rows,
    source::Source,
    view::View,
};
use crate::{
    error::{Exit, Outcome},
    output::Output,
    session::Session,
};
use p2p_proto::v1::{Evidence, NodeInfo, ServiceInfo};
use ratatui::{buffer::Buffer, layout::Rect};
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;

/// Rates need two answers.
const BETWEEN: Duration = Duration::from_secs(1);
/// How many events it shows.
const EVENTS: usize = 10;

/// What scripts read.
#[derive(Serialize)]
struct Picture<'a> {
    cluster_id: &'a str,
    seen_by: &'a str,
    problems: &'a [String],
    /// Why something is missing.
    trouble: Option<&'a str>,
    nodes: Vec<NodeFigures<'a>>,
    services: Vec<&'a ServiceInfo>,
    events: Vec<&'a Evidence>,
}

/// A node; what it did not tell is null.
#[derive(Serialize)]
struct NodeFigures<'a> {
    #[serde(flatten)]
    node: &'a NodeInfo,
    calls_per_second: Option<f64>,
    errors_per_second: Option<f64>,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    gossip_interval_seconds: Option<f64>,
    gossip_sent_bytes_per_second: Option<f64>,
    gossip_received_bytes_per_second: Option<f64>,
    process_cpu_ratio: Option<f64>,
    process_resident_memory_bytes: Option<u64>,
    /// Why it told nothing.
    no_answer: Option<&'a str>,
}

/// Looks twice, and prints what follows.
pub(super) async fn run(
    source: &Source,
    first: Vec<Update>,
    mut view: View,
    setting: &Setting,
    width: u16,
    (session, output): (&Session<'_>, &Output),
) -> Outcome {
    let mut model = Model::default();
    first.into_iter().for_each(|update| model.update(update));
    ask_nodes(source, &mut model).await;
    tokio::time::sleep(BETWEEN).await;
    ask_nodes(source, &mut model).await;
    let past = source.past().await.map_err(|error| session.call_failure(&error))?;
    let early = past.len().saturating_sub(EVENTS);
    past.into_iter().skip(early).for_each(|event| model.update(event));

    let picture = picture(&model, &view);
    output.object("Top", &picture, |_| text(&model, &mut view, setting, width))?;
    Ok(Exit::Success)
}

async fn ask_nodes(source: &Source, model: &mut Model) {
    let (sender, mut updates) = mpsc::channel(1);
    let asked = async {
        let asked = source.nodes(&sender).await;
        drop(sender);
        asked
    };
    let heard = async {
        while let Some(update) = updates.recv().await {
            model.update(update);
        }
    };
    let (asked, ()) = tokio::join!(asked, heard);
    model.update(Update::Trouble(Question::Nodes, asked.err().map(|error| error.to_string())));
}

fn text(model: &Model, view: &mut View, setting: &Setting, width: u16) -> String {
    let area = Rect::new(0, 0, width, draw::lines(model, view).max(draw::SMALLEST.1));
    let mut buffer = Buffer::empty(area);
    draw::draw(&mut buffer, area, model, view, setting);
    let line = |y| {
        let cells = (0..area.width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    let lines: Vec<String> = (0..area.height).map(line).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

fn picture<'a>(model: &'a Model, view: &View) -> Picture<'a> {
    let nodes = rows::nodes(model, view.sort, view.reversed, &view.filter);
    let events = rows::events(model, &view.filter).into_iter().filter_map(|happened| match &happened.what {
        Occurrence::Evidence(evidence) => Some(evidence),
        Occurrence::Missed(_) => None,
    });
    Picture {
        cluster_id: &model.status.cluster_id,
        seen_by: &model.status.node_id,
        problems: &model.status.problems,
        trouble: model.trouble(),
        nodes: nodes.into_iter().map(|node| figures(model, node)).collect(),
        services: rows::services(model, &view.filter),
        events: events.collect(),
    }
}

fn figures<'a>(model: &'a Model, node: &'a NodeInfo) -> NodeFigures<'a> {
    let (rates, told) = (model.rates(&node.node_id), model.told(&node.node_id));
    let latest = told.and_then(|told| told.history.latest());
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    NodeFigures {
        node,
        calls_per_second: rates.calls,
        errors_per_second: rates.errors,
        p50_seconds: seconds(rates.p50),
        p99_seconds: seconds(rates.p99),
        gossip_interval_seconds: latest
            .and_then(|latest| Some(latest.traffic.as_ref()?.gossip_interval_seconds)),
        gossip_sent_bytes_per_second: rates.sent,
        gossip_received_bytes_per_second: rates.received,
        process_cpu_ratio: rates.cpu,
        process_resident_memory_bytes: latest.map(|latest| latest.process_resident_memory_bytes),
        no_answer: told.and_then(|told| told.silent.as_deref()),
    }
}
