//! What is refused, and how that is said.

use super::*;

#[test]
fn every_mistake_of_every_source_is_reported_at_once_in_order() {
    let file = "prot: 1\nport: 1\nport: 2\nzone: 5\n\ngossip_interval_max: 3\nnonsense_of_ours: x\n";
    let env = [("P2PNODE_PROT", "2"), ("P2PNODE_port", "2"), ("P2PNODE_SSL_VERIFY", "no")];
    let sets = ["node_id=N", "zon=x", "port", "shutdown_grace=[", "cluster_id=a b"];
    assert_eq!(
        load(file, &env, &sets).unwrap_err().lines().collect::<Vec<_>>(),
        [
            "node.yaml:1: prot: unknown key, did you mean port?",
            "node.yaml:3: port: given more than once, first on line 2; keep one of them",
            "node.yaml:4: zone: found 5 (put it in quotes to make it text), expected text",
            "node.yaml:6: gossip_interval_max: gossip_interval_current (10s) is above gossip_interval_max (3s), \
             expected gossip_interval_min <= gossip_interval_current <= gossip_interval_max",
            "node.yaml:7: nonsense_of_ours: unknown key; config/coordinator.yaml explains the known ones",
            "P2PNODE_PROT: prot: unknown key, did you mean P2PNODE_PORT?",
            "P2PNODE_SSL_VERIFY: ssl_verify: found \"no\", expected true or false",
            "P2PNODE_port: port: unknown key, did you mean P2PNODE_PORT?",
            "--set: zon: unknown key, did you mean zone?",
            "--set: port: expected KEY=VALUE",
            "--set: shutdown_grace: not valid YAML: unclosed bracket '['",
            "--set: node_id: found \"N\" (it contains 'N'; use lower-case letters, digits, '-', '_' and '.'), \
             expected a node id such as worker-1",
            "--set: cluster_id: found \"a b\" (it contains ' '; use lower-case letters, digits, '-', '_' and \
             '.'), expected a cluster id such as p2p-core",
        ]
    );
}

#[test]
fn a_value_that_does_not_fit_says_what_would() {
    for (line, message) in MISFITS.lines().filter_map(|case| case.split_once(" => ")) {
        let key = line.split(':').next().unwrap();
        assert_eq!(errors(line), format!("node.yaml:2: {key}: {message}"), "{line}");
    }
}

#[test]
fn too_many_or_too_long_is_refused() {
    let seeds = "a:1,".repeat(65);
    assert!(
        errors(&format!("coordinator_addresses: [{seeds}]")).contains("65 items, at most 64 are allowed")
    );
    let labels: String = (0..33).map(|n| format!("l{n}: x, ")).collect();
    assert!(errors(&format!("labels: {{{labels}}}")).contains("33 labels, at most 32 are allowed"));
    assert!(errors(&format!("labels: {{a: {}}}", "x".repeat(256))).contains("longer than 255 bytes"));
    assert!(errors(&format!("zone: {}", "x".repeat(64))).contains("at most 63 bytes"));
    let shown = errors(&format!("cluster_id: {}", "X".repeat(500)));
    assert!(shown.len() < 300, "{shown}");
}

#[test]
fn rules_between_keys_name_a_key_that_was_set() {
    for (text, message) in [
        (
            "gossip_interval_min: 15",
            "gossip_interval_min: gossip_interval_min (15s) is above gossip_interval_current (10s), expected \
             gossip_interval_min <= gossip_interval_current <= gossip_interval_max",
        ),
        (
            "https_enabled: false",
            "https_enabled: without TLS a node listens on loopback only and bind_address is 0.0.0.0, expected \
             https_enabled: true or bind_address: \"127.0.0.1\"",
        ),
        (
            "rate_limit_rpc_burst: 0",
            "rate_limit_rpc_burst: a burst of 0 lets no request through, expected at least 1, or \
             rate_limit_enabled: false for no limits",
        ),
        ("rpc_default_timeout: 0", "rpc_default_timeout: found 0, expected a duration above zero"),
        ("enrolled_certificate_ttl: 9s", "enrolled_certificate_ttl: expected a duration of at least 10s"),
        ("rpc_max_message_bytes: 1023", "rpc_max_message_bytes: found 1023, expected at least 1024"),
        (
            "jwt_blacklist_file: gossip_state.json",
            "jwt_blacklist_file: jwt_blacklist_file and gossip_state_file name the same file, expected one for each",
        ),
    ] {
        assert_eq!(errors(text), format!("node.yaml:2: {message}"), "{text}");
    }
}

