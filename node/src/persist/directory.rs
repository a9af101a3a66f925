//! The state directory: created for us alone, locked against a second process, written durably.

use super::{PersistError, disk};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The name of the lock file.
const LOCK: &str = "lock";
/// Longest content of a lock file that is ours: a process id and a line end.
const MAX_PID_LEN: u64 = 16;
/// Permission bits that let users other than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// A directory that this process alone keeps state in, until the last clone is dropped. The files opened
/// in it hold a clone each.
#[derive(Clone, Debug)]
pub struct StateDirectory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// The lock goes when the file is closed, also when the process dies.
    _lock: File,
}

impl StateDirectory {
    /// Opens `path`, created if missing with mode 0700, and locks it.
    ///
    /// # Errors
    ///
    /// [`PersistError::Directory`] when it cannot be created or written, [`PersistError::Locked`] when another
    /// process (or another part of this one) has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PersistError> {
        let path = path.as_ref();
        let failed = |source| PersistError::Directory { directory: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&absolute).map_err(failed)?;
        let mode = fs::metadata(&absolute).map_err(failed)?.permissions().mode();
        if mode & OTHERS_WRITE != 0 {
            tracing::warn!(
                directory = %absolute.display(),
                mode = %format_args!("{:o}", mode & 0o7777),
                "other users may change this node's state; chmod 700 the directory",
            );
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(absolute.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PersistError::Locked { directory: absolute, pid: read_pid(&lock) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self(Arc::new(Inner { path: absolute, _lock: lock })))
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Replaces the file `name` by `bytes`: afterwards it has either its old contents or the new ones.
    pub(super) fn replace(&self, name: &Path, bytes: &[u8]) -> Result<(), PersistError> {
        let path = self.path().join(name);
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(".tmp");
        let temporary = self.path().join(temporary);
        write_new(&temporary, bytes)
            .and_then(|()| disk::rename(&temporary, &path))
            .and_then(|()| self.sync())
            .map_err(|source| {
                // What is left of it takes space on a disk that may be full; the next save removes it, too.
                fs::remove_file(&temporary).ok();
                PersistError::Write { path, source }
            })
    }

    /// Makes renames durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        disk::sync_directory(self.path())
    }
}

/// Writes a file that did not exist. What a crash left at `path` goes first, whatever its mode.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = disk::create_new(path)?;
    disk::write(&mut file, bytes)?;
    disk::sync(&file)
}

fn read_pid(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(MAX_PID_LEN).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
