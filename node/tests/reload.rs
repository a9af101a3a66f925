//! SIGHUP and `SystemService/Reload`: a running node takes another configuration over, all or nothing, and says what it
//! has done.

mod support;

use p2p_proto::v1::{GetConfigRequest, ReloadRequest, ReloadResponse, Setting};
use reqwest::StatusCode;
use support::{Binary, Certificates, Client, NodeConfig, TestNode, eventually, sample};
use tonic::{Code, Status};

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

async fn reload(client: &Client, dry_run: bool) -> Result<ReloadResponse, Status> {
    client.system().reload(ReloadRequest { dry_run }).await.map(tonic::Response::into_inner)
}

/// The value of a key in force, and who gave it.
async fn setting(client: &Client, key: &str) -> (String, String) {
    let config = client.system().get_config(GetConfigRequest {}).await.expect("an admin may").into_inner();
    let found = config.settings.into_iter().find(|setting| setting.key == key);
    let Setting { value, given_by, .. } = found.expect("every key is there");
    (value, given_by)
}

fn is(value: &str, given_by: &str) -> (String, String) {
    (value.to_owned(), given_by.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_has_the_configuration_read_anew_and_is_answered_what_came_of_it() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let log = certificates.path("audit.jsonl");
    let config = certificates
        .config("c1")
        .set("rate_limit_enabled", "true")
        .set("audit_log", &log.display().to_string())
        .variable("P2PNODE_ZONE", "east");
    let mut node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;

    node.rewrite(|config| config.set("calls_max", "77").set("port", "1").set("zone", "west"));
    let would = reload(&admin, true).await.expect("an admin may");
    assert!(would.accepted && would.file.ends_with("node.yaml"), "{would:?}");
    assert_eq!((would.applied, would.needs_restart), (vec!["calls_max".to_owned()], vec!["port".to_owned()]));
    assert_eq!(setting(&admin, "calls_max").await, is("16384", "default"), "it was only asked");

    let done = reload(&admin, false).await.expect("an admin may");
    assert_eq!((done.applied, done.needs_restart), (vec!["calls_max".to_owned()], vec!["port".to_owned()]));
    assert!(!done.certificates && done.mistakes.is_empty());
    for (key, value, by) in [
        ("calls_max", "77", "file"),
        ("port", "0", "file"),
        ("zone", "\"east\"", "environment"),
        ("shutdown_grace", "\"10s\"", "default"),
    ] {
        assert_eq!(setting(&admin, key).await, is(value, by), "{key}");
    }
    node.logs("applied=\"calls_max\"").await;

    // One mistake, and nothing of it is taken over; the answer has each.
    node.rewrite(|config| config.set("calls_max", "78").set("prot", "1").set("log_level", "inof"));
    for dry_run in [true, false] {
        let refused = reload(&admin, dry_run).await.expect("an answer");
        assert!(!refused.accepted && refused.applied.is_empty());
        let all = refused.mistakes.join("\n");
        assert_eq!(refused.mistakes.len(), 2, "{all}");
        assert!(all.contains("prot: unknown key, did you mean port?") && all.contains("did you mean info?"));
    }
    assert_eq!(setting(&admin, "calls_max").await, is("77", "file"));
    let metrics = admin.metrics().await;
    assert_eq!(
        (sample(&metrics, APPLIED), sample(&metrics, REFUSED)),
        (Some(1.0), Some(1.0)),
        "dry runs are none"
    );

    // Signals still do the same.
    node.config.keys.remove("prot");
    node.reloads(|config| config.set("log_level", "info"), "applied=\"calls_max, log_level\"").await;
    assert_eq!(setting(&admin, "calls_max").await, is("78", "file"));
    eventually("the acts in the audit log", async || {
        let kept = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let notes = ["\"applied calls_max\"", "\"a dry run\"", "\"refused\""];
        let missing: Vec<_> = notes.iter().filter(|note| !kept.contains(**note)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} in {kept}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_an_admin_reads_settings_or_has_them_read() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let worker = certificates.client(&node, "w1").await;
    let stranger = certificates.stranger(&node).await;
    for (client, code) in [(&worker, Code::PermissionDenied), (&stranger, Code::Unauthenticated)] {
        assert_eq!(reload(client, false).await.map_err(|status| status.code()), Err(code));
        let config = client.system().get_config(GetConfigRequest {}).await;
        assert_eq!(config.map(drop).map_err(|status| status.code()), Err(code));
    }
    // No rule opens them by naming the whole service.
    let open = "[{methods: ['p2p.v1.SystemService/*'], allow: [node]}]";
    let refused = TestNode::run(&certificates.config("c1").set("access", open)).await;
    assert_eq!(refused.code, Some(78));
    assert!(refused.log.contains("p2p.v1.SystemService/* can be opened to admins only"), "{}", refused.log);
}
