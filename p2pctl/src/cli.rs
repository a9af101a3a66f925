//! The flags and the tree of verbs, as clap reads them. What a verb takes and how its help reads stands
//! in the verb's own file.

use crate::{
    commands::{
        ca, certs, cluster, completions, config, context, dev, doctor, health, man, metrics, rpc, services,
        token, top,
    },
    output::Format,
    session::TokenSource,
};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use p2p_client::Endpoint;
use std::{path::PathBuf, sync::LazyLock, time::Duration};

const EXIT_CODES: &str = "\
Exit codes:
  0 ok              1 failure          2 usage       3 not found
  4 not authenticated or denied        5 unreachable
  6 degraded, or findings              7 partial (broadcast)
  8 timed out
  64 + gRPC code    `rpc call`: the called method itself answered with an error

Examples:
  p2pctl dev                                   a local cluster in one command
  p2pctl certs generate --node api-1:worker    certificates for a real one
  p2pctl --ca certs/ca_cert.pem --cert certs/admin_cert.pem \\
      --key certs/admin_key.pem cluster nodes";

/// Administers a P2P Core cluster: certificates, members, calls, and a local cluster to try it all
///
/// Connects to any one node; a node answers for the whole cluster. Data goes to stdout, everything else
/// to stderr.
#[derive(Debug, Parser)]
#[command(name = "p2pctl", version, long_version = build(), after_help = EXIT_CODES, max_term_width = 100)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The flags that every verb takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalOptions {
    /// Node to connect to; http:// before it means without TLS. Without this flag it is that of the context; without a
    /// context, and with no flag that says who you are or whom you trust, the socket of this host's node
    /// (/run/p2p/node.sock) if there is one
    #[arg(long, global = true, env = "P2PCTL_ENDPOINT", value_name = "HOST:PORT|unix:PATH")]
    #[arg(default_value = "127.0.0.1:8001")]
    pub(crate) endpoint: Endpoint,
    /// CA certificate of the cluster, as PEM
    #[arg(long, global = true, env = "P2PCTL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to show the node, usually an admin's
    #[arg(long, global = true, env = "P2PCTL_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of --cert
    #[arg(long, global = true, env = "P2PCTL_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Access token to show the node; @FILE reads a file, - stdin. It comes before --cert
    #[arg(long, global = true, env = "P2PCTL_TOKEN", hide_env_values = true, value_name = "TOKEN|@FILE|-")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) token: Option<TokenSource>,
    /// Context to connect with instead of the current one; what other flags and the environment say comes before it
    #[arg(long, global = true, env = "P2PCTL_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Output format
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
    /// How long connecting and each call may take, as in 500ms, 5s or 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = timeout)]
    pub(crate) timeout: Duration,
    /// Whether a flag or the environment names the endpoint.
    #[arg(skip)]
    pub(crate) endpoint_given: bool,
    /// The context that named it.
    #[arg(skip)]
    pub(crate) endpoint_of: Option<String>,
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.global.endpoint_given = !is_default(&matches, "endpoint");
        Ok(cli)
    }
}

/// Whether nobody gave `name` a value, at any level of the command line or in the environment.
fn is_default(matches: &clap::ArgMatches, name: &str) -> bool {
    let given = |source| !matches!(source, Some(clap::parser::ValueSource::DefaultValue) | None);
    let here = matches.try_contains_id(name).is_ok() && given(matches.value_source(name));
    !here && matches.subcommand().is_none_or(|(_, deeper)| is_default(deeper, name))
}

/// What `--version` says; -V says the version alone.
fn build() -> &'static str {
    static BUILD: LazyLock<String> = LazyLock::new(|| env!("P2PCTL_BUILD").replace('|', "\n"));
    &BUILD
}

impl Command {
    /// Whether it shows the node the token of --token, and does not act on it.
    pub(crate) fn shows_token(&self) -> bool {
        !matches!(self, Self::Token(token::TokenCommand::Revoke(_)))
    }

