use super::{
    super::{
        model::{Question, Update},
        rows::SortBy,
        view::Detail,
    },
    *,
};
use p2p_proto::{
    Timestamp,
    v1::{
        CircuitState, ClusterStatus, DurationCount, Evidence, GetMetricsResponse, MemberState, NodeInfo,
        NodeTraffic, ServiceInfo, ServiceProvider, ServiceState, UpstreamInfo,
    },
};
use ratatui::{Terminal, backend::TestBackend};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// 2026-01-01T12:00:00Z
const NOW: i64 = 1_767_268_800;

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: NOW + seconds, nanos: 0 })
}

fn node(id: &str, role: &str, state: MemberState) -> NodeInfo {
    NodeInfo {
        node_id: id.to_owned(),
        role: role.to_owned(),
        state: state.into(),
        addresses: vec!["10.0.0.1:8001".to_owned()],
        zone: "eu-1".to_owned(),
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        version: "0.1.0".to_owned(),
        epoch: 7,
        services: vec!["shop.Stock".to_owned()],
        rtt_ms: Some(0.42),
        last_change: at(-720),
        cert_expires_at: at(30 * 86_400),
        ..NodeInfo::default()
    }
}

fn told(uptime_seconds: u64, calls: u64) -> Box<GetMetricsResponse> {
    let durations = [(320, calls - calls / 50), (12_288, calls / 50)];
    let traffic = NodeTraffic {
        calls,
        calls_failed: calls / 100,
        unary_durations: durations
            .map(|(below_microseconds, calls)| DurationCount { below_microseconds, calls })
            .to_vec(),
        gossip_interval_seconds: 2.0,
        gossip_sent_bytes: 150 * uptime_seconds,
        gossip_received_bytes: 162 * uptime_seconds,
    };
    Box::new(GetMetricsResponse {
        cpu_usage_ratio: 0.12,
        cpu_count: 4,
        memory_total_bytes: 8_200_000_000,
        memory_available_bytes: 3_100_000_000,
        load_average_1m: 0.31,
        process_cpu_seconds: uptime_seconds as f64 * 0.03,
        process_resident_memory_bytes: 21_400_000,
        uptime_seconds,
        traffic: Some(traffic),
    })
}

/// A cluster in which something is wrong.
fn model() -> Model {
    let (mut model, start) = (Model::default(), Instant::now());
    model.update(Update::Status(ClusterStatus {
        cluster_id: "shop".to_owned(),
        node_id: "coordinator-1".to_owned(),
        alive: 3,
        suspect: 1,
        down: 1,
        problems: vec!["worker-3 is suspect".to_owned(), "worker-4 is down".to_owned()],
        ..ClusterStatus::default()
    }));
    let mut expiring = node("worker-2", "worker", MemberState::Alive);
    (expiring.cert_expires_at, expiring.zone) = (at(3 * 86_400), String::new());
    let gone = NodeInfo { rtt_ms: None, ..node("worker-4", "worker", MemberState::Down) };
    model.update(Update::Members(vec![
        node("coordinator-1", "coordinator", MemberState::Alive),
        node("worker-1", "worker", MemberState::Alive),
        expiring,
        node("worker-3", "worker", MemberState::Suspect),
        gone,
    ]));
    let seconds = 0..6;
    for second in seconds {
        for (node, calls) in [("coordinator-1", 0), ("worker-1", 1_234), ("worker-2", 50)] {
            let told = told(100 + second, second * second * calls / 5);
            let at = start + Duration::from_secs(second);
            model.update(Update::Node { node: node.to_owned(), at, answer: Ok(told) });
        }
    }
    let refused = "10.0.0.4:8001 refuses connections; is the node running there?".to_owned();
    model.update(Update::Node { node: "worker-3".to_owned(), at: start, answer: Err(refused) });
    model.update(Update::Services(services()));
    for (age, from, to, reason) in [
        (-95, MemberState::Unspecified, MemberState::Alive, "first heard of, from coordinator-1"),
        (
            -4,
            MemberState::Alive,
            MemberState::Suspect,
            "it did not answer a probe of coordinator-1, nor 3 others",
        ),
    ] {
        model.update(Update::Event(Evidence {
            at: at(age),
            node_id: "worker-3".to_owned(),
            from: from.into(),
            to: to.into(),
            reason: reason.to_owned(),
            ..Evidence::default()
        }));
    }
    model
}

