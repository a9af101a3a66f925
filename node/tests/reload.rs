//! SIGHUP: a running node takes another configuration over, all or nothing, and says what it has done.

mod support;

use reqwest::StatusCode;
use support::{Binary, Certificates, Client, NodeConfig, TestNode, eventually, sample};

const APPLIED: &str = "p2p_config_reloads_total{result=\"applied\"}";
const REFUSED: &str = "p2p_config_reloads_total{result=\"refused\"}";

/// A coordinator with rate limits, and an admin's client.
async fn start(certificates: &Certificates) -> (TestNode, Client) {
    let config = certificates.config("c1").set("rate_limit_enabled", "true");
    let node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;
    (node, admin)
}

/// What `count` requests of the list of nodes are answered.
async fn ask(client: &Client, count: usize) -> Vec<StatusCode> {
    let (http, mut answers) = (client.http(true), Vec::new());
    for _ in 0..count {
        let answer = http.get(client.url("/cluster/nodes")).send().await.expect("an answer");
        answers.push(answer.status());
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_what_it_can_and_names_what_takes_a_restart() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (mut node, admin) = start(&certificates).await;
    assert_eq!(ask(&admin, 3).await, [200; 3]);

    let strict = |config: NodeConfig| {
        config.set("rate_limit_default_requests", "1").set("rate_limit_default_burst", "2")
    };
    let told = node.reloads(strict, "reload: done").await;
    assert!(told.contains("applied=\"rate_limit_default_requests, rate_limit_default_burst\""), "{told}");
    assert!(!told.contains("restart"), "{told}");
    assert_eq!(ask(&admin, 3).await, [200, 200, 429]);

    // The port stays what it was, and what can be applied is.
    let roomy = |config: NodeConfig| {
        config.set("rate_limit_default_burst", "200").set("port", "1").set("gossip_interval_max", "40")
    };
    let told = node.reloads(roomy, "needs_restart").await;
    assert!(told.contains("applied=\"rate_limit_default_burst\""), "{told}");
    assert!(told.contains("needs_restart=\"port, gossip_interval_max\""), "{told}");
    assert_eq!(ask(&admin, 50).await, [200; 50]);
    // Until it is started again, that remains so.
    node.reloads(|config| config, "needs_restart=\"port, gossip_interval_max\"").await;
    node.reloads(|config| config.set("port", "0").set("gossip_interval_max", "30"), "nothing has changed")
        .await;
    let metrics = admin.metrics().await;
    assert_eq!((sample(&metrics, APPLIED), sample(&metrics, REFUSED)), (Some(4.0), Some(0.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_anywhere_changes_nothing_and_is_said() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (mut node, admin) = start(&certificates).await;
    let strict = |config: NodeConfig| config.set("rate_limit_default_burst", "1");
    let refused = "reload refused; nothing has changed";
    let proper = node.config.clone();

    let wrong = |config| strict(config).set("prot", "1").set("log_level", "inof");
    node.reloads(wrong, refused).await;
    for mistake in ["prot: unknown key, did you mean port?", "did you mean info?"] {
        node.logs(mistake).await;
    }
    assert_eq!(ask(&admin, 5).await, [200; 5]);
    node.config = proper.clone();

    // A file that a service names is not there.
    let service = "[{name: demo.v1.Greeter, upstream: 'http://127.0.0.1:1', descriptors: gone.bin}]";
    let told = node.reloads(|config| strict(config).set("services", service), refused).await;
    assert!(told.contains("services: demo.v1.Greeter: cannot read gone.bin"), "{told}");
    node.config = proper;

    // A certificate whose key is another's.
    let key = certificates.read("c1_key.pem");
    std::fs::write(certificates.path("c1_key.pem"), certificates.read("admin_key.pem")).expect("written");
    let told = node.reloads(strict, refused).await;
    assert!(told.contains("does not belong to the certificate"), "{told}");
    assert_eq!(ask(&admin, 5).await, [200; 5]);
    let metrics = admin.metrics().await;
    assert_eq!((sample(&metrics, APPLIED), sample(&metrics, REFUSED)), (Some(0.0), Some(3.0)));

    std::fs::write(certificates.path("c1_key.pem"), key).expect("written");
    node.reloads(strict, "applied=\"rate_limit_default_burst\"").await;
    assert_eq!(ask(&admin, 2).await, [200, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_what_where_the_node_stands_and_what_it_logs_follow_a_reload() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (mut node, admin) = start(&certificates).await;
    let stranger = certificates.stranger(&node).await;
    assert_eq!(ask(&stranger, 1).await, [401]);
    let bad_token = async || {
        let asked = stranger.http(true).get(stranger.url("/cluster/nodes")).bearer_auth("no.such.token");
        assert_eq!(asked.send().await.expect("an answer").status(), 401);
    };
    bad_token().await;
    assert!(!node.log().contains("authentication failed"), "{}", node.log());

    let open = "[{methods: [p2p.v1.ClusterService/ListNodes], allow: [anonymous, authenticated]}]";
    let adjust = |config: NodeConfig| {
        config
            .set("access", open)
            .set("labels", "{disk: ssd}")
            .set("zone", "east")
            .set("log_level", "info,p2p_node::auth=debug")
            .set("metrics_require_auth", "true")
    };
    node.reloads(adjust, "applied=\"zone, labels, metrics_require_auth, access, log_level\"").await;
    node.logs("this rule lets in callers without any evidence").await;
    assert_eq!(ask(&stranger, 1).await, [200]);
    let scrape = stranger.http(true).get(stranger.url("/metrics")).send().await.expect("an answer");
    assert_eq!(scrape.status(), 401);
    eventually("the new labels", async || {
        let members = admin.members().await.map_err(|status| status.to_string())?;
        let seen = (members[0].zone.as_str(), members[0].labels.get("disk").map(String::as_str));
        if seen == ("east", Some("ssd")) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    bad_token().await;
    node.logs("authentication failed").await;

    node.config.keys.remove("access");
    node.reloads(|config| config, "applied=\"access\"").await;
    assert_eq!(ask(&stranger, 1).await, [401]);
}
