//! The Rust parts of scripts/measure_*.py.
//!
//! | file | what it holds |
//! |---|---|
//! | `bare` | what we compare with: the greeter on tonic's own server, on one thread |
//! | `load` `stream` | closed-loop drivers of unary calls, and of messages on streams, over TLS |
//! | `nats` | the same load as requests over a NATS server |
//! | `idle` `loris` | what idle connections cost, and clients that hold theirs and say next to nothing |
//! | `flood` | a client that takes more than its share, for scripts/measure_flood.py |
//! | `pace` | an open-loop driver at a fixed rate, which counts failures, for scripts/measure_failover.py |
//! | `token` | verification of access tokens against the bare library call |
//! | `durable` | acknowledged revocations beside a bare loop of fsync, for scripts/measure_revocations.py |
//! | `revocations` | what 100,000 live revocations cost |
//! | `measure` `grpc` `process` | the clock and the counts; the drivers' client; processor time and memory of processes |
//!
//! They know nothing of a cluster: the script starts the nodes and says where they are.

mod bare;
mod durable;
mod flood;
mod grpc;
mod idle;
mod load;
mod loris;
mod measure;
mod nats;
mod pace;
mod process;
#[expect(dead_code, reason = "only nodes publish descriptors")]
#[path = "../greeter/proto.rs"]
mod proto;
mod revocations;
#[path = "../greeter/service.rs"]
mod service;
mod stream;
mod token;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Parts of scripts/measure_dataplane.py.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Serves demo.v1.Greeter with tonic's own server until it is killed
    Bare(bare::BareArgs),
    /// Calls demo.v1.Greeter/SayHello and prints one line of JSON
    Load(load::LoadArgs),
    /// Exchanges small messages on streams of demo.v1.Greeter/Chat and prints one line of JSON
    Stream(stream::StreamArgs),
    /// Sends many bytes through one stream of demo.v1.Greeter/Chat and prints one line of JSON
    Bulk(stream::BulkArgs),
    /// Opens connections that stay idle and prints one line of JSON
    Idle(idle::IdleArgs),
    /// Holds connections and says next to nothing, and prints one line of JSON
    Loris(loris::LorisArgs),
    /// Calls demo.v1.Greeter/SayHello without a pause, refused or not, and prints one line of JSON
    Flood(flood::FloodArgs),
    /// Request-reply over a NATS server
    Nats(nats::NatsArgs),
    /// Calls demo.v1.Greeter/SayHello at a fixed rate and prints one line of JSON
    Pace(pace::PaceArgs),
    /// Verifies access tokens and prints one line of JSON
    Token(token::TokenArgs),
    /// Revokes tokens at a coordinator as fast as they are acknowledged and prints one line of JSON
    Revoke(durable::RevokeArgs),
    /// Writes and syncs as fast as the disk does, for many who wait, and prints one line of JSON
    Fsync(durable::FsyncArgs),
    /// Keeps many revocations and prints one line of JSON
    Revocations(revocations::RevocationsArgs),
}

/// PEM files.
#[derive(Clone, Debug, Args)]
struct TlsFiles {
    /// The CA that the other side's certificate must come from
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The certificate to show
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().part {
        Part::Bare(args) => bare::run(args),
        Part::Load(args) => load::run(&args),
        Part::Stream(args) => stream::run(&args),
        Part::Bulk(args) => stream::bulk(&args),
        Part::Idle(args) => idle::run(&args),
        Part::Loris(args) => loris::run(&args),
        Part::Flood(args) => flood::run(&args),
        Part::Nats(args) => nats::run(&args),
        Part::Pace(args) => pace::run(&args),
        Part::Token(args) => token::run(&args),
        Part::Revoke(args) => durable::revoke(&args),
        Part::Fsync(args) => durable::fsync(&args),
        Part::Revocations(args) => revocations::run(&args),
    }
}
