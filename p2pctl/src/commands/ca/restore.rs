//! `p2pctl ca restore`

use super::{
    CaFiles, failure,
    passphrase::{PassphraseSource, ask_once},
    sealed,
};
use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, progress::waiting},
};
use clap::Args;
use p2p_node::identity::backup::{Contents, check_free};
use serde::Serialize;
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};
use tokio::task::spawn_blocking;

/// Longest backup that is read, in bytes: far above what a CA comes to.
const MAX_BACKUP_LEN: u64 = 4 * 1024 * 1024;

/// Brings a CA back from a file that `p2pctl ca backup` wrote
///
/// Use it on the host of a new coordinator when the old one is lost. A CA that is there is never overwritten, and
/// nothing is written unless the passphrase opens the file and key and certificate belong together.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl ca restore shop-ca.backup
  p2pctl ca restore /media/usb/shop-ca.backup --ca-dir /etc/p2p/certs
  p2pctl ca restore shop-ca.backup --passphrase-file -")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    files: CaFiles,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Restored<'a> {
    files: &'a [PathBuf],
    made_at: &'a str,
    ca: &'a str,
}

/// Runs the verb.
pub(crate) async fn run(args: &RestoreArgs, output: &Output) -> Outcome {
    let (cert, key) = (args.files.cert(), args.files.key());
    check_free(&key).map_err(failure)?;
    let encrypted = read(&args.file)?;
    sealed::check(&encrypted).map_err(|error| about(&args.file, error))?;
    let passphrase = match args.passphrase.read()? {
        Some(passphrase) => passphrase,
        None => ask_once()?,
    };
    let opening = spawn_blocking(move || sealed::open(&encrypted, &passphrase));
    let opened = waiting("decrypting", opening).await.map_err(|error| Failure::other(error.to_string()))?;
    let bytes = opened.map_err(|error| about(&args.file, error))?;
    let contents = Contents::parse(&bytes).map_err(|error| about(&args.file, failure(error)))?;
    let ca = contents.ca().map_err(failure)?;
    let made_at = contents.made_at().to_owned();
    let files = contents.restore(&cert, &key).map_err(failure)?;
    output.note(&format!("Restored {} as it was on {made_at}.", ca.subject()));
    let restored = Restored { files: &files, made_at: &made_at, ca: ca.subject() };
    output.object("CaRestored", &restored, |_| {
        files.iter().map(|file| format!("{}\n", file.display())).collect()
    })?;
    Ok(Exit::Success)
}

fn about(file: &Path, failure: Failure) -> Failure {
    Failure { message: format!("{}: {}", file.display(), failure.message), ..failure }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BACKUP_LEN + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        if missing { Failure::not_found(message) } else { Failure::other(message) }
    })?;
    if bytes.len() as u64 > MAX_BACKUP_LEN {
        return Err(Failure::other(format!("{} is too long to be a backup of a CA", path.display())));
    }
    Ok(bytes)
}
