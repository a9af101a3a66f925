use super::*;
use proptest::prelude::*;
use std::{fs, net::SocketAddr, time::Duration};

mod mistakes;

/// The full example that the project was founded with. It must load unchanged in every release.
const FOUNDING_EXAMPLE: &str = r#"# coordinator.yaml
node_id: "coordinator-1"
port: 8001
bind_address: "0.0.0.0"
coordinator_mode: true

# Adaptive Gossip
gossip_interval_min: 5
gossip_interval_max: 30
gossip_interval_current: 10
gossip_compression_enabled: true
gossip_compression_threshold: 1024

# Rate Limiting
rate_limit_enabled: true
rate_limit_rpc_requests: 200
rate_limit_rpc_burst: 40
rate_limit_health_requests: 600
rate_limit_health_burst: 100

# HTTPS
https_enabled: true
ssl_cert_file: "coordinator_cert.pem"
ssl_key_file: "coordinator_key.pem"

# Persistence
state_directory: "data/coordinator"
jwt_blacklist_file: "jwt_blacklist.json"
gossip_state_file: "gossip_state.json"
service_state_file: "service_state.json"
"#;

fn yaml(text: &str) -> Result<Config, ConfigErrors> {
    Config::from_yaml(text, "node.yaml")
}

fn valid(text: &str) -> Config {
    yaml(&format!("node_id: n\n{text}")).unwrap()
}

/// The messages of a configuration whose first line is `node_id: n`.
fn errors(text: &str) -> String {
    yaml(&format!("node_id: n\n{text}")).unwrap_err().to_string()
}

/// Loads a file with `text` under `env` and `sets`; errors call it node.yaml.
fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.yaml");
    fs::write(&file, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::load(&file, env, &sets)
        .map_err(|errors| errors.to_string().replace(&format!("{}/", directory.path().display()), ""))
}

#[test]
fn the_founding_example_loads_unchanged() {
    let config = yaml(FOUNDING_EXAMPLE).unwrap();
    assert_eq!(config.node_id.as_str(), "coordinator-1");
    assert!(config.coordinator_mode && config.https_enabled && config.rate_limit_enabled);
    assert_eq!(config.gossip_interval_max, Duration::from_secs(30));
    assert_eq!((config.rate_limit_rpc_requests, config.rate_limit_rpc_burst), (200, 40));
    assert_eq!((config.rate_limit_health_requests, config.rate_limit_health_burst), (600, 100));
    assert_eq!(config.ssl_ca_cert_file, Path::new("ca_cert.pem"));
    assert_eq!(config.state_directory, Path::new("data/coordinator"));
    assert_eq!(config.service_state_file.as_str(), "service_state.json");
}

#[test]
fn what_is_not_set_has_its_default() {
    for text in ["", "# nothing but a comment\n", "port:\nzone: ~\n"] {
        let config = valid(text);
        assert_eq!(config.cluster_id, None);
        assert_eq!(config.port, 8001);
        assert_eq!(config.bind_address.to_string(), "0.0.0.0");
        assert!(config.coordinator_addresses.is_empty() && config.advertise_addresses.is_empty());
        assert_eq!(config.zone, "");
        assert!(config.labels.as_map().is_empty());
        assert_eq!((config.peer_connections_max.get(), config.connections_max.get()), (256, 10_000));
        assert_eq!((config.rate_limit_grpc_requests, config.rate_limit_default_burst), (0, 30));
        assert_eq!(config.rpc_max_message_bytes, 4 * 1024 * 1024);
        assert_eq!(config.log_format, LogFormat::Pretty);
        assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    }
}

#[test]
fn the_table_tells_each_key_and_its_default() {
    for key in keys() {
        let line = format!("{}: {}\n", key.name, key.default);
        let text = if key.name == "node_id" { String::new() } else { line };
        assert!(yaml(&format!("node_id: n\n{text}")).is_ok(), "{} does not read its default", key.name);
        assert!(key.doc.ends_with('.') && key.doc.len() > 25 && !key.doc.contains("  "), "{}", key.doc);
    }
    let port = keys().iter().find(|key| key.name == "port").unwrap();
    assert_eq!((port.default, port.expected), ("8001", "a whole number from 0 to 65535"));
}

