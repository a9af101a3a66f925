//! `p2pctl certs`: certificates as files. Nothing here connects to a node.

pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod issue;
pub(crate) mod verify;

use crate::error::Failure;
use clap::Subcommand;
use std::{fs, path::Path};

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    Generate(generate::GenerateArgs),
    Inspect(inspect::InspectArgs),
    Issue(issue::IssueArgs),
    Verify(verify::VerifyArgs),
}

/// The content of a file that the command line names.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        if missing { Failure::not_found(message) } else { Failure::other(message) }
    })
}
