//! `p2pctl config` on files: what it prints, and what it leaves of a file.

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};
use support::{
    golden::{assert_golden, session},
    p2pctl, text,
};

const FILE: &str = "\
# The worker of rack 7.
node_id: \"worker-7\"   # as in its certificate

port: 8002
# Where the cluster is found.
coordinator_addresses:
  - 10.0.0.5:8001   # c-1
  - 10.0.0.6:8001
labels: {disk: ssd}

# log_level: info
gossip_interval_current: 10
";

/// A directory with that file as `node.yaml`.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("node.yaml"), FILE).expect("written");
    directory
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).expect("readable")
}

#[test]
fn settings_are_shown_changed_and_taken_out() {
    let dir = directory();
    let shown = session(
        dir.path(),
        &[
            "config get --file node.yaml",
            "config get port --file node.yaml",
            "config get zone --file node.yaml",
            "config get shutdown_grace --file node.yaml",
            "config get coordinator_addresses --file node.yaml",
            "config get labels --file node.yaml -o json",
            "config get --file node.yaml -o yaml",
            "config diff --file node.yaml",
            "config set port 9001 --file node.yaml --dry-run",
            "config set port 9001 --file node.yaml",
            "config set port 9001 --file node.yaml",
            "config set port 9001 --file node.yaml --dry-run",
            "config set log_level info,p2p_node=debug --file node.yaml",
            "config set coordinator_addresses '[10.0.0.5:8001, 10.0.0.9:8001]' --file node.yaml",
            "config set gossip_interval_current 12s --file node.yaml -o json",
            "config unset labels --file node.yaml --dry-run",
            "config unset labels --file node.yaml",
            "config unset labels --file node.yaml",
            "config validate --file node.yaml",
            "config diff --file node.yaml -o json",
        ],
    );
    let left = format!("{shown}$ cat node.yaml\n{}", read(dir.path(), "node.yaml"));
    assert_golden("config_edit", &left);
}

#[test]
fn what_the_node_would_refuse_is_refused_in_the_same_words() {
    let dir = directory();
    fs::write(dir.path().join("wrong.yaml"), "prot: 1\nport: x\nzone: a\n").expect("written");
    fs::write(dir.path().join("broken.yaml"), "port: [1\n").expect("written");
    fs::write(dir.path().join("anchors.yaml"), "node_id: a\nzone: &z eu\nlabels: {zone: *z}\n")
        .expect("written");
    fs::write(dir.path().join("binary.yaml"), b"port: \xff\n").expect("written");
    let shown = session(
        dir.path(),
        &[
            "config set port 70000 --file node.yaml",
            "config set port 70000 --file node.yaml -o json",
            "config set zone 5 --file node.yaml",
            "config set zone '\"5\"' --file node.yaml --dry-run",
            "config set gossip_interval_max 3 --file node.yaml",
            "config set access '[{methods: [shop.*]}]' --file node.yaml",
            "config set port '[' --file node.yaml",
            "config set port '' --file node.yaml",
            "config set prot 1 --file node.yaml",
            "config set nonsense_of_ours 1 --file node.yaml",
            "config get prot --file node.yaml -o json",
            "config get port --file missing.yaml",
            "config unset zone --file broken.yaml",
            "config set zone b --file anchors.yaml",
            "config set port 9001 --file anchors.yaml --dry-run",
            "config validate --file binary.yaml",
            "config validate --file wrong.yaml",
            "config validate --file wrong.yaml -o json",
            "config set zone b --file wrong.yaml",
            "config set port 9001 --file wrong.yaml",
            "config show-defaults prot",
        ],
    );
    assert_golden("config_refused", &shown);
    assert_eq!(read(dir.path(), "node.yaml"), FILE, "what is refused changes nothing");
}

