//! What a service manager hears of a node (sd_notify(3)).

mod support;

use rustix::process::Signal;
use std::time::Duration;
use support::{Binary, Certificates, PATIENCE, TestNode};
use tokio::net::UnixDatagram;

/// Reads messages until one has a line that begins with each of `wanted`; that message.
async fn hears(manager: &UnixDatagram, wanted: &[&str]) -> String {
    let heard = async {
        let mut seen = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let length = manager.recv(&mut bytes).await.expect("received");
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if wanted.iter().all(|word| message.lines().any(|line| line.starts_with(word))) {
                return message;
            }
            seen.push(message);
            assert!(seen.len() < 1000, "no {wanted:?} in {seen:?}");
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("no {wanted:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_of_readiness_reloads_life_and_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("bound");
    let certificates = Certificates::new(&["c1:coordinator"]);
    let config = certificates
        .config("c1")
        .variable("NOTIFY_SOCKET", &socket.display().to_string())
        .variable("WATCHDOG_USEC", "200000");
    let mut node = TestNode::start(Binary::Node, config).await;
    let ready = hears(&manager, &["READY=1", "STATUS="]).await;
    assert!(ready.contains(&format!("STATUS=listening on {}", node.address)), "{ready}");
    for _ in 0..3 {
        hears(&manager, &["WATCHDOG=1"]).await;
    }
    node.signal(Signal::HUP);
    let reloading = hears(&manager, &["RELOADING=1", "MONOTONIC_USEC="]).await;
    let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("a time");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), 0);
    let at = Duration::from_micros(at.parse().expect("a number"));
    assert!(at <= now + Duration::from_secs(1) && at + PATIENCE > now, "{at:?} is not {now:?}");
    hears(&manager, &["READY=1"]).await;
    node.signal(Signal::TERM);
    hears(&manager, &["STOPPING=1"]).await;
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_no_manager_listens_to_serves_all_the_same() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let config = certificates.config("c1").variable("NOTIFY_SOCKET", "/nonexistent/notify");
    let mut node = TestNode::start(Binary::Node, config).await;
    node.logs("the service manager could not be told").await;
    certificates.observer(&node).await.members().await.expect("it serves");
}
