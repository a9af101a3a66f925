//! One node or service in full.

use super::{
    super::{
        model::{Model, Occurrence, Told},
        units,
        view::Detail,
    },
    Setting, Tone, events,
    grid::{Cell, Column, grid},
    nodes, put,
};
use crate::{
    commands::{cluster::nodes::tone, services::list},
    output::{NOTHING, time},
};
use p2p_proto::v1::{CircuitState, GetMetricsResponse, NodeInfo, ServiceInfo};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    symbols::bar,
};

/// Width of the names of facts.
const NAME_WIDTH: u16 = 13;

pub(super) fn draw(buffer: &mut Buffer, area: Rect, of: &Detail, model: &Model, setting: &Setting) {
    let mut page = Page { buffer, area, setting };
    match of {
        Detail::Node(id) => match model.nodes.iter().find(|node| node.node_id == *id) {
            Some(node) => page.node(node, model),
            None => page.title(&format!("{id} is no member now")),
        },
        Detail::Service(name) => match model.services.iter().find(|service| service.name == *name) {
            Some(service) => page.service(service),
            None => page.title(&format!("nobody provides {name} now")),
        },
    }
}

/// Lines from top to bottom, as far as there is room.
struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    setting: &'a Setting,
}

impl Page<'_> {
    fn next_line(&mut self) -> Rect {
        let line = Rect { height: self.area.height.min(1), ..self.area };
        self.area = Rect { y: line.bottom(), height: self.area.height - line.height, ..self.area };
        line
    }

    fn title(&mut self, text: &str) {
        let line = self.next_line();
        put(self.buffer, line, text, false, Style::new().add_modifier(Modifier::BOLD));
    }

    fn fact(&mut self, name: &str, text: &str, tone: Tone) {
        let line = self.next_line();
        let left = NAME_WIDTH.min(line.width);
        put(self.buffer, Rect { width: left, ..line }, name, false, self.setting.paint.style(Tone::Dim));
        let text = if text.is_empty() { NOTHING } else { text };
        let rest = Rect { x: line.x + left, width: line.width - left, ..line };
        put(self.buffer, rest, text, false, self.setting.paint.style(tone));
    }

    fn node(&mut self, node: &NodeInfo, model: &Model) {
        let now = self.setting.now;
        let since = time::relative(node.last_change.as_ref(), now);
        self.title(&node.node_id);
        self.fact("state", &format!("{}, since {since}", nodes::state(node)), tone(node.state()));
        let zone = if node.zone.is_empty() { String::new() } else { format!(", zone {}", node.zone) };
        self.fact("role", &format!("{}{zone}, version {}", node.role, node.version), Tone::Plain);
        self.fact("addresses", &node.addresses.join(", "), Tone::Plain);
        let labels: Vec<String> = node.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.fact("labels", &labels.join(", "), Tone::Plain);
        let Cell(left, tone) = nodes::cert(node, now);
        let end = node.cert_expires_at.as_ref().map(|end| format!(", ends {end}")).unwrap_or_default();
        self.fact("certificate", &format!("{left}{end}"), tone);
        match model.told(&node.node_id) {
            Some(Told { silent: Some(why), .. }) => self.fact("no answer", why, Tone::Bad),
            Some(told) => self.told(told),
            None => self.fact("calls", "it was not asked", Tone::Dim),
        }
        let rtt = node.rtt_ms.map(|rtt| format!("{rtt:.1}ms from {}", model.status.node_id));
        self.fact("RTT", &rtt.unwrap_or_default(), Tone::Plain);
        self.fact("services", &node.services.join(", "), Tone::Plain);
        self.next_line();
        self.events(&node.node_id, model);
    }

    fn told(&mut self, told: &Told) {
        let rates = told.history.rates();
        let Some(latest) = told.history.latest() else { return };
        let over = match rates.over {
            Some(over) => format!(" over the last {:.0}s", over.as_secs_f64()),
            None => String::new(),
        };
        let (calls, errors) = (units::rate(rates.calls), units::rate(rates.errors));
        self.fact("calls", &format!("{calls}/s, {errors} errors/s{over}"), Tone::Plain);
        self.fact("lately", &curve(told.history.curve()), Tone::Plain);
        let (p50, p99) = (units::duration(rates.p50), units::duration(rates.p99));
        self.fact("unary calls", &format!("half took {p50} at most, 99 of 100 {p99}"), Tone::Plain);
        let (sent, received) = (units::bytes(rates.sent), units::bytes(rates.received));
        let interval = units::duration(nodes::interval(latest));
        let gossip = format!("{sent}/s sent, {received}/s received; compares records every {interval}");
        self.fact("gossip", &gossip, Tone::Plain);
        let memory = units::bytes(Some(latest.process_resident_memory_bytes as f64));
        let up = time::short(latest.uptime_seconds);
        let process = format!("{} of a core, {memory} of memory, up {up}", units::percent(rates.cpu));
        self.fact("process", &process, Tone::Plain);
        self.fact("host", &host(latest), Tone::Plain);
    }

    fn events(&mut self, node: &str, model: &Model) {
        let of_node = model.events().filter(|happened| match &happened.what {
            Occurrence::Evidence(evidence) => evidence.node_id == node,
            Occurrence::Missed(_) => false,
        });
        let columns = events::columns(self.area.width, "EVENTS".to_owned());
        let rows = of_node.map(|happened| events::cells(happened, self.setting.now));
        grid(self.buffer, self.area, &columns, rows, None, false, self.setting.paint);
    }

    fn service(&mut self, service: &ServiceInfo) {
        self.title(&service.name);
        self.fact("state", service.state().word(), list::tone(service.state()));
        self.fact("methods", &service.methods.join(", "), Tone::Plain);
        if let Some(upstream) = &service.upstream {
            let in_flight = upstream.in_flight;
            let here = format!("{}, {in_flight} calls in flight, at the node asked", upstream.url);
            self.fact("upstream", &here, Tone::Plain);
            if !upstream.problem.is_empty() {
                self.fact("problem", &upstream.problem, Tone::Bad);
            }
        }
        self.next_line();
        let columns = [
            Column::text("PROVIDER", 20),
            Column::text("STATE", 11),
            Column::text("CIRCUIT", 9),
            Column::figures("IN-FLIGHT", 9),
            Column::figures("LATENCY", 8),
        ];
        let rows = service.providers.iter().map(|provider| {
            let circuit = match provider.circuit() {
                CircuitState::Unspecified => Cell::plain(NOTHING),
                CircuitState::Closed => Cell("closed".to_owned(), Tone::Good),
                CircuitState::Open => Cell(format!("open {}s", provider.circuit_open_seconds), Tone::Bad),
                CircuitState::HalfOpen => Cell("half-open".to_owned(), Tone::Warn),
            };
            let latency = provider.latency_ms.map(|latency| format!("{latency:.1}ms"));
            vec![
                Cell::plain(provider.node_id.as_str()),
                Cell(provider.state().word().to_owned(), list::tone(provider.state())),
                circuit,
                Cell::plain(provider.in_flight.to_string()),
                Cell::plain(latency.unwrap_or_else(|| NOTHING.to_owned())),
            ]
        });
        grid(self.buffer, self.area, &columns, rows, None, false, self.setting.paint);
    }
}

/// Calls a second as a curve, the latest to the right, and the most of them.
fn curve(rates: impl Iterator<Item = f64>) -> String {
    let rates: Vec<f64> = rates.collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    let bars = bar::NINE_LEVELS;
    let levels = [
        bars.one_eighth,
        bars.one_quarter,
        bars.three_eighths,
        bars.half,
        bars.five_eighths,
        bars.three_quarters,
        bars.seven_eighths,
        bars.full,
    ];
    let mut curve = String::new();
    for rate in &rates {
        let level = if most > 0.0 { (rate / most * 7.0).round() as usize } else { 0 };
        curve.push_str(levels[level.min(7)]);
    }
    let most = if rates.is_empty() { None } else { Some(most) };
    format!("{curve}  {} calls/s at most", units::rate(most))
}

fn host(latest: &GetMetricsResponse) -> String {
    let bytes = |bytes: u64| units::bytes(Some(bytes as f64));
    let (free, total) = (bytes(latest.memory_available_bytes), bytes(latest.memory_total_bytes));
    let (busy, load) = (units::percent(Some(latest.cpu_usage_ratio)), latest.load_average_1m);
    format!("{} cores {busy} busy, load {load:.1}, {free} of {total} memory free", latest.cpu_count)
}