#[test]
fn a_file_is_made_for_a_new_node_which_the_node_takes() {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = session(
        dir.path(),
        &[
            "config init --file c-1.yaml --role coordinator --node-id c-1 --cluster-id shop",
            "config diff --file c-1.yaml",
            "config init --file w-1.yaml --role worker --node-id w-1 --coordinator-address 10.0.0.5:8001 --port 9001",
            "config diff --file w-1.yaml",
            "config validate --file w-1.yaml",
            "config init --file w-1.yaml --role worker",
            "config init --file other.yaml",
            "config init --file other.yaml --role worker --node-id w-2",
            "config init --file other.yaml --role worker --node-id W",
            "config init --file other.yaml --role worker --node-id w-2 --coordinator-address nowhere",
            "config init --file deep/er/w-2.yaml --role worker --node-id w-2 --coordinator-address c-1:8001 -o json",
            "config show-defaults port shutdown_grace",
            "config show-defaults node_id -o json",
        ],
    );
    assert_golden("config_init", &shown);
    let file = read(dir.path(), "w-1.yaml");
    assert!(file.starts_with("# A worker: a node that"), "{}", &file[..300]);
    assert!(file.contains("\nnode_id: \"w-1\"\n") && file.contains("\n# shutdown_grace: 10s\n"));
}

#[test]
fn show_defaults_explains_every_key_and_is_itself_a_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = p2pctl(dir.path()).args(["config", "show-defaults"]).output().expect("ran");
    fs::write(dir.path().join("node.yaml"), [b"node_id: a\n", output.stdout.as_slice()].concat())
        .expect("written");
    let valid = p2pctl(dir.path()).args(["config", "validate", "--file", "node.yaml"]).output().expect("ran");
    assert!(valid.status.success(), "{}{}", text(&valid.stdout), text(&valid.stderr));
    let keys = text(&output.stdout).lines().filter(|line| line.starts_with("# Expected: ")).count();
    assert_eq!(keys, p2p_node::config::keys().len());
}

#[test]
fn the_environment_names_the_file() {
    let dir = directory();
    let get = |args: &[&str]| {
        let mut command = p2pctl(dir.path());
        text(
            &command
                .env("P2P_CONFIG", "node.yaml")
                .args(["config", "get", "port"])
                .args(args)
                .output()
                .expect("ran")
                .stdout,
        )
    };
    assert_eq!(get(&[]), "8002\n");
    fs::write(dir.path().join("other.yaml"), "port: 7\n").expect("written");
    assert_eq!(get(&["--file", "other.yaml"]), "7\n");
}

#[test]
fn a_file_keeps_its_mode_its_link_and_its_place() {
    let dir = directory();
    let file = dir.path().join("node.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
    symlink("node.yaml", dir.path().join("link.yaml")).expect("made");
    let owner = fs::metadata(&file).map(|data| (data.uid(), data.gid())).expect("there");
    let set = |value: &str| {
        let args = ["config", "set", "port", value, "--file", "link.yaml"];
        p2pctl(dir.path()).args(args).output().expect("ran")
    };
    assert!(set("9001").status.success());
    assert!(fs::symlink_metadata(dir.path().join("link.yaml")).expect("there").is_symlink());
    let metadata = fs::metadata(&file).expect("there");
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    assert_eq!((metadata.uid(), metadata.gid()), owner);
    assert_eq!(read(dir.path(), "node.yaml"), FILE.replace("port: 8002", "port: 9001"));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).expect("ours");
    let refused = set("9002");
    let why = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("link.yaml is read-only. `chmod u+w` makes it writable"), "{why}");
    assert!(read(dir.path(), "node.yaml").contains("port: 9001"));
    let left: Vec<_> =
        fs::read_dir(dir.path()).expect("readable").flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn of_edits_at_one_moment_none_is_lost() {
    let dir = directory();
    let edits = [("port", "9001"), ("zone", "b"), ("log_level", "debug"), ("calls_max", "2048")];
    let running: Vec<_> = edits
        .iter()
        .map(|(key, value)| {
            let mut command = p2pctl(dir.path());
            command.args(["config", "set", key, value, "--file", "node.yaml"]).spawn().expect("started")
        })
        .collect();
    for mut edit in running {
        assert!(edit.wait().expect("ended").success());
    }
    let file = read(dir.path(), "node.yaml");
    for (key, value) in edits {
        assert!(file.lines().any(|line| line == format!("{key}: {value}")), "{key} is lost:\n{file}");
    }
}
