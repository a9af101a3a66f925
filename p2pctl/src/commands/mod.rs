//! One file per verb: its arguments, its help, what it does. Groups of verbs are folders.

pub(crate) mod ca;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod man;
pub(crate) mod metrics;
pub(crate) mod rpc;
pub(crate) mod services;
pub(crate) mod token;
pub(crate) mod top;

mod http;

use crate::{
    cli::{Cli, Command},
    error::{Failure, Outcome},
    output::Output,
    session::Session,
};
use std::{future::Future, pin::Pin, process::ExitCode};

/// Runs the verb that the command line names.
pub(crate) fn run(mut cli: Cli, output: &Output) -> ExitCode {
    if cli.command.connects()
        && let Err(failure) = crate::context::complete(&mut cli.global, cli.command.shows_token())
    {
        return output.failure(&failure);
    }
    let session = Session::new(&cli.global);
    let outcome = match cli.command {
        Command::Dev(args) => block_on(dev::run(&args, output)),
        Command::DevNode(args) => return dev::node::run(&args, output),
        Command::Certs(certs::CertsCommand::Generate(args)) => certs::generate::run(args, output),
        Command::Certs(certs::CertsCommand::Issue(args)) => certs::issue::run(args, output),
        Command::Certs(certs::CertsCommand::Inspect(args)) => certs::inspect::run(&args, output),
        Command::Certs(certs::CertsCommand::Verify(args)) => {
            certs::verify::run(&args, cli.global.ca.as_deref(), output)
        }
        Command::Ca(command) => block_on(ca::run(&command, &session, output)),
        Command::Cluster(cluster::ClusterCommand::Nodes(args)) => {
            block_on(cluster::nodes::run(&args, &session, output))
        }
        Command::Cluster(cluster::ClusterCommand::Status(_)) => {
            block_on(cluster::status::run(&session, output))
        }
        Command::Cluster(cluster::ClusterCommand::Why(args)) => {
            block_on(cluster::why::run(&args, &session, output))
        }
        Command::Cluster(cluster::ClusterCommand::Events(args)) => {
            block_on(cluster::events::run(&args, &session, output))
        }
        Command::Cluster(cluster::ClusterCommand::Evict(args)) => {
            block_on(cluster::evict::run(&args, &session, output))
        }
        Command::Cluster(cluster::ClusterCommand::Readmit(args)) => {
            block_on(cluster::readmit::run(&args, &session, output))
        }
        Command::Cluster(cluster::ClusterCommand::JoinToken(command)) => {
            block_on(cluster::join_token::run(&command, &session, output))
        }
        Command::Rpc(rpc::RpcCommand::List(_)) => block_on(rpc::list::run(&session, output)),
        Command::Rpc(rpc::RpcCommand::Describe(args)) => {
            block_on(rpc::describe::run(&args, &session, output))
        }
        Command::Rpc(rpc::RpcCommand::Call(args)) => block_on(rpc::call::run(&args, &session, output)),
        Command::Services(command) => block_on(services::run(&command, &session, output)),
        Command::Rpc(rpc::RpcCommand::Broadcast(args)) => {
            block_on(rpc::broadcast::run(&args, &session, output))
        }
        Command::Completions(args) => completions::run(&args, output),
        Command::Man(args) => man::run(&args, output),
        Command::Context(command) => context::run(&command, output),
        Command::Config(command) => block_on(config::run(&command, &session, output)),
        Command::Token(command) => block_on(token::run(&command, &session, output)),
        Command::Doctor(args) => block_on(doctor::run(&args, &session, output)),
        Command::Health(_) => block_on(health::run(&session, output)),
        Command::Top(args) => block_on(top::run(&args, &session, output)),
        Command::Metrics(args) => block_on(metrics::run(&args, &session, output)),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => output.failure(&failure),
    }
}

/// One thread is enough for one question. Boxed, because else the runtime is compiled anew around each verb.
fn block_on<'a>(verb: impl Future<Output = Outcome> + 'a) -> Outcome {
    drive(Box::pin(verb))
}

fn drive(verb: Pin<Box<dyn Future<Output = Outcome> + '_>>) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the I/O driver: {error}")))?
        .block_on(verb)
}
