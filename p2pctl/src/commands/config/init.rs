//! `p2pctl config init`

use super::{edit::edit, file::FileOption};
use crate::{
    error::{Exit, Failure, Outcome},
    files,
    output::Output,
};
use clap::{Args, ValueEnum};
use p2p_core::{ClusterId, NodeId};
use p2p_node::config::{Config, SeedAddress};
use serde::Serialize;
use serde_yaml::Value;
use std::{
    fmt::Display,
    fs,
    io::{self, BufRead, IsTerminal as _, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

/// The commented examples that a new file is made from.
const COORDINATOR: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/coordinator.yaml"));
const WORKER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/worker.yaml"));
/// What is told in the examples only: how to use them as they are.
const TO_USE: &str = "#\n# To use: ";
/// How often a question is asked before giving up.
const TRIES: usize = 3;

/// Writes the configuration file of a new node, with every key explained
///
/// Use it on a host that shall run a node. What no flag says is asked on the terminal; without one, --role is needed,
/// and a worker needs --coordinator-address. An existing file is never replaced: change it with `p2pctl config set`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config init --file c-1.yaml --role coordinator --node-id c-1
  p2pctl config init --file w-1.yaml --role worker --node-id w-1 \\
      --coordinator-address 10.0.0.5:8001
  p2pctl config init --file w-2.yaml --role worker --node-id w-2 \\
      --coordinator-address '[2001:db8::5]:8001' --port 9001")]
pub(crate) struct InitArgs {
    /// What the node is; one coordinator, or two, per cluster
    #[arg(long)]
    role: Option<NodeRole>,
    /// Name of the node, unique in its cluster; that of the host if not given
    #[arg(long, value_name = "ID")]
    node_id: Option<NodeId>,
    /// Cluster that it belongs to; that of its certificate if not given
    #[arg(long, value_name = "ID")]
    cluster_id: Option<ClusterId>,
    /// The one port of the node
    #[arg(long, default_value_t = 8001, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// A node of the cluster to find it by; repeat for more
    #[arg(long = "coordinator-address", value_name = "HOST:PORT")]
    coordinator_addresses: Vec<Address>,
    /// Directory of the certificates; certs beside the file if not given
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Directory of the node's state; /var/lib/p2p-node for a file in /etc/p2p, else data beside the file
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
    #[command(flatten)]
    file: FileOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NodeRole {
    /// Holds CA authority beside what a worker does
    Coordinator,
    /// Publishes, routes and serves calls
    Worker,
}

impl FromStr for NodeRole {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        ValueEnum::from_str(text, true).map_err(|_| "write coordinator or worker".to_owned())
    }
}

/// An address as the configuration takes it, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address(String);

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<SeedAddress>().map_err(|why| format!("{why}; write HOST:PORT"))?;
        drop(address);
        Ok(Self(text.to_owned()))
    }
}

#[derive(Serialize)]
struct WrittenFile<'a> {
    path: &'a Path,
}

/// Runs the verb.
pub(super) fn run(args: &InitArgs, output: &Output) -> Outcome {
    let path = &args.file.file;
    if path.symlink_metadata().is_ok() {
        return Err(Failure::other(format!("{} exists already", path.display()))
            .hint("Change it with `p2pctl config set`, or name another one with --file"));
    }
    let answers = Answers::of(args)?;
    let text = answers.file(args)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)
            .map_err(|error| Failure::other(format!("cannot make {}: {error}", directory.display())))?;
    }
    files::create(path, &text)
        .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
    output.object("File", &WrittenFile { path }, |_| format!("{}\n", path.display()))?;
    output.note(&answers.next(args));
    Ok(Exit::Success)
}

/// What must be known, by a flag or by asking.
#[derive(Debug)]
struct Answers {
    role: NodeRole,
    node_id: NodeId,
    addresses: Vec<Address>,
}

impl Answers {
    fn of(args: &InitArgs) -> Result<Self, Failure> {
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        let mut asking = terminal.then(|| Asking { input: io::stdin().lock(), output: io::stderr() });
        // The node's own default for its name.
        let host = Config::from_yaml("", "").ok().map(|config| config.node_id);
        Self::from(args, asking.as_mut(), host)
    }

