//! `p2pctl doctor` against a real node.

mod support;

use support::{node::Node, text};

#[test]
fn doctor_finds_certificates_that_end_soon_and_ends_with_six() {
    let mut node = Node::new(60);
    // Nobody answers, but the files are looked at all the same.
    let output = node.p2pctl(&["doctor", "--expires-within", "90d"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ca_cert.pem"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("refuse"), "{}", text(&output.stderr));

    node.start(&[]);
    let output = node.p2pctl(&["doctor", "--expires-within", "30d"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "no findings\n");

    let output = node.p2pctl(&["doctor", "--expires-within", "90d", "-o", "json"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["schema"], &document["kind"]), (&"p2pctl/v1".into(), &"Findings".into()));
    let items = document["items"].as_array().expect("a list");
    let subjects: Vec<_> = items.iter().filter_map(|item| item["subject"].as_str()).collect();
    let file = |name: &str| node.path().join(name).display().to_string();
    assert_eq!(subjects, [file("ca_cert.pem").as_str(), &file("admin_cert.pem"), "c"]);
    for item in items {
        for field in ["check", "what", "why", "mend"] {
            assert!(item[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {item}");
        }
    }
}
