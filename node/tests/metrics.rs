//! The metrics of a node as one set: named by one rule, there before they are needed, and described in docs/metrics.md,
//! which this test writes with `UPDATE_GOLDEN=1` in the environment.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};
use support::{Binary, Certificates, TestNode, eventually};

/// What the page says before its tables.
const PREFACE: &str = "\
# Metrics

What a node shows at `GET /metrics`, as Prometheus text, or OpenMetrics by `Accept`; gzip by `Accept-Encoding`. Generated from a
running node by `UPDATE_GOLDEN=1 cargo test -p p2p-node --test metrics`; the same test fails if this page is not what nodes show.

Names are in base units. A label has the values that are listed, and each series is there from the start, at zero; labels
without a list are *open*: methods and services are those that the cluster's registry knows (a request for another method is
counted without its name), paths those of the gateway, codes and statuses those of gRPC and HTTP, and a series appears when it
is first counted. Nothing has a label for each peer, address or client. Prometheus adds `cluster_id`, `node_id`, `role` and
`zone` to every series when it finds the nodes by `/prometheus/targets` (deploy/prometheus).

A routed call is counted by both nodes that it passes, where it enters and where it is served; `p2p_routed_calls_total` says
which it was.
";

/// The sections of the page, and how the names in them begin, without `p2p_`. The first that fits counts.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "Calls",
        &[
            "request",
            "routed_",
            "retries",
            "circuits",
            "provider_",
            "generic_",
            "broadcast_",
            "descriptor",
            "services_",
            "http_",
        ],
    ),
    ("Limits", &["calls_", "rate_limit"]),
    ("Processes behind the node", &["upstream_"]),
    ("Members and gossip", &["member", "gossip_", "build_"]),
    ("Certificates and joining", &["certificate_", "ca_", "enrolments", "join_"]),
    (
        "Evidence and revocation",
        &["authentication_", "authorization_", "token", "revo", "evicted_", "audit_"],
    ),
    ("Connections", &["connection", "peer_"]),
    ("Process and runtime", &["process_", "runtime_", "config_", "panics_"]),
];

/// Labels whose values are not listed.
const OPEN: &[&str] = &["method", "service", "path", "status", "code", "version", "protocol", "le"];

#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    /// The values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
    samples: usize,
}

/// Reads Prometheus text, in which the name of a family is that of its samples.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let name = stem.filter(|stem| families.contains_key(*stem)).unwrap_or(name);
            let family = families.get_mut(name).unwrap_or_else(|| panic!("{line} has no family before it"));
            family.samples += 1;
            let labels = labels.strip_suffix('}').expect("closed").split("\",");
            for (label, value) in labels.filter_map(|label| label.split_once("=\"")) {
                let values = family.labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    families
}

/// The text of a node that has one of everything.
async fn exposition() -> String {
    let certificates = Certificates::new(&["c1:coordinator"]);
    // Nobody listens on the discard port.
    let services = r#"[{name: "shop.Stock", upstream: "http://127.0.0.1:9"}]"#;
    let node = TestNode::start(Binary::Node, certificates.config("c1").set("services", services)).await;
    let admin = certificates.client(&node, "admin").await;
    // Reasons are those of every fault, so they appear when there is one.
    admin.call("p2p.v1.SystemService/Echo", "", r#"{"no": 1}"#).await.expect_err("no such field");
    admin.awaits_sample("p2p_upstream_healthy{service=\"shop.Stock\"}", 0.0).await;
    // A scrape is counted when it has been answered.
    eventually("a counted scrape", async || {
        let text = admin.metrics().await;
        text.contains("p2p_http_requests_total{").then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    admin.metrics().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_is_what_a_node_shows() {
    let families = families(&exposition().await);
    let mut page = PREFACE.to_owned();
    let mut placed = BTreeSet::new();
    for (title, beginnings) in SECTIONS {
        let fits = |name: &str| {
            let stem = name.strip_prefix("p2p_").unwrap_or(name);
            beginnings.iter().any(|beginning| stem.starts_with(beginning))
        };
        let rows: Vec<_> =
            families.iter().filter(|(name, _)| fits(name) && placed.insert(name.as_str())).collect();
        write!(page, "\n## {title}\n\n| name | type | labels | what it tells |\n|---|---|---|---|\n")
            .expect("text");
        for (name, family) in rows {
            writeln!(page, "| `{name}` | {} | {} | {} |", family.kind, labels(family), family.help)
                .expect("text");
        }
    }
    let homeless: Vec<_> = families.keys().filter(|name| !placed.contains(name.as_str())).collect();
    assert!(homeless.is_empty(), "no section for {homeless:?}");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).expect("the page is writable");
    }
    let written = std::fs::read_to_string(&path).expect("docs/metrics.md; make it with UPDATE_GOLDEN=1");
    assert_eq!(
        page, written,
        "docs/metrics.md is not what a node shows; if that is right, run with UPDATE_GOLDEN=1"
    );
}

fn labels(family: &Family) -> String {
    let label = |(name, values): (&String, &BTreeSet<String>)| {
        // The reasons of all faults, of which one was provoked.
        let open = OPEN.contains(&name.as_str()) || values.iter().any(|value| value == "INVALID_ARGUMENT");
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        if open { format!("`{name}`") } else { format!("`{name}`: {}", values.join(", ")) }
    };
    let shown = family.labels.iter().filter(|(name, _)| *name != "le");
    shown.map(label).collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_named_by_one_rule_and_shows_a_series_from_the_start() {
    for (name, family) in families(&exposition().await) {
        let Family { help, kind, samples, .. } = &family;
        assert!(name.starts_with("p2p_") || name.starts_with("process_"), "{name}");
        assert!(*samples > 0, "{name} has no series until something happens");
        assert!(help.ends_with('.') && !help.ends_with(".."), "{name}: {help}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        for unit in ["_ms", "_millis", "_milliseconds", "_kb", "_mb", "_percent"] {
            assert!(!name.contains(unit), "{name} is in no base unit");
        }
        for label in family.labels.keys() {
            assert!(!["peer", "node", "address", "client"].contains(&label.as_str()), "{name} by {label}");
        }
    }
}