    fn from(
        args: &InitArgs,
        mut asking: Option<&mut Asking<impl BufRead, impl Write>>,
        host: Option<NodeId>,
    ) -> Result<Self, Failure> {
        let role = match (args.role, &mut asking) {
            (Some(role), _) => role,
            (None, Some(asking)) => asking.ask("Is it a coordinator or a worker?", Some("worker"))?,
            (None, None) => {
                return Err(Failure::usage("--role is missing").hint("Write --role coordinator or worker"));
            }
        };
        let node_id = match (&args.node_id, &mut asking, host) {
            (Some(id), _, _) => id.clone(),
            (None, Some(asking), host) => {
                asking.ask("The node's name?", host.as_ref().map(NodeId::as_str))?
            }
            (None, None, Some(host)) => host,
            (None, None, None) => {
                return Err(Failure::usage("--node-id is missing, and the host's name is no node's"));
            }
        };
        let mut addresses = args.coordinator_addresses.clone();
        if role == NodeRole::Worker && addresses.is_empty() {
            let Some(asking) = asking else {
                let failure = Failure::usage("--coordinator-address is missing");
                return Err(failure.hint("A worker finds its cluster by the address of any node, HOST:PORT"));
            };
            addresses = vec![asking.ask("The address of a node of the cluster, HOST:PORT?", None)?];
        }
        Ok(Self { role, node_id, addresses })
    }

    /// The text of the file, which the node takes.
    fn file(&self, args: &InitArgs) -> Result<String, Failure> {
        let template = match self.role {
            NodeRole::Coordinator => COORDINATOR,
            NodeRole::Worker => WORKER,
        };
        let mut text = without_use(template);
        let certificates = self.certificates(args);
        let addresses = self.addresses.iter().map(|address| Value::from(address.0.as_str())).collect();
        let path = |path: &Path| Value::from(path.display().to_string());
        let mut values = vec![
            ("node_id", Value::from(self.node_id.as_str())),
            ("port", Value::from(args.port)),
            ("coordinator_addresses", Value::Sequence(addresses)),
            ("ssl_cert_file", path(&certificates.join(format!("{}_cert.pem", self.node_id)))),
            ("ssl_key_file", path(&certificates.join(format!("{}_key.pem", self.node_id)))),
            ("state_directory", path(&self.state_directory(args))),
        ];
        let cluster = args.cluster_id.as_ref();
        values.extend(cluster.map(|cluster| ("cluster_id", Value::from(cluster.as_str()))));
        for (key, value) in values {
            let splice = edit(&text, key, Some(&value))
                .map_err(|why| Failure::other(format!("the example's {key} {why}")))?;
            text = splice.map_or(text.clone(), |splice| splice.apply(&text));
        }
        let checked = Config::from_yaml(&text, &args.file.file.display().to_string());
        checked.map(|_| text).map_err(|errors| Failure::usage(errors.to_string()))
    }

    fn certificates(&self, args: &InitArgs) -> PathBuf {
        args.certs.clone().unwrap_or_else(|| args.file.file.with_file_name("certs"))
    }

    fn state_directory(&self, args: &InitArgs) -> PathBuf {
        let file = &args.file.file;
        args.state_directory.clone().unwrap_or_else(|| match file.starts_with("/etc/p2p") {
            true => "/var/lib/p2p-node".into(),
            false => file.with_file_name("data").join(self.node_id.as_str()),
        })
    }

    /// What to do with the file.
    fn next(&self, args: &InitArgs) -> String {
        let file = args.file.file.display();
        match self.role {
            NodeRole::Coordinator => format!(
                "`p2p-node --config {file}` starts it, and makes a CA in {} if there is none.",
                self.certificates(args).display()
            ),
            NodeRole::Worker => format!(
                "`p2p-node --config {file} --join @TOKENFILE` starts it with a token of `p2pctl cluster join-token \
                 create`; with certificates in {}, leave --join out.",
                self.certificates(args).display()
            ),
        }
    }
}

/// The example without the lines on how to use it.
fn without_use(template: &str) -> String {
    let start = template.find(TO_USE).unwrap_or(template.len());
    let end = template[start..].find("\n\n").map_or(template.len(), |at| start + at + 1);
    [&template[..start], &template[end..]].concat()
}