fn services() -> Vec<ServiceInfo> {
    let provider = |node: &str, state: ServiceState, circuit: CircuitState| ServiceProvider {
        node_id: node.to_owned(),
        state: state.into(),
        circuit: circuit.into(),
        circuit_open_seconds: 12,
        in_flight: 3,
        latency_ms: Some(1.25),
    };
    vec![
        ServiceInfo {
            name: "shop.Stock".to_owned(),
            state: ServiceState::Serving.into(),
            providers: vec![
                provider("worker-1", ServiceState::Serving, CircuitState::Closed),
                provider("worker-2", ServiceState::Serving, CircuitState::Open),
                provider("worker-3", ServiceState::Draining, CircuitState::Unspecified),
            ],
            methods: vec!["Get".to_owned(), "Put".to_owned()],
            upstream: None,
        },
        ServiceInfo {
            name: "shop.Orders".to_owned(),
            state: ServiceState::NotServing.into(),
            providers: vec![],
            methods: vec!["Place".to_owned()],
            upstream: Some(UpstreamInfo {
                url: "http://127.0.0.1:50051".to_owned(),
                problem: "http://127.0.0.1:50051 refuses connections; is the process running?".to_owned(),
                ..UpstreamInfo::default()
            }),
        },
    ]
}

fn setting() -> Setting {
    Setting { paint: Paint { color: true }, now: NOW, asking: "every 2s".to_owned(), keys: true }
}

fn view() -> View {
    View::new(SortBy::State, "")
}

fn terminal(width: u16, height: u16) -> Terminal<TestBackend> {
    Terminal::new(TestBackend::new(width, height)).expect("never fails")
}

fn drawn(terminal: &mut Terminal<TestBackend>, model: &Model, view: &mut View, setting: &Setting) -> Buffer {
    let completed = terminal.draw(|frame| {
        let area = frame.area();
        draw(frame.buffer_mut(), area, model, view, setting);
    });
    completed.expect("never fails").buffer.clone()
}

fn text(buffer: &Buffer) -> String {
    let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

/// Compares with `snapshots/NAME.txt`; with `UPDATE_GOLDEN=1` in the environment, writes it.
fn assert_snapshot(name: &str, width: u16, height: u16, view: &mut View) {
    let shown = text(&drawn(&mut terminal(width, height), &model(), view, &setting()));
    let file = format!("src/commands/top/draw/snapshots/{name}_{width}x{height}.txt");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).expect("writable");
    }
    let expected = std::fs::read_to_string(&path).expect("it exists; make it with UPDATE_GOLDEN=1");
    assert_eq!(shown, expected, "{} differs", path.display());
}

#[test]
fn the_lists_fit_every_terminal() {
    for (width, height) in [(80, 24), (120, 40), (50, 12), (40, 8)] {
        assert_snapshot("lists", width, height, &mut view());
    }
}

#[test]
fn a_node_and_a_service_in_full() {
    for (name, detail) in [
        ("node", Detail::Node("worker-1".to_owned())),
        ("silent", Detail::Node("worker-3".to_owned())),
        ("service", Detail::Service("shop.Stock".to_owned())),
        ("broken", Detail::Service("shop.Orders".to_owned())),
    ] {
        let mut view = view();
        view.detail = Some(detail);
        assert_snapshot(name, 80, 24, &mut view);
    }
}

