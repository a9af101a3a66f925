//! What `p2pctl certs` prints, against golden files; and how the program ends.
//!
//! Times, serial numbers and the like differ from run to run: `normalized` replaces them.

mod support;

use std::{path::Path, process::Output};
use support::golden::session;

fn p2pctl(dir: &Path, args: &[&str]) -> Output {
    support::p2pctl(dir).args(args).output().expect("p2pctl runs")
}

fn assert_golden(name: &str, text: &str) {
    support::golden::assert_golden(name, &normalized(text));
}

/// Replaces times by `TIME`, long hexadecimal numbers by `HEX` and this host's name by `HOST`; columns shrink
/// to two spaces, because the widths depend on what was replaced.
fn normalized(text: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    let word = |word: &str| {
        let bare = word.trim_matches(['"', ',']);
        let is_time = bare.len() == 20 && bare.ends_with('Z') && bare.as_bytes()[10] == b'T';
        let is_days = matches!(bare, "3650" | "3649" | "3650d" | "3649d");
        let is_hex = bare.len() >= 30 && bare.chars().all(|c| c.is_ascii_hexdigit());
        if is_time {
            word.replace(bare, "TIME")
        } else if is_days {
            // A day is over as soon as the clock ticks between making and reading.
            word.replace(bare, "DAYS")
        } else if is_hex {
            word.replace(bare, "HEX")
        } else if host.is_empty() {
            word.to_owned()
        } else {
            word.replace(&format!(",{host},"), ",").replace(&format!(",{host}"), "")
        }
    };
    let line = |line: &str| {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let columns = line.trim().split("  ").map(str::trim).filter(|column| !column.is_empty());
        let columns = columns.map(|column| column.split(' ').map(word).collect::<Vec<_>>().join(" "));
        let text = columns.collect::<Vec<_>>().join("  ");
        (text != format!("\"{host}\",")).then_some(indent + &text)
    };
    text.lines().filter_map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn a_cluster_is_set_up_grown_and_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = session(
        dir.path(),
        &[
            "certs generate --cluster-id shop --node coordinator-1:coordinator --node api-1 --san 10.0.0.7",
            "certs generate --node api-2",
            "certs generate --node api-2",
            "certs inspect certs/ca_cert.pem certs/api-1_cert.pem certs/admin_cert.pem",
            "certs verify --ca certs/ca_cert.pem certs/coordinator-1_cert.pem certs/api-2_cert.pem",
            "certs issue --admin ann",
            "certs issue --admin ann",
            "certs issue --admin ann --out elsewhere",
            "certs generate --cluster-id other --out other --node api-1 -o json",
            "certs verify --ca certs/ca_cert.pem other/api-1_cert.pem certs/ca_key.pem",
        ],
    );
    assert_golden("certs_cluster", &text);
}

#[test]
fn structured_output_is_what_scripts_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = session(
        dir.path(),
        &[
            "certs generate --cluster-id shop --node api-1 -o yaml",
            "certs inspect certs/admin_cert.pem -o json",
            "certs verify --ca certs/ca_cert.pem certs/admin_cert.pem certs/ca_cert.pem -o json",
        ],
    );
    assert_golden("certs_structured", &text);
}

#[test]
fn wrong_use_ends_with_a_sentence_and_its_exit_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = session(
        dir.path(),
        &[
            "certs inspect missing.pem",
            "certs verify missing.pem",
            "certs inspect missing.pem -o json",
            "certs generate --node api-1:king -o json",
            "certs generate --node a --node a",
            "cluster nodes",
            "health -o json",
            "--ca missing.pem cluster status",
            "--endpoint nowhere rpc list -o json",
        ],
    );
    assert_golden("usage", &text);
}

#[test]
fn nobody_at_the_address_is_exit_5_in_both_protocols() {
    let dir = tempfile::tempdir().expect("a directory");
    p2pctl(dir.path(), &["certs", "generate"]);
    // A port that was free a moment ago, and is not handed out again at once.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let endpoint = listener.local_addr().expect("bound").to_string();
    drop(listener);
    for verb in
        [["cluster", "nodes"].as_slice(), &["cluster", "status"], &["rpc", "list"], &["health"], &["metrics"]]
    {
        let args =
            [["--endpoint", &endpoint, "--ca", "certs/ca_cert.pem", "-o", "json"].as_slice(), verb].concat();
        let output = p2pctl(dir.path(), &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{verb:?}: {stderr}");
        assert!(output.stdout.is_empty());
        let start = format!(
            r#"{{"schema":"p2pctl/v1","kind":"Error","code":"unavailable","message":"cannot reach {endpoint}: connection refused."#
        );
        assert!(stderr.starts_with(&start), "{verb:?}: {stderr}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().expect("a directory");
    p2pctl(dir.path(), &["certs", "generate"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = support::p2pctl(dir.path())
        .args(["certs", "inspect", "certs/ca_cert.pem"])
        .stdout(writer)
        .status()
        .expect("p2pctl runs");
    assert_eq!(status.code(), Some(0));
}
