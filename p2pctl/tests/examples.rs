//! Every example of every `--help`, run as it is printed against a local cluster.

mod support;

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path, process::Command};
use support::{Dev, p2pctl, text};

/// Examples that are not run, and why. One that is no longer printed must leave the list.
const NOT_RUN: &[(&str, &str)] = &[
    ("p2pctl dev", "runs until Ctrl-C; dev.rs runs it with --once"),
    ("p2pctl dev --workers 5 --base-port 9001 --dir scratch", "runs until Ctrl-C"),
    ("p2pctl dev --once", "takes port 8001; dev.rs runs it on another one"),
    (
        "p2pctl certs generate --cluster-id shop --node coordinator-1:coordinator --node api-1 --san 10.0.0.7",
        "another cluster than the one of the example before; certs.rs runs it",
    ),
    ("p2pctl ca backup --out shop-ca.backup", "asks for a passphrase on the terminal; ca.rs passes a file"),
    ("p2pctl ca backup --ca-dir /etc/p2p/certs --out /media/usb/shop-ca.backup", "paths of another host"),
    (
        "p2pctl ca backup --out shop-ca.backup --passphrase-file /run/secrets/ca-passphrase",
        "a path of another host",
    ),
    ("p2pctl ca restore shop-ca.backup", "asks for a passphrase on the terminal; ca.rs passes a file"),
    ("p2pctl ca restore /media/usb/shop-ca.backup --ca-dir /etc/p2p/certs", "paths of another host"),
    ("p2pctl ca restore shop-ca.backup --passphrase-file -", "needs the passphrase; ca.rs passes it"),
    ("p2pctl ca rotate", "takes minutes; the node's tests rotate"),
    ("p2pctl ca rotate --no-wait", "begins what takes minutes; the node's tests rotate"),
    ("p2pctl ca rotate --force worker-7 --force worker-8", "only while a rotation waits for nodes"),
    (
        "p2pctl --ca certs/ca_cert.pem --cert certs/admin_cert.pem --key certs/admin_key.pem cluster nodes",
        "the cluster's own certificates lie elsewhere",
    ),
    ("p2pctl --ca certs/ca_cert.pem health", "the cluster's own certificates lie elsewhere"),
    ("p2pctl --endpoint 10.0.0.7:8001 health -o json", "an address of another host"),
    (
        "p2pctl --endpoint 10.0.0.7:8001 services list -o json | jq '.items[].upstream'",
        "an address of another host",
    ),
    (
        "p2pctl --endpoint worker-1:8001 token revocations -o json | jq '.items[].name'",
        "an address of another host",
    ),
    ("p2pctl cluster join-token create | ssh host 'p2p-node --config worker.yaml --join -'", "another host"),
    (
        "p2pctl cluster join-token revoke 0f6c1d3a9b2e4c5d8e7f00112233445a",
        "a token's id is another one each time",
    ),
    ("p2pctl cluster nodes --watch", "runs until Ctrl-C"),
    ("p2pctl cluster events --follow", "runs until Ctrl-C"),
    (
        "p2pctl rpc broadcast shop.Cache/Flush '{\"prefix\": \"users/\"}' --role worker --label disk=ssd",
        "a service of one's own",
    ),
    (
        "p2pctl rpc call demo.v1.Greeter/Repeat '{\"name\": \"you\", \"count\": 3}' -o json",
        "a service of one's own",
    ),
    (
        "echo '{\"name\": \"a\"} {\"name\": \"b\"}' | p2pctl rpc call demo.v1.Greeter/Gather -",
        "a service of one's own",
    ),
    (
        "p2pctl services register shop.Orders --upstream http://127.0.0.1:50051",
        "a process of one's own; services.rs has one",
    ),
    (
        "p2pctl services register shop.Orders --upstream http://127.0.0.1:50051 --descriptors shop.bin --health tcp",
        "a process of one's own",
    ),
    (
        "p2pctl services register shop.Search --upstream https://localhost:8443 --tls-ca search_ca.pem --max-concurrent 64",
        "a process of one's own",
    ),
    ("p2pctl services deregister shop.Orders", "a process of one's own"),
    ("p2pctl services drain shop.Orders", "a process of one's own"),
    ("p2pctl services drain shop.Orders --wait 2m", "a process of one's own"),
    ("p2pctl services enable shop.Orders", "a process of one's own"),
    ("p2pctl services disable shop.Orders", "a process of one's own"),
    ("p2pctl top", "draws on a terminal until q; top.rs gives it one"),
    ("p2pctl top --sort calls --filter zone-a", "draws on a terminal until q"),
    ("p2pctl token revoke --token @leaked.token", "would need a token to lose; tokens.rs revokes"),
];