    /// Whether it connects to a node, or may.
    pub(crate) fn connects(&self) -> bool {
        match self {
            Self::Dev(_)
            | Self::DevNode(_)
            | Self::Certs(_)
            | Self::Completions(_)
            | Self::Context(_)
            | Self::Man(_) => false,
            Self::Config(command) => command.connects(),
            Self::Ca(_)
            | Self::Cluster(_)
            | Self::Rpc(_)
            | Self::Services(_)
            | Self::Token(_)
            | Self::Top(_)
            | Self::Doctor(_)
            | Self::Health(_)
            | Self::Metrics(_) => true,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(dev::DevArgs),
    #[command(hide = true)]
    DevNode(dev::node::DevNodeArgs),
    /// Makes, shows and checks certificates; works on files, needs no node
    #[command(alias = "cert", subcommand, after_help = "Examples:\n  p2pctl certs generate --help")]
    Certs(certs::CertsCommand),
    /// Backs the CA of the cluster up, brings it back, and replaces it
    #[command(subcommand, after_help = "Examples:\n  p2pctl ca backup --out shop-ca.backup")]
    Ca(ca::CaCommand),
    /// Shows who is in the cluster and how it fares
    #[command(alias = "clusters", subcommand, after_help = "Examples:\n  p2pctl cluster nodes -o wide")]
    Cluster(cluster::ClusterCommand),
    /// Lists, describes and calls the methods that the cluster serves
    #[command(alias = "rpcs", subcommand, after_help = "Examples:\n  p2pctl rpc list")]
    Rpc(rpc::RpcCommand),
    /// Lists services, and makes processes beside a node provide them
    #[command(alias = "service", subcommand, after_help = "Examples:\n  p2pctl services list -o wide")]
    Services(services::ServicesCommand),
    /// Issues access tokens and shows what they say
    #[command(alias = "tokens", subcommand)]
    #[command(after_help = "Examples:\n  p2pctl token issue --subject ci --scope 'shop.*'")]
    Token(token::TokenCommand),
    /// Shows, changes and checks the configuration file of a node, and has the node read it
    #[command(alias = "configs", subcommand)]
    #[command(after_help = "Examples:\n  p2pctl config set port 9001 --file config/worker.yaml --dry-run")]
    Config(config::ConfigCommand),
    /// Chooses the cluster that is meant where no flag says so
    #[command(alias = "contexts", subcommand, after_help = "Examples:\n  p2pctl context list")]
    Context(context::ContextCommand),
    Top(top::TopArgs),
    Doctor(doctor::DoctorArgs),
    Health(health::HealthArgs),
    #[command(alias = "metric")]
    Metrics(metrics::MetricsArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Longest time that a call may take; nobody waits longer than a day.
const MAX_TIMEOUT: Duration = Duration::from_hours(24);

/// A duration above zero, as configuration files write it.
fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = p2p_node::config::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        return Err("write a time above 0 and up to 24h, as in 5s".to_owned());
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_reads_as_people_write_it() {
        for (text, millis) in
            [("5s", 5_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("7", 7_000)]
        {
            assert_eq!(timeout(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "s", "5 s", "-1s", "0s", "1.5s", "2d", "nan", "25h"] {
            assert!(timeout(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_tree_of_verbs_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn singular_and_plural_names_both_work() {
        for words in [
            ["p2pctl", "cert", "inspect", "x.pem"].as_slice(),
            &["p2pctl", "certs", "inspect", "x.pem"],
            &["p2pctl", "cluster", "node"],
            &["p2pctl", "clusters", "nodes"],
            &["p2pctl", "cluster", "join-tokens", "list"],
            &["p2pctl", "rpcs", "list"],
            &["p2pctl", "service", "list"],
            &["p2pctl", "metric"],
            &["p2pctl", "tokens", "inspect"],
        ] {
            assert!(Cli::try_parse_from(words).is_ok(), "{words:?}");
        }
    }

    /// Every verb says what it does, when to use it, and shows examples that parse.
    #[test]
    fn no_verb_has_thin_help() {
        fn check(command: &clap::Command, path: &str, thin: &mut Vec<String>) {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                let is_group = verb.has_subcommands();
                let about = verb.get_about().is_some();
                let when = verb.get_long_about().is_some_and(|text| text.to_string().contains("Use it"));
                if !about || !(is_group || when) || !help.contains("Examples:\n") {
                    thin.push(path.clone());
                }
                // Wider lines are broken by clap, and no longer what one can paste.
                let example = |line: &&str| line.starts_with("  ") && line.chars().count() > 80;
                let wide: Vec<&str> = help.lines().filter(example).collect();
                assert!(wide.is_empty(), "{path}: {wide:?}");
                let help = help.replace("\\\n      ", "");
                for example in help.lines().filter_map(|line| line.trim().strip_prefix("p2pctl ")) {
                    let words = example
                        .split(" | ")
                        .flat_map(|part| part.split(" > "))
                        .next()
                        .unwrap_or_default()
                        .split("  ")
                        .next();
                    let words = shell_words(words.unwrap_or_default());
                    let parsed = Cli::try_parse_from(std::iter::once("p2pctl".to_owned()).chain(words));
                    let fine = parsed.as_ref().err().is_none_or(|error| !error.use_stderr());
                    assert!(fine, "example of {path} does not parse: {example}");
                }
                check(verb, &path, thin);
            }
        }
        let mut thin = Vec::new();
        check(&Cli::command(), "p2pctl", &mut thin);
        assert!(thin.is_empty(), "without description, \"Use it ...\" or examples: {thin:?}");
    }

    fn shell_words(line: &str) -> Vec<String> {
        line.split('\'')
            .enumerate()
            .flat_map(|(index, part)| {
                let quoted = index % 2 == 1;
                let whole = quoted.then(|| vec![part.to_owned()]);
                whole.unwrap_or_else(|| part.split_whitespace().map(str::to_owned).collect())
            })
            .collect()
    }
}
