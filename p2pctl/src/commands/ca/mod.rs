//! `p2pctl ca`: care for the CA of a cluster.

pub(crate) mod backup;
mod passphrase;
pub(crate) mod restore;
pub(crate) mod rotate;
mod sealed;

use crate::{
    error::{Failure, Outcome},
    output::Output,
    session::Session,
};
use clap::{Args, Subcommand};
use p2p_node::identity::backup::BackupError;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Rotate(rotate::RotateArgs),
}

/// Where the CA's files are.
#[derive(Debug, Args)]
pub(crate) struct CaFiles {
    /// Directory with ca_cert.pem and ca_key.pem
    #[arg(long, value_name = "DIR", default_value = "certs")]
    ca_dir: PathBuf,
    /// The CA's certificate, as ssl_ca_cert_file names it, if not ca_cert.pem in --ca-dir
    #[arg(long, value_name = "FILE")]
    ca_cert_file: Option<PathBuf>,
    /// The CA's private key, as ssl_ca_key_file names it, if not ca_key.pem in --ca-dir
    #[arg(long, value_name = "FILE")]
    ca_key_file: Option<PathBuf>,
}

impl CaFiles {
    fn cert(&self) -> PathBuf {
        self.ca_cert_file.clone().unwrap_or_else(|| self.ca_dir.join("ca_cert.pem"))
    }

    fn key(&self) -> PathBuf {
        self.ca_key_file.clone().unwrap_or_else(|| self.ca_dir.join("ca_key.pem"))
    }
}

/// Runs the verb.
pub(crate) async fn run(command: &CaCommand, session: &Session<'_>, output: &Output) -> Outcome {
    match command {
        CaCommand::Backup(args) => backup::run(args, output).await,
        CaCommand::Restore(args) => restore::run(args, output).await,
        CaCommand::Rotate(args) => rotate::run(args, session, output).await,
    }
}

fn failure(error: BackupError) -> Failure {
    Failure::other(error.to_string())
}