#[test]
fn the_example_files_load_and_list_every_key() {
    for (name, port, seeds) in [("coordinator", 8001, 0), ("worker", 8002, 1)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../config/{name}.yaml"));
        let config = Config::load(&path, std::iter::empty(), &[]).unwrap();
        assert_eq!(config.node_id.as_str(), name);
        assert_eq!(config.port, port);
        assert_eq!(config.coordinator_mode, name == "coordinator");
        assert_eq!(config.coordinator_addresses.len(), seeds);
        assert_eq!(config.ssl_cert_file, Path::new(&format!("certs/{name}_cert.pem")));
        assert_eq!(config.ssl_ca_key_file, Path::new("certs/ca_key.pem"));

        let text = fs::read_to_string(&path).unwrap();
        for key in keys() {
            let mentions = text
                .lines()
                .filter(|line| line.strip_prefix("# ").unwrap_or(line).starts_with(&format!("{}:", key.name)))
                .count();
            assert_eq!(mentions, 1, "{name}.yaml lists {} {mentions} times", key.name);
        }
        // The marks say what the table says. A paragraph may explain several keys.
        for paragraph in text.split("\n\n") {
            let of_paragraph = |key: &&Key| {
                let starts = format!("{}:", key.name);
                paragraph.lines().any(|line| line.strip_prefix("# ").unwrap_or(line).starts_with(&starts))
            };
            for key in keys().iter().filter(of_paragraph) {
                let marked = paragraph.contains("[reload]");
                assert_eq!(marked, key.takes_effect == TakesEffect::AtReload, "{name}.yaml: {}", key.name);
            }
        }
        // What is commented out must be valid too, once somebody wants it.
        let is_key = |line: &str| keys().iter().any(|key| line.starts_with(&format!("{}:", key.name)));
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        yaml(&uncommented).unwrap();
    }
}

#[test]
fn what_is_shown_of_a_configuration_reads_as_that_configuration() {
    let rich = "cluster_id: shop\nlisten_socket: /run/p2p.sock\ncoordinator_addresses: [\"[::1]:1\", \"c.example:2\"]\n\
                advertise_addresses: [10.0.0.5, '[::1]:9']\nlabels: {disk: ssd, '5': 'yes'}\ngossip_interval_min: 2500ms\n\
                trusted_proxies: [10.0.0.0/8, '::1']\nlog_format: json\naudit_log: stderr\nzone: '5'\n\
                access:\n\
                - {methods: ['shop.*', '*'], allow: [anonymous, authenticated, admin, node, token, ci-bot, 'uid:5']}\n\
                - {methods: ['a.B/C', 'a.B/*'], allow: ['spiffe://shop/worker/*', 'spiffe://shop/admin/ann']}\n\
                rate_limit_overrides:\n\
                - {methods: ['shop.*'], requests: 60, burst: 5, shared: true}\n\
                - {clients: [ci-bot], requests: 0}\n\
                services:\n\
                - {name: a.B, upstream: 'http://127.0.0.1:1/'}\n\
                - {name: a.C, upstream: 'https://h:2', tls_ca: ca.pem, health: tcp, health_interval: 1, \
                   max_concurrent: 3, descriptors: c.bin}\n";
    for config in [valid(""), valid(rich)] {
        let shown: String = config
            .values()
            .iter()
            .map(|(key, value)| format!("{}: {}\n", key.name, serde_json::to_string(value).unwrap()))
            .collect();
        let read = yaml(&shown).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
        assert!(config.differences(&read).is_empty(), "{shown}");
        assert_eq!(config.values(), read.values());
    }
}

#[test]
fn who_gave_a_value_is_known_and_follows_a_reload() {
    let given = |config: &Config, name: &str| {
        config.given_by(keys().iter().find(|key| key.name == name).unwrap()).word()
    };
    let file = "node_id: n\nport: 1\nzone: a\nlog_level: info\n";
    let mut before =
        load(file, &[("P2PNODE_ZONE", "b"), ("P2PNODE_LOG_LEVEL", "")], &["shutdown_grace=3s"]).unwrap();
    assert_eq!(
        ["port", "zone", "log_level", "shutdown_grace", "access"].map(|key| given(&before, key)),
        ["file", "environment", "default", "argument", "default"]
    );
    before.take_over(load("node_id: n\nlog_level: debug\n", &[], &[]).unwrap());
    assert_eq!(
        ["port", "zone", "log_level"].map(|key| given(&before, key)),
        ["file", "default", "file"],
        "the port stays what it was at the start"
    );
}

#[test]
fn a_running_node_takes_over_what_the_table_says_and_keeps_the_rest() {
    let before = yaml("node_id: n\nport: 1\nrate_limit_rpc_burst: 5\n").unwrap();
    let after =
        yaml("node_id: n\nport: 2\nrate_limit_rpc_burst: 6\naccess: [{methods: [x.*], allow: [admin]}]\n")
            .unwrap();
    let names = |config: &Config, other: &Config| -> Vec<&str> {
        config.differences(other).iter().map(|key| key.name).collect()
    };
    assert_eq!(names(&before, &before.clone()), [""; 0]);
    assert_eq!(names(&before, &after), ["port", "rate_limit_rpc_burst", "access"]);
    let mut running = before.clone();
    running.take_over(after.clone());
    assert_eq!((running.port, running.rate_limit_rpc_burst), (1, 6));
    assert_eq!(names(&running, &after), ["port"], "it still needs a restart");
    assert_eq!(names(&running, &before), ["rate_limit_rpc_burst", "access"]);
}

