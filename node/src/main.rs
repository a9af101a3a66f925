//! The daemon.

use clap::Parser;
use p2p_node::{
    app::{self, EXIT_CONFIG},
    config::ConfigFile,
    enrol::JoinSource,
};
use std::{io::Write as _, path::PathBuf, process::ExitCode};

/// A node of a P2P Core cluster: gossip, RPC routing and an HTTP gateway on one TLS port.
///
/// Configuration comes from FILE; P2PNODE_<KEY> in the environment overrides it, and --set overrides both.
/// SIGTERM and SIGINT shut down gracefully, a second one at once; SIGHUP and `p2pctl config reload` have the node
/// read its configuration and certificates again, all or nothing; the log says what takes a restart.
#[derive(Debug, Parser)]
#[command(
    name = "p2p-node",
    version,
    after_help = "Examples:\n  \
        p2p-node --config config/coordinator.yaml\n  \
        p2p-node --config config/worker.yaml --set port=8003 --set node_id=worker-2\n  \
        P2PNODE_LOG_LEVEL=debug p2p-node --config config/worker.yaml\n  \
        p2p-node --config config/worker.yaml --join @join-token\n  \
        p2p-node --config config/worker.yaml --check\n\n\
        Exit codes: 0 stopped as asked, 1 failure, 2 usage, 78 bad configuration"
)]
struct Arguments {
    /// The YAML configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Override one key; VALUE is YAML, an empty one returns the key to its default
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Join a cluster with a token of `p2pctl cluster join-token create`, from @FILE, or from standard input
    ///
    /// Without effect when the node has a certificate. A token on the command line is seen by every user of
    /// the host, in its list of processes; a file or standard input is not.
    #[arg(long, value_name = "TOKEN|@FILE|-", value_parser = source)]
    join: Option<JoinSource>,

    /// Accept access tokens although revocations on disk were lost
    ///
    /// A node that finds them damaged refuses tokens until another node has told it everything again. Where there is none,
    /// this says that what was revoked may work again.
    #[arg(long)]
    accept_state_loss: bool,

    /// Check the configuration and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = ConfigFile::new(arguments.config, arguments.sets);
    if arguments.check {
        return check(&file);
    }
    app::run_with_services(file, |node| {
        Ok(node.join_with(arguments.join).accept_state_loss(arguments.accept_state_loss))
    })
}

fn check(file: &ConfigFile) -> ExitCode {
    // A closed stream leaves nobody to tell; the exit code still does.
    match file.load() {
        Err(errors) => {
            writeln!(std::io::stderr(), "{errors}").ok();
            ExitCode::from(EXIT_CONFIG)
        }
        Ok(_) => {
            writeln!(std::io::stdout(), "{}: the configuration is valid", file.path().display()).ok();
            ExitCode::SUCCESS
        }
    }
}

fn source(argument: &str) -> Result<JoinSource, std::convert::Infallible> {
    Ok(JoinSource::from_argument(argument))
}
