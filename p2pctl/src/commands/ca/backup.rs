//! `p2pctl ca backup`

use super::{
    CaFiles, failure,
    passphrase::{PassphraseSource, ask_twice},
    sealed,
};
use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, progress::waiting},
};
use clap::Args;
use p2p_node::identity::{
    UnixTime,
    backup::{Contents, pin},
};
use serde::Serialize;
use std::path::PathBuf;
use tokio::task::spawn_blocking;

/// Puts the CA's key and certificates under a passphrase into one file
///
/// Use it once after a cluster was set up, and again after `p2pctl ca rotate`: without the key nobody can add a
/// node any more, and nothing brings it back. Run it where the key lies, and keep the file elsewhere, apart from
/// the passphrase. It is an age file: `age -d FILE` opens it, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl ca backup --out shop-ca.backup
  p2pctl ca backup --ca-dir /etc/p2p/certs --out /media/usb/shop-ca.backup
  p2pctl ca backup --out shop-ca.backup \\
      --passphrase-file /run/secrets/ca-passphrase")]
pub(crate) struct BackupArgs {
    /// File to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    files: CaFiles,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Made<'a> {
    file: &'a PathBuf,
    made_at: &'a str,
    ca: &'a str,
    ca_pin: String,
}

/// Runs the verb.
pub(crate) async fn run(args: &BackupArgs, output: &Output) -> Outcome {
    let (cert, key) = (args.files.cert(), args.files.key());
    let contents = Contents::of(&cert, &key, UnixTime::now()).map_err(failure)?;
    if args.out.symlink_metadata().is_ok() {
        return Err(Failure::other(format!("{} exists and is not overwritten", args.out.display())));
    }
    let passphrase = match args.passphrase.read()? {
        Some(passphrase) => passphrase,
        None => ask_twice()?,
    };
    let bytes = contents.to_bytes();
    let sealing = spawn_blocking(move || sealed::seal(&bytes, &passphrase));
    let encrypted =
        waiting("encrypting", sealing).await.map_err(|error| Failure::other(error.to_string()))??;
    contents.save(encrypted, &args.out, &key).map_err(failure)?;
    let ca = contents.ca().map_err(failure)?;
    output.note(&format!(
        "Backed up {} with its key. Keep the file on another host, apart from its passphrase; \
         `p2pctl ca restore` brings it back.",
        ca.subject()
    ));
    let made = Made { file: &args.out, made_at: contents.made_at(), ca: ca.subject(), ca_pin: pin(&ca) };
    output.object("CaBackup", &made, |_| format!("{}\n", args.out.display()))?;
    Ok(Exit::Success)
}
