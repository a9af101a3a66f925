use super::{super::model::Update, *};
use p2p_proto::v1::{Evidence, MemberState, NodeInfo, ServiceInfo};

fn model(nodes: &[&str]) -> Model {
    let node = |id: &&str| NodeInfo {
        node_id: (*id).to_owned(),
        state: MemberState::Alive.into(),
        ..NodeInfo::default()
    };
    let mut model = Model::default();
    model.update(Update::Members(nodes.iter().map(node).collect()));
    model.update(Update::Services(vec![ServiceInfo {
        name: "shop.Stock".to_owned(),
        ..ServiceInfo::default()
    }]));
    model.update(Update::Event(Evidence { node_id: "b".to_owned(), ..Evidence::default() }));
    model
}

fn view() -> View {
    View { page: 10, ..View::new(SortBy::Node, "") }
}

fn press(view: &mut View, model: &Model, codes: &[KeyCode]) -> Flow {
    codes.iter().map(|code| view.press(KeyEvent::from(*code), model)).last().expect("a key")
}

fn chosen(view: &mut View, model: &Model) -> String {
    let keys = view.keys(view.pane, model);
    let at = view.cursor(view.pane).place(&keys, 10);
    keys[at].clone()
}

#[test]
fn the_chosen_row_stays_chosen_when_others_come_and_go() {
    let (mut view, before) = (view(), model(&["b", "c", "d"]));
    press(&mut view, &before, &[KeyCode::Down]);
    assert_eq!(chosen(&mut view, &before), "c");
    assert_eq!(chosen(&mut view, &model(&["a", "b", "c", "d"])), "c");
    // Where it has gone, the row in its place.
    assert_eq!(chosen(&mut view, &model(&["a", "b", "d"])), "d");
}

#[test]
fn the_first_row_is_the_first_whichever_it_is() {
    let (mut view, before) = (view(), model(&["b", "c"]));
    press(&mut view, &before, &[KeyCode::Down, KeyCode::Up]);
    assert_eq!(chosen(&mut view, &model(&["a", "b", "c"])), "a");
}

#[test]
fn moving_ends_at_the_ends() {
    let (mut view, model) = (view(), model(&["a", "b", "c"]));
    press(&mut view, &model, &[KeyCode::Up]);
    assert_eq!(chosen(&mut view, &model), "a");
    press(&mut view, &model, &[KeyCode::End, KeyCode::PageDown, KeyCode::Down]);
    assert_eq!(chosen(&mut view, &model), "c");
    press(&mut view, &model, &[KeyCode::Char('g')]);
    assert_eq!(chosen(&mut view, &model), "a");
}

#[test]
fn a_list_scrolls_no_further_than_it_must() {
    let keys: Vec<String> = (0..10).map(|key| key.to_string()).collect();
    let mut cursor = Cursor::default();
    for (at, top) in [(0, 0), (2, 0), (3, 1), (9, 7), (8, 7), (7, 7), (6, 6), (0, 0)] {
        cursor.move_to(at, &keys);
        assert_eq!((cursor.place(&keys, 3), cursor.top), (at, top));
    }
    // A larger window shows more above, and an empty list nothing.
    cursor.move_to(9, &keys);
    cursor.place(&keys, 3);
    cursor.place(&keys, 8);
    assert_eq!(cursor.top, 2);
    assert_eq!((cursor.place(&[], 3), cursor.top), (0, 0));
    assert_eq!(cursor.place(&keys, 0), 0);
}

#[test]
fn a_filter_is_typed_and_cleared() {
    let (mut view, model) = (view(), model(&["a", "b", "q"]));
    let flow = press(&mut view, &model, &[KeyCode::Char('/'), KeyCode::Char('q')]);
    assert_eq!((flow, view.filter.as_str(), view.typing), (Flow::GoOn, "q", true));
    assert_eq!(view.keys(Pane::Nodes, &model), ["q"]);
    press(&mut view, &model, &[KeyCode::Enter]);
    assert!(!view.typing && view.filter == "q");
    press(&mut view, &model, &[KeyCode::Esc]);
    assert_eq!(view.filter, "");
    press(&mut view, &model, &[KeyCode::Char('/'), KeyCode::Char('x'), KeyCode::Backspace, KeyCode::Esc]);
    assert!(!view.typing && view.filter.is_empty());
    let long = vec![KeyCode::Char('ż'); 2 * FILTER_MAX];
    press(&mut view, &model, &[&[KeyCode::Char('/')], long.as_slice()].concat());
    assert!(view.filter.len() <= FILTER_MAX + 'ż'.len_utf8());
}

#[test]
fn enter_shows_a_row_in_full_and_escape_leads_back() {
    let (mut view, model) = (view(), model(&["a", "b"]));
    press(&mut view, &model, &[KeyCode::Enter]);
    assert_eq!(view.detail, Some(Detail::Node("a".to_owned())));
    press(&mut view, &model, &[KeyCode::Down]);
    assert_eq!(view.detail, Some(Detail::Node("b".to_owned())));
    press(&mut view, &model, &[KeyCode::Esc, KeyCode::Tab, KeyCode::Enter]);
    assert_eq!(view.detail, Some(Detail::Service("shop.Stock".to_owned())));
    // An event leads to its node.
    press(&mut view, &model, &[KeyCode::Tab, KeyCode::Enter]);
    assert_eq!((view.pane, view.detail), (Pane::Events, Some(Detail::Node("b".to_owned()))));
}

#[test]
fn enter_on_an_empty_list_shows_nothing() {
    let mut view = view();
    press(&mut view, &Model::default(), &[KeyCode::Enter, KeyCode::Down, KeyCode::End]);
    assert_eq!(view.detail, None);
}

#[test]
fn q_and_control_c_quit_also_while_a_filter_is_typed() {
    let (mut view, model) = (view(), model(&["a"]));
    assert_eq!(press(&mut view, &model, &[KeyCode::Char('q')]), Flow::Quit);
    press(&mut view, &model, &[KeyCode::Char('/')]);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(interrupt, &model), Flow::Quit);
    assert_eq!(view.press(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::CONTROL), &model), Flow::GoOn);
}

#[test]
fn the_order_goes_round_both_ways_and_is_reversed() {
    let (mut view, model) = (view(), model(&["a"]));
    press(&mut view, &model, &[KeyCode::Char('s'), KeyCode::Char('S'), KeyCode::Char('S')]);
    assert_eq!(view.sort, SortBy::State);
    press(&mut view, &model, &[KeyCode::Char('S'), KeyCode::Char('r')]);
    assert_eq!((view.sort, view.reversed), (SortBy::Cert, true));
}
