//! `p2pctl dev --once`: the main job, as a newcomer starts it.

mod support;

use std::net::TcpListener;

/// The first of three ports in a row that are free now, below those that systems choose themselves.
fn three_free_ports() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = 21_000 + u16::try_from(std::process::id() % 8_000).expect("fits");
    (start..32_000).step_by(3).find(|&port| (port..port + 3).all(free)).expect("three free ports in a row")
}

#[test]
fn one_command_brings_up_a_cluster_that_routes_a_call_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = three_free_ports();
    let output = support::p2pctl(dir.path())
        .args(["dev", "--once", "--base-port", &port.to_string(), "--dir"])
        .arg(dir.path().join("dev"))
        .output()
        .expect("started");
    let screen = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{screen}\n{errors}");
    assert!(screen.contains("of 3 nodes is ready"), "{screen}");
    assert!(screen.contains(" at coordinator-1\nServed   by worker-2\n"), "{screen}");
    for port in port..port + 3 {
        TcpListener::bind(("127.0.0.1", port)).expect("nobody listens any more");
    }
}
