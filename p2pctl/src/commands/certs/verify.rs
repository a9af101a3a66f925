//! `p2pctl certs verify`

use super::read;
use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Output,
        table::{Cell, Table, Tone},
    },
};
use clap::Args;
use p2p_node::identity::{self, UnixTime};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Checks certificates against a CA as a node would
///
/// Use it before you hand out or install files: issued by that CA, in time, one SPIFFE id of its cluster. If
/// NAME_key.pem lies beside NAME_cert.pem, it must be the certificate's key. Exit code 1 if any fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl certs verify --ca certs/ca_cert.pem certs/worker_cert.pem
  p2pctl certs verify \\
      --ca certs/ca_cert.pem certs/admin_cert.pem certs/worker_cert.pem -o json")]
pub(crate) struct VerifyArgs {
    /// PEM file: the certificate, then its intermediates
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Verdict {
    file: PathBuf,
    valid: bool,
    spiffe_id: Option<String>,
    /// Why it is not valid.
    reason: Option<String>,
}

/// Runs the verb; `ca` is the global flag.
pub(crate) fn run(args: &VerifyArgs, ca: Option<&Path>, output: &Output) -> Outcome {
    let ca = ca.ok_or_else(|| Failure::usage("pass --ca FILE, the CA certificate to check against"))?;
    let ca_pem = read(ca)?;
    let mut verdicts = Vec::new();
    for file in &args.files {
        verdicts.push(verdict(file, &ca_pem, &read(file)?));
    }
    output.list("VerificationList", &verdicts, |_| table(&verdicts))?;
    if verdicts.iter().all(|verdict| verdict.valid) { Ok(Exit::Success) } else { Ok(Exit::Failure) }
}

fn verdict(file: &Path, ca_pem: &[u8], pem: &[u8]) -> Verdict {
    let key = key_beside(file).and_then(|path| fs::read(path).ok());
    let result = identity::verify(ca_pem, pem, key.as_deref(), UnixTime::now());
    Verdict {
        file: file.to_owned(),
        valid: result.is_ok(),
        spiffe_id: result.as_ref().ok().map(|certificate| certificate.spiffe.to_string()),
        reason: result.err().map(|error| error.to_string()),
    }
}

/// `x_key.pem` for `x_cert.pem`.
fn key_beside(file: &Path) -> Option<PathBuf> {
    let stem = file.file_name()?.to_str()?.strip_suffix("_cert.pem")?;
    Some(file.with_file_name(format!("{stem}_key.pem")))
}

fn table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new(&["FILE", "VALID", "HOLDER OR REASON"]);
    for verdict in verdicts {
        let (word, tone) = if verdict.valid { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
        let text = verdict.spiffe_id.as_deref().or(verdict.reason.as_deref()).unwrap_or_default();
        table.row(vec![verdict.file.display().to_string().into(), Cell::new(word, tone), text.into()]);
    }
    table
}