/// Examples that end with 6, which says that something was found.
const FINDS: &[&str] = &[
    "p2pctl cluster evict worker-3 -o json | jq .missing",
    // A cluster of `p2pctl dev` has a CA that was never backed up.
    "p2pctl doctor",
    "p2pctl doctor --expires-within 14d",
    "p2pctl doctor --expires-within 90d -o json | jq -r '.items[] | \"\\(.subject): \\(.mend)\"'",
];

/// The examples below `path`, in the order of the help.
fn examples(dir: &Path, path: &[String], found: &mut Vec<String>) {
    let output = p2pctl(dir).args(path).arg("--help").output().expect("ran");
    let help = text(&output.stdout).replace("\\\n      ", "");
    assert!(output.status.success(), "{path:?}: {}", text(&output.stderr));
    let section = |title: &str| {
        let lines = help.lines().skip_while(move |line| *line != title).skip(1);
        lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    // An example begins its line; what explains it stands two spaces behind.
    let lines = section("Examples:").into_iter().filter(|line| line.contains("p2pctl"));
    found.extend(lines.map(|line| line.trim().split("  ").next().unwrap_or_default().to_owned()));
    for line in section("Commands:") {
        // A longer description goes on in lines that are indented deeper.
        let Some(verb) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) else { continue };
        let verb = verb.split_whitespace().next().expect("a verb").to_owned();
        if verb != "help" {
            examples(dir, &[path, &[verb]].concat(), found);
        }
    }
}

/// A place where the files that examples name are there.
fn furnish(dir: &Path, dev: &Dev) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::create_dir_all(dir.join("bin")).expect("made");
    symlink(env!("CARGO_BIN_EXE_p2pctl"), dir.join("bin/p2pctl")).expect("made");
    fs::create_dir(dir.join("config")).expect("made");
    for name in ["coordinator.yaml", "worker.yaml"] {
        fs::copy(repository.join("config").join(name), dir.join("config").join(name)).expect("copied");
    }
    fs::write(dir.join("request.json"), "{\"message\": \"hello\"}").expect("written");
    for directory in [".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"] {
        fs::create_dir_all(dir.join(directory)).expect("made");
    }
    let scopes = ["--scope", "p2p.v1.AuthService/IssueToken", "--scope", "shop.*"];
    let issue = [["token", "issue", "--subject", "ci"].as_slice(), &scopes].concat();
    let token = dev.environment(env!("CARGO_BIN_EXE_p2pctl"), dir).args(issue).output().expect("ran");
    assert!(token.status.success(), "{}", text(&token.stderr));
    fs::write(dir.join("ci.token"), token.stdout).expect("written");
}

#[test]
fn every_example_runs_as_it_is_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    // So many calls in so few seconds are more than a user's.
    let dev = Dev::with(3, &[("P2PNODE_RATE_LIMIT_ENABLED", "false")]);
    furnish(dir.path(), &dev);
    let mut all = Vec::new();
    examples(dir.path(), &[], &mut all);
    assert!(all.len() > 100, "the examples are found: {}", all.len());

    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let path = format!("{}:{}", dir.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let printed: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    for (example, why) in NOT_RUN {
        assert!(printed.contains(example), "no longer printed: {example} ({why})");
    }
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for example in &all {
        if !seen.insert(example) || NOT_RUN.iter().any(|(not_run, _)| not_run == example) {
            continue;
        }
        // What reads the output may not be on this host; what it is given is made all the same.
        let (command, reader) = example.split_once(" | ").unwrap_or((example, ""));
        let reader = reader.split(' ').next().unwrap_or_default();
        let pipe = if reader == "jq" && has(reader) { &example[command.len()..] } else { "" };
        let mut shell = dev.environment("sh", dir.path());
        // The exit code is that of p2pctl.
        let script = format!("{{ {command}; echo $? >status; }}{pipe}");
        let output =
            shell.env("PATH", &path).env("HOME", dir.path()).args(["-c", &script]).output().expect("a shell");
        let status = fs::read_to_string(dir.path().join("status")).unwrap_or_default();
        let expected = if FINDS.contains(&example.as_str()) { ["0", "6"] } else { ["0", "0"] };
        if !expected.contains(&status.trim()) || !output.status.success() {
            wrong.push(format!("$ {example}\n{}[exit {}]", text(&output.stderr), status.trim()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} examples fail:\n{}", wrong.len(), seen.len(), wrong.join("\n"));
}