#[test]
fn later_sources_win_and_an_empty_value_returns_to_the_default() {
    let file = "node_id: n\nport: 1\nzone: a\n";
    let port = |env: &[(&str, &str)], sets: &[&str]| load(file, env, sets).unwrap().port;
    assert_eq!(port(&[], &[]), 1);
    assert_eq!(port(&[("P2PNODE_PORT", "2"), ("PORT", "9"), ("P2PNODE", "9")], &[]), 2);
    assert_eq!(port(&[("P2PNODE_PORT", "2")], &["port=3"]), 3);
    assert_eq!(port(&[("P2PNODE_PORT", "2")], &["port=3", "port=4"]), 4);
    assert_eq!(port(&[("P2PNODE_PORT", "2")], &["port="]), 8001);
    assert_eq!(port(&[("P2PNODE_PORT", "")], &[]), 8001);

    let config = load(
        file,
        &[("P2PNODE_COORDINATOR_ADDRESSES", "[a:1, '[::1]:2']")],
        &["labels={disk: ssd}", "zone=b=c"],
    )
    .unwrap();
    assert_eq!(config.coordinator_addresses[1].to_string(), "[::1]:2");
    assert_eq!(config.labels.as_map()["disk"], "ssd");
    assert_eq!(config.zone, "b=c");
}

#[test]
fn typed_values_arrive_as_types() {
    let config = valid(
        "advertise_addresses: [10.0.0.5, '10.0.0.6:1']
shutdown_grace: 250ms
log_format: json
\
         ssl_cert_file: /etc/p2p/node_cert.pem
log_level: info,p2p_node=debug
bind_address: '::'
\
         zone: &zone eu
labels: {zone: *zone}
",
    );
    let own: Vec<SocketAddr> = config.advertise_addresses.iter().map(|a| a.socket_addr(8001)).collect();
    assert_eq!(own, ["10.0.0.5:8001".parse().unwrap(), "10.0.0.6:1".parse().unwrap()]);
    assert_eq!(config.shutdown_grace, Duration::from_millis(250));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.ssl_ca_cert_file, Path::new("/etc/p2p/ca_cert.pem"));
    assert_eq!(config.labels.as_map()["zone"], "eu", "aliases work");
}

/// `line => message after the key`.
const MISFITS: &str = r#"
port: 65536 => found 65536, expected a whole number from 0 to 65535
port: '1' => found "1", expected a whole number from 0 to 65535
port: 1.5 => found 1.5, expected a whole number from 0 to 65535
port: {a: b} => found a mapping, expected a whole number from 0 to 65535
connections_max: 0 => found 0, expected a whole number from 1 to 4294967295
rate_limit_rpc_requests: -1 => found -1, expected a whole number from 0 to 4294967295
coordinator_mode: yes => found "yes", expected true or false
coordinator_mode: on => found "on", expected true or false
coordinator_mode: 1 => found 1, expected true or false
bind_address: localhost => found "localhost" (invalid IP address syntax), expected an IP address such as 0.0.0.0, 127.0.0.1 or ::
shutdown_grace: 5 s => found "5 s", expected seconds or a duration such as 250ms, 5s, 2m, 1h or 30d
shutdown_grace: -5 => found -5, expected seconds or a duration such as 250ms, 5s, 2m, 1h or 30d
shutdown_grace: 99999d => found "99999d" (a duration is at most 36500d), expected seconds or a duration such as 250ms, 5s, 2m, 1h or 30d
coordinator_addresses: a:1 => found "a:1", expected a list such as ["10.0.0.5:8001", "coordinator.example:8001"]
coordinator_addresses: ['a:1', b] => found item 2: "b" (the port is missing), expected a list such as ["10.0.0.5:8001", "coordinator.example:8001"]
advertise_addresses: [0.0.0.0] => found item 1: "0.0.0.0" (others cannot reach an unspecified address; set the one they should dial, such as 10.0.0.5, or leave advertise_addresses empty to have it found), expected a list such as ["10.0.0.5"] or ["10.0.0.5:8001"]
labels: [a] => found a list, expected a mapping such as {disk: ssd}
labels: {a: 1} => found 1 (put it in quotes to make it text), expected a mapping such as {disk: ssd}
labels: {'a=b': c} => found a mapping (label name "a=b" is not 1 to 63 of letters, digits, '.', '_', '-' and '/'), expected a mapping such as {disk: ssd}
gossip_state_file: ../g => found "../g" (it may not lead out of state_directory; set that key to move the files), expected a file name without a directory
gossip_state_file: lock => found "lock" (the node keeps another file of that name), expected a file name without a directory
ssl_cert_file: '' => found "", expected a path
log_format: xml => found "xml" (there is no such format), expected pretty or json
log_level: inof => found "inof", did you mean info?
log_level: ' ' => found " ", expected error, warn, info, debug, trace, or a filter such as info,p2p_node=debug
"#;

proptest! {
    #[test]
    fn no_text_panics(text in "(.|\\n){0,200}") {
        let shown = yaml(&text).map_err(|errors| errors.to_string());
        prop_assert!(shown.is_ok() || shown.is_err_and(|message| !message.is_empty()));
    }

    #[test]
    fn no_value_of_a_known_key_panics(index in 0..keys().len(), value in ".{0,40}") {
        let key = keys()[index];
        for line in [format!("{}: {value}", key.name), format!("{}: {value:?}", key.name)] {
            if let Err(errors) = yaml(&line) {
                prop_assert_eq!(errors.to_string().lines().count(), errors.errors.len());
            }
        }
    }
}
