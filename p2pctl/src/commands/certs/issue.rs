//! `p2pctl certs issue`

use super::generate::{failure, written};
use crate::{
    error::{Exit, Outcome},
    output::Output,
};
use clap::Args;
use p2p_core::NodeId;
use p2p_node::identity::{AdminRequest, UnixTime, issue_admin};
use std::{num::NonZeroU32, path::PathBuf};

/// Makes a certificate for one more admin
///
/// Use it to give each person an admin's certificate of their own, so that the audit log tells who did what. It takes the
/// key of the cluster's root. Prints the files it wrote; the key is readable by its owner only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl certs issue --admin ann
  p2pctl certs issue --admin ann --days 90 --out certs --force")]
pub(crate) struct IssueArgs {
    /// Who it is for; audit logs and rules of access call the admin so
    #[arg(long, value_name = "NAME")]
    admin: NodeId,
    /// Validity
    #[arg(long, default_value = "30")]
    days: NonZeroU32,
    /// Directory of ca_cert.pem and ca_key.pem, and for the new files
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// Replace a certificate that is there
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub(crate) fn run(args: IssueArgs, output: &Output) -> Outcome {
    let request = AdminRequest { out: args.out, name: args.admin, days: args.days.get(), force: args.force };
    let files = issue_admin(&request, UnixTime::now()).map_err(failure)?;
    written(&files, output)?;
    Ok(Exit::Success)
}