#[test]
fn rules_between_keys_let_through_what_they_should() {
    valid("https_enabled: false\nbind_address: 127.0.0.1\n");
    valid("https_enabled: false\nbind_address: '::1'\n");
    valid("rate_limit_enabled: false\nrate_limit_rpc_burst: 0\n");
    valid("gossip_interval_min: 3\ngossip_interval_max: 60\n");
    valid("coordinator_mode: false\ncoordinator_addresses: []\n");
    valid("shutdown_grace: 0\nport: 0\n");
    valid("enrolled_certificate_ttl: 10s\nrecover_window: 0\n");
    // A rule is not judged by a value that is itself wrong.
    let lines = errors("gossip_interval_min: x\ngossip_interval_current: 1\n");
    assert_eq!(lines.lines().count(), 1, "{lines}");
}

#[test]
fn a_host_name_that_is_no_node_id_asks_for_one() {
    let load = |host: &str| {
        let mut sources = Sources::new("node.yaml".to_owned());
        sources.add_text("port: 1");
        Config::from_sources(sources, host)
    };
    assert_eq!(load("Web-1.Example").unwrap().node_id.as_str(), "web-1.example");
    assert_eq!(
        load("").unwrap_err().to_string(),
        "node.yaml: node_id: not set, and the host's name \"\" cannot stand in for it (it is empty); set node_id"
    );
}

#[test]
fn a_file_that_is_no_configuration_says_so() {
    for (text, message) in [
        ("just text", "node.yaml: expected lines of the form `key: value`"),
        ("- a\n- b\n", "node.yaml: expected lines of the form `key: value`"),
        ("5", "node.yaml: expected lines of the form `key: value`"),
    ] {
        assert_eq!(yaml(text).unwrap_err().to_string(), message, "{text:?}");
    }
    for (text, start) in [
        ("node_id: n\nport: '1\n", "node.yaml:2: not valid YAML: "),
        ("node_id: n\nport: [1\n", "node.yaml:"),
        ("node_id: n\n---\nport: 1\n", "node.yaml:3: not valid YAML: only single YAML document"),
        ("node_id: n\nlabels: {a: b, a: c}\n", "node.yaml:2: not valid YAML: "),
        ("node_id: n\nport: !custom 5\n", "node.yaml:2: not valid YAML: "),
        ("node_id: n\n<<: {port: 1}\n", "node.yaml:2: <<: unknown key"),
        ("5: x\n", "node.yaml:1: 5: unknown key"),
    ] {
        let shown = yaml(text).unwrap_err().to_string();
        assert!(shown.starts_with(start), "{text:?}: {shown}");
        assert_eq!(shown.lines().count(), 1, "{text:?}: {shown}");
    }
}

#[test]
fn a_missing_unreadable_or_binary_file_says_so() {
    let none =
        Config::load(Path::new("no/such.yaml"), std::iter::empty(), &["prot=1".to_owned()]).unwrap_err();
    assert_eq!(
        none.to_string(),
        "no/such.yaml: cannot be read: No such file or directory (os error 2); name the node's configuration file \
         with --config\n--set: prot: unknown key, did you mean port?"
    );
    let directory = tempfile::tempdir().unwrap();
    let shown = Config::load(directory.path(), std::iter::empty(), &[]).unwrap_err().to_string();
    assert!(shown.contains("Is a directory"), "{shown}");
    let binary = directory.path().join("binary");
    fs::write(&binary, b"port: \xff").unwrap();
    let shown = Config::load(&binary, std::iter::empty(), &[]).unwrap_err().to_string();
    assert!(shown.ends_with("not valid YAML: byte 7 is not UTF-8 text"), "{shown}");
}

#[test]
fn files_and_aliases_have_a_budget() {
    let large = "# padding\n".repeat(110_000);
    let message = "is larger than 1024 KiB; a configuration is not, is this the right file?";
    assert_eq!(yaml(&large).unwrap_err().to_string(), format!("node.yaml: {message}"));
    assert_eq!(load(&large, &[], &[]).unwrap_err(), format!("node.yaml: {message}"));

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let previous = format!("*a{}, ", n - 1).repeat(10);
        bomb.push_str(&format!("a{n}: &a{n} [{previous}]\n"));
    }
    for text in [bomb, format!("zone: {}", "[".repeat(1000)), "x: [a, a, a]\n".repeat(20_000)] {
        let shown = yaml(&text).unwrap_err().to_string();
        assert!(shown.contains("not valid YAML"), "{}", &shown[..200]);
        assert_eq!(shown.lines().count(), 1);
    }
}
