//! The Rust parts of scripts/benchmark.sh.
//!
//! | file | what it holds |
//! |---|---|
//! | `bare` | what we compare with: the greeter on tonic's own server, on one thread |
//! | `load` | a closed-loop driver of unary calls over TLS, with its own clock |
//! | `pace` | an open-loop driver at a fixed rate, which counts failures, for scripts/measure_failover.py |
//! | `token` | verification of access tokens against the bare library call |
//! | `revocations` | what 100,000 live revocations cost |
//! | `process` | the processor time of the processes under test |
//!
//! They know nothing of a cluster: the script starts the nodes and says where they are.

mod bare;
mod load;
mod pace;
mod process;
#[expect(dead_code, reason = "only nodes publish descriptors")]
#[path = "../greeter/proto.rs"]
mod proto;
mod revocations;
#[path = "../greeter/service.rs"]
mod service;
mod token;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Parts of scripts/benchmark.sh.
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
    /// Calls demo.v1.Greeter/SayHello at a fixed rate and prints one line of JSON
    Pace(pace::PaceArgs),
    /// Verifies access tokens and prints one line of JSON
    Token(token::TokenArgs),
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
        Part::Pace(args) => pace::run(&args),
        Part::Token(args) => token::run(&args),
        Part::Revocations(args) => revocations::run(&args),
    }
}