#[test]
fn a_terminal_too_small_says_so_and_a_resize_draws_anew() {
    let (model, mut terminal) = (model(), terminal(30, 4));
    let small = text(&drawn(&mut terminal, &model, &mut view(), &setting()));
    assert_eq!(small, "30x4 is too small; 40x8 do\n\n\n\n");
    terminal.backend_mut().resize(80, 24);
    let large = drawn(&mut terminal, &model, &mut view(), &setting());
    assert_eq!((large.area.width, large.area.height), (80, 24));
    assert!(text(&large).contains("shop.Stock"));
    for (width, height) in [(0, 0), (1, 1), (300, 1), (1, 300)] {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let area = buffer.area;
        draw(&mut buffer, area, &model, &mut view(), &setting());
    }
}

#[test]
fn no_size_and_no_choice_overflows() {
    let model = model();
    for width in 40..130 {
        for height in 8..45 {
            for pane in Pane::ALL {
                let mut view = view();
                view.pane = pane;
                drawn(&mut terminal(width, height), &model, &mut view, &setting());
            }
        }
    }
}

#[test]
fn trouble_of_our_own_comes_before_that_of_the_cluster() {
    let mut model = model();
    let line = |model: &Model| {
        let shown = text(&drawn(&mut terminal(80, 24), model, &mut view(), &setting()));
        shown.lines().nth(2).expect("a third line").to_owned()
    };
    assert_eq!(line(&model), "(1 of 2) worker-3 is suspect");
    model.update(Update::Trouble(Question::Cluster, Some("10.0.0.1:8001 refuses connections".to_owned())));
    assert_eq!(line(&model), "Not up to date: 10.0.0.1:8001 refuses connections");
}

#[test]
fn colours_tell_what_words_tell_and_can_be_left_out() {
    let color_of = |color: bool| {
        let setting = Setting { paint: Paint { color }, ..setting() };
        let buffer = drawn(&mut terminal(80, 24), &model(), &mut view(), &setting);
        let word = |word: &str| {
            let lines = text(&buffer);
            let (y, line) =
                lines.lines().enumerate().skip(4).find(|(_, line)| line.contains(word)).expect("shown");
            let x = line.chars().count() - line[line.find(word).expect("there")..].chars().count();
            buffer[(u16::try_from(x).expect("fits"), u16::try_from(y).expect("fits"))].fg
        };
        [word("alive"), word("suspect"), word("down"), word("3d")]
    };
    assert_eq!(color_of(true), [Color::Green, Color::Yellow, Color::Red, Color::Yellow]);
    assert_eq!(color_of(false), [Color::Reset; 4]);
}

#[test]
fn the_chosen_row_is_inverted() {
    let buffer = drawn(&mut terminal(80, 24), &model(), &mut view(), &setting());
    let inverted: Vec<u16> =
        (0..24).filter(|y| buffer[(0, *y)].modifier.contains(Modifier::REVERSED)).collect();
    // The first node, below three lines of header, a blank one and the titles.
    assert_eq!(inverted, [5]);
}

#[test]
fn text_of_others_cannot_drive_the_terminal() {
    let mut model = model();
    model.update(Update::Event(Evidence {
        node_id: "worker-1".to_owned(),
        reason: "a\u{1b}[31mb\nc\u{7}".to_owned(),
        ..Evidence::default()
    }));
    let shown = text(&drawn(&mut terminal(80, 24), &model, &mut view(), &setting()));
    assert!(shown.contains("a[31mbc"), "{shown}");
}

#[test]
fn the_list_with_the_keys_gets_what_room_there_is() {
    assert_eq!(heights(21, [4, 2, 30], Pane::Nodes), [4, 2, 13]);
    assert_eq!(heights(21, [100, 100, 100], Pane::Nodes), [13, 3, 3]);
    assert_eq!(heights(21, [100, 100, 100], Pane::Events), [3, 3, 13]);
    assert_eq!(heights(60, [4, 2, 3], Pane::Services), [4, 2, 3]);
    assert_eq!(heights(8, [4, 2, 3], Pane::Services), [0, 8, 0]);
    assert_eq!(heights(9, [3, 2, 2], Pane::Nodes), [3, 2, 2]);
    assert_eq!(heights(11, [9, 9, 9], Pane::Nodes), [3, 3, 3]);
}
