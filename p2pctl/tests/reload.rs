//! `p2pctl config` and a running node: its file read anew, and compared with what it has in force.

mod support;

use std::fs;
use support::{
    golden::{assert_golden, session},
    node::Node,
    text,
};

#[test]
fn settings_are_put_into_force_and_what_is_not_is_shown() {
    let mut node = Node::new(60);
    node.start(&[("P2PNODE_ZONE", "east")]);
    let shown = session(
        node.path(),
        &[
            "config diff --running --file node.yaml",
            "config reload --dry-run",
            "config set calls_max 77 --file node.yaml",
            "config set zone west --file node.yaml",
            "config set gossip_interval_max 40 --file node.yaml",
            "config diff --running --file node.yaml",
            "config diff --running --file node.yaml -o json",
            "config reload --dry-run",
            "config reload",
            "config reload -o json",
            "config set calls_max 78 --reload --file node.yaml",
            "config set calls_max 78 --reload --file node.yaml",
            "config unset calls_max --reload --file node.yaml -o json",
            "config set zone north --reload --file node.yaml",
            "config unset gossip_interval_max --reload --file node.yaml",
            "config set port 9001 --reload --dry-run --file node.yaml",
        ],
    );
    assert_golden("config_reload", &node.steady(&shown));
}

#[test]
fn what_the_node_refuses_or_nobody_hears_is_said_and_the_file_stays_written() {
    let mut node = Node::new(60);
    let unheard = node.p2pctl(&["config", "set", "calls_max", "5", "--reload", "--file", "node.yaml"]);
    let why = text(&unheard.stderr);
    assert_eq!(unheard.status.code(), Some(5), "{why}");
    assert!(why.contains("The change of node.yaml is written"), "{why}");
    assert!(text(&unheard.stdout).contains("changed: calls_max is 5, was not set"));

    node.start(&[]);
    let file = node.path().join("node.yaml");
    let proper = fs::read_to_string(&file).expect("there");
    fs::write(&file, format!("{proper}prot: 1\nlog_level: inof\n")).expect("written");
    let shown = session(
        node.path(),
        &[
            "config reload",
            "config reload -o json",
            "config set calls_max 6 --reload --file node.yaml",
            "config diff --running --file node.yaml",
        ],
    );
    assert_golden("config_reload_refused", &node.steady(&shown));
    fs::write(&file, proper).expect("written");
    let reload = node.p2pctl(&["config", "reload"]);
    assert_eq!(text(&reload.stdout), "unchanged: the node has all that its file says\n");
}
