//! The configuration file: which one, its text, and replacing it whole.

use super::{edit::Splice, patch};
use crate::{error::Failure, files};
use clap::Args;
use p2p_core::suggest::nearest;
use p2p_node::config::{self, Key};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::PathBuf,
};

/// Longest text that is read, in bytes: above what the node takes, which says so.
const MAX_LEN: u64 = 2 * 1024 * 1024;

/// Which file is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct FileOption {
    /// The node's configuration file
    #[arg(long, env = "P2P_CONFIG", value_name = "FILE", default_value = "/etc/p2p/node.yaml")]
    pub(super) file: PathBuf,
}

/// A file and what it holds.
#[derive(Debug)]
pub(super) struct ConfigFile {
    /// As the user named it.
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Held from before it was read, so that of two edits at one moment none is lost.
    lock: Option<files::Locked>,
}

impl FileOption {
    /// Reads the file.
    pub(super) fn read(&self) -> Result<ConfigFile, Failure> {
        let path = self.file.clone();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes));
        if let Err(error) = read {
            let message = format!("cannot read {}: {error}", path.display());
            return Err(if error.kind() == io::ErrorKind::NotFound {
                Failure::not_found(message)
                    .hint("Name the file with --file or P2P_CONFIG, or write one with `p2pctl config init`")
            } else {
                denied(Failure::other(message), &error)
            });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let byte = error.utf8_error().valid_up_to() + 1;
            Failure::other(format!("{}: byte {byte} is not UTF-8 text", path.display()))
        })?;
        Ok(ConfigFile { path, text, lock: None })
    }

    /// Reads the file to replace it. Other p2pctl wait.
    pub(super) fn read_to_change(&self) -> Result<ConfigFile, Failure> {
        // What does not exist is told by reading it.
        let Ok(target) = fs::canonicalize(&self.file) else { return self.read() };
        let lock = files::lock(&target).map_err(|error| {
            denied(Failure::other(format!("cannot change {}: {error}", self.file.display())), &error)
        })?;
        Ok(ConfigFile { lock: Some(lock), ..self.read()? })
    }
}

/// The failure, with advice where the user may not do it.
fn denied(failure: Failure, error: &io::Error) -> Failure {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    if denied { failure.hint("Run it as a user who may, such as root with sudo") } else { failure }
}

impl ConfigFile {
    /// The file's name as errors and `p2p-node` show it.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What `splice` changes, as `diff -u` shows it.
    pub(super) fn patch(&self, splice: &Splice) -> String {
        patch::unified(&self.name(), &self.text, &splice.apply(&self.text))
    }

    /// Replaces the file by `text`: afterwards it has either its old contents or the new ones, with the same mode and
    /// owner. A symbolic link stays one.
    pub(super) fn replace(&self, text: &str) -> Result<(), Failure> {
        debug_assert!(self.lock.is_some(), "read_to_change comes before replace");
        let failed = |error: &io::Error| {
            denied(Failure::other(format!("cannot write {}: {error}", self.name())), error)
        };
        let target = fs::canonicalize(&self.path).map_err(|error| failed(&error))?;
        let metadata = fs::metadata(&target).map_err(|error| failed(&error))?;
        if metadata.permissions().readonly() {
            let message = format!("{} is read-only", self.name());
            return Err(Failure::other(message).hint("`chmod u+w` makes it writable; nothing was changed"));
        }
        // A directory that one may write does not make its files ours to replace.
        OpenOptions::new().write(true).open(&target).map_err(|error| failed(&error))?;
        if fs::read(&target).map_err(|error| failed(&error))? != self.text.as_bytes() {
            let message = format!("{} has been changed by somebody else in this moment", self.name());
            return Err(Failure::other(message).hint("Nothing was written; try again"));
        }
        files::replace(&target, text, Some(&metadata)).map_err(|error| failed(&error))
    }
}

/// The key of this name.
pub(super) fn key(name: &str) -> Result<&'static Key, Failure> {
    let keys = config::keys();
    keys.iter().find(|key| key.name == name).ok_or_else(|| {
        let failure = Failure::not_found(format!("there is no key {name:?}"));
        match nearest(name, keys.iter().map(|key| key.name)) {
            Some(nearest) => failure.hint(&format!("Did you mean {nearest}?")),
            None => failure.hint("`p2pctl config show-defaults` lists them all"),
        }
    })
}
