//! The steps that change the disk. All of this folder goes through them, so that tests can have each of them fail.

#[cfg(test)]
pub(crate) mod faults;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Makes a file for this user alone, which was not there.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    faults::step()?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a file to read and change it, and makes it if it is not there.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    faults::step()?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes all of `bytes`.
pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    faults::write(file, bytes)?;
    file.write_all(bytes)
}

/// Cuts `file` to its first `len` bytes; what is written next stands behind them.
pub(super) fn cut(file: &mut File, len: u64) -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    file.set_len(len)?;
    file.seek(SeekFrom::Start(len)).map(drop)
}

/// Waits until what `file` holds is on the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    file.sync_all()
}

/// The same for what was written into a file, without the times of it.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    file.sync_data()
}

/// Puts the file `from` in place of `to`.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    fs::rename(from, to)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    File::open(path)?.sync_all()
}
