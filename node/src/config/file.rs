//! Where the configuration of a node comes from, to be read at its start and again while it runs.

use super::{Config, ConfigErrors};
use std::path::{Path, PathBuf};

/// A configuration file, with what overrides it: the environment, and then `--set`.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    sets: Vec<String>,
}

impl ConfigFile {
    /// The file at `path`, overridden by `sets` (`KEY=VALUE`).
    pub fn new(path: impl Into<PathBuf>, sets: Vec<String>) -> Self {
        Self { path: path.into(), sets }
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it, as it is now. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Every mistake in every source.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.path, std::env::vars(), &self.sets)
    }
}
