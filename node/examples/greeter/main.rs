//! A node with a service of its own, described by its own .proto.
//!
//! ```text
//! cargo run -p p2p-node --example greeter -- --config config/worker.yaml
//! p2pctl rpc call demo.v1.Greeter/SayHello '{"name": "world"}'
//! ```
//!
//! Every other node of the cluster then routes calls of `demo.v1.Greeter` here; callers need no header and no
//! sidecar, only the .proto.

mod proto;
mod service;

use clap::Parser;
use p2p_node::{app, config::ConfigFile};
use proto::greeter_server::GreeterServer;
use service::Greetings;
use std::{path::PathBuf, process::ExitCode};

/// A node that greets.
#[derive(Debug, Parser)]
struct Arguments {
    /// The YAML configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override one key
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    app::run_with_services(ConfigFile::new(arguments.config, arguments.sets), |node| {
        let greetings = Greetings { node: node.config().node_id.to_string() };
        node.add_service(GreeterServer::new(greetings), proto::DESCRIPTORS)
    })
}