/// Somebody at a terminal.
struct Asking<I, O> {
    input: I,
    output: O,
}

impl<I: BufRead, O: Write> Asking<I, O> {
    /// Asks until the answer fits; an empty one is `default`.
    fn ask<T: FromStr<Err: Display>>(&mut self, question: &str, default: Option<&str>) -> Result<T, Failure> {
        let failed = |error: io::Error| Failure::other(format!("cannot ask on the terminal: {error}"));
        for _ in 0..TRIES {
            let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
            write!(self.output, "{question}{shown} ").and_then(|()| self.output.flush()).map_err(failed)?;
            let mut line = String::new();
            if self.input.read_line(&mut line).map_err(failed)? == 0 {
                break;
            }
            let answer =
                Some(line.trim()).filter(|answer| !answer.is_empty()).or(default).unwrap_or_default();
            match answer.parse() {
                Ok(answer) => return Ok(answer),
                Err(why) => writeln!(self.output, "{why}").map_err(failed)?,
            }
        }
        Err(Failure::usage("no answer that fits")
            .hint("Nothing was written; `p2pctl config init --help` has flags"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: InitArgs,
    }

    fn args(line: &str) -> InitArgs {
        Line::try_parse_from(std::iter::once("init").chain(line.split_whitespace())).expect("parses").args
    }

    fn answers(line: &str, typed: &str) -> (Result<Answers, Failure>, String) {
        let mut asking = Asking { input: typed.as_bytes(), output: Vec::new() };
        let answers = Answers::from(&args(line), Some(&mut asking), "web-1".parse().ok());
        (answers, String::from_utf8(asking.output).expect("text"))
    }

    #[test]
    fn what_no_flag_says_is_asked() {
        let (given, asked) = answers("", "\n\nnowhere\n10.0.0.5:8001\n");
        let given = given.expect("enough");
        assert_eq!((given.role, given.node_id.as_str()), (NodeRole::Worker, "web-1"));
        assert_eq!(given.addresses, [Address("10.0.0.5:8001".to_owned())]);
        assert!(
            asked.starts_with("Is it a coordinator or a worker? [worker] The node's name? [web-1] "),
            "{asked}"
        );
        assert!(asked.contains("the port is missing; write HOST:PORT\n"), "{asked}");

        let (given, asked) = answers("--role coordinator --node-id c-1", "");
        assert!(given.is_ok() && asked.is_empty(), "{asked}");
        let (given, _) = answers("--role worker", "a\nb c\n");
        assert!(given.expect_err("the input has ended").message.starts_with("no answer that fits"));
    }

    #[test]
    fn the_file_is_the_commented_example_with_the_answers() {
        for role in ["coordinator", "worker"] {
            let line = format!(
                "--role {role} --node-id n-1 --cluster-id shop --coordinator-address [::1]:9 --port 9001"
            );
            let args = args(&format!("{line} --file /etc/p2p/node.yaml"));
            let answers = Answers::from(&args, None::<&mut Asking<&[u8], Vec<u8>>>, None).expect("enough");
            let text = answers.file(&args).expect("a file");
            let config = Config::from_yaml(&text, "node.yaml").expect("valid");
            assert_eq!((config.node_id.as_str(), config.port), ("n-1", 9001));
            assert_eq!(config.coordinator_mode, role == "coordinator");
            assert_eq!(config.coordinator_addresses[0].to_string(), "[::1]:9");
            assert_eq!(config.cluster_id.as_ref().map(ClusterId::as_str), Some("shop"));
            assert_eq!(config.ssl_key_file, Path::new("/etc/p2p/certs/n-1_key.pem"));
            assert_eq!(config.state_directory, Path::new("/var/lib/p2p-node"));
            assert!(
                text.contains("\n# cluster_id: \"p2p-core\"\ncluster_id: shop\n"),
                "below its explanation"
            );
            assert!(!text.contains("To use") && text.contains("\n\n# --- Identity"), "{}", &text[..900]);
            assert!(text.len() > 10_000, "the explanations stay");
        }
    }
}
