//! Writing certificate files: complete or not at all, keys never readable by others.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Mode of certificate files.
const PUBLIC: u32 = 0o644;
/// Mode of key files.
const PRIVATE: u32 = 0o600;

/// A file could not be written. Files that the same call had newly created are removed again.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// One file to write.
pub(super) struct NewFile {
    path: PathBuf,
    contents: String,
    mode: u32,
    replace: bool,
}

impl NewFile {
    /// A certificate; `replace` allows the file to exist.
    pub(super) fn certificate(path: PathBuf, pem: String, replace: bool) -> Self {
        Self { path, contents: pem, mode: PUBLIC, replace }
    }

    /// A private key, mode 0600; `replace` allows the file to exist.
    pub(super) fn key(path: PathBuf, pem: String, replace: bool) -> Self {
        Self { path, contents: pem, mode: PRIVATE, replace }
    }
}

/// Writes the files in order and returns their paths. On failure the new ones are removed again, so that
/// the same call can be repeated.
pub(super) fn write_all(files: Vec<NewFile>) -> Result<Vec<PathBuf>, WriteError> {
    let mut created: Vec<&Path> = Vec::new();
    for file in &files {
        let is_new = !file.path.exists();
        if let Err(source) = write(file) {
            for path in created {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!(%error, path = %path.display(), "incomplete certificate file left behind");
                }
            }
            return Err(WriteError { path: file.path.clone(), source });
        }
        if is_new {
            created.push(&file.path);
        }
    }
    Ok(files.into_iter().map(|file| file.path).collect())
}

/// Renames `from` to `to`, beside it, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    let failed = |source| WriteError { path: to.to_owned(), source };
    fs::rename(from, to).and_then(|()| File::open(directory_of(to))?.sync_all()).map_err(failed)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes to a temporary file beside the target, then renames it over the target; a file that must not
/// exist is hard-linked instead, which fails if it does, even when it appeared a moment ago.
fn write(file: &NewFile) -> io::Result<()> {
    let directory = directory_of(&file.path);
    fs::create_dir_all(directory)?;
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(io::Error::other)?;
    let temporary = directory.join(format!(".tmp-{:016x}", u64::from_be_bytes(random)));
    let written = write_synced(&temporary, file).and_then(|()| {
        if file.replace { fs::rename(&temporary, &file.path) } else { fs::hard_link(&temporary, &file.path) }
    });
    if written.is_err() || !file.replace {
        match fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, path = %temporary.display(), "temporary file left behind"),
        }
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write_synced(path: &Path, file: &NewFile) -> io::Result<()> {
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
    opened.write_all(file.contents.as_bytes())?;
    opened.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_must_not_exist_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca_key.pem");
        fs::write(&path, "precious").unwrap();
        let other = NewFile::certificate(directory.path().join("a.pem"), "new".into(), false);
        let error = write_all(vec![other, NewFile::key(path.clone(), "new".into(), false)]).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(names(directory.path()), ["ca_key.pem"], "nothing half-done stays");
    }

    #[test]
    fn a_replaced_key_is_private_even_if_the_old_file_was_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/w_key.pem");
        fs::create_dir(directory.path().join("new")).unwrap();
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_all(vec![NewFile::key(path.clone(), "new".into(), true)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(path.parent().unwrap()), ["w_key.pem"]);
    }
}
