//! Files that are whole or as they were: written beside their place, made durable, and renamed.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Longest wait for another p2pctl that is changing a file.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Keeps other p2pctl from changing files beside `target` until it is dropped. Its directory is locked, since a file
/// that is replaced is another one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Locked {
    _directory: File,
}

/// Waits until nobody else is changing files beside `target`. Where the file system has no locks, there is none.
pub(crate) fn lock(target: &Path) -> io::Result<Locked> {
    let (directory, until) = (File::open(directory(target))?, Instant::now() + LOCK_PATIENCE);
    while let Err(TryLockError::WouldBlock) = directory.try_lock() {
        if Instant::now() >= until {
            let seconds = LOCK_PATIENCE.as_secs();
            let why = format!("another p2pctl has been changing files there for {seconds} s");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        thread::sleep(LOCK_PAUSE);
    }
    Ok(Locked { _directory: directory })
}

/// Replaces `target`, or makes it; its mode and owner become those of `like`, else ours and 0600.
pub(crate) fn replace(target: &Path, text: &str, like: Option<&Metadata>) -> io::Result<()> {
    // A rename would take the place of /dev/null as well.
    if fs::metadata(target).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("it is no regular file"));
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    // What a process of the same number has left behind is in nobody's way.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let temporary = target.with_file_name(format!(".{name}.{}.{now}.tmp", std::process::id()));
    let written = write_new(&temporary, text, 0o600, like)
        .and_then(|()| fs::rename(&temporary, target))
        .and_then(|()| sync_directory(target));
    if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        // What failed is what is told.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Writes a file that does not exist yet.
pub(crate) fn create(path: &Path, text: &str) -> io::Result<()> {
    write_new(path, text, 0o644, None)?;
    sync_directory(path)
}

fn write_new(path: &Path, text: &str, mode: u32, like: Option<&Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(like) = like {
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        // After the owner: a change of owner may take bits away.
        file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    }
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_file_is_replaced_and_its_mode_stays_but_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        create(&file, "one").expect("new");
        assert_eq!(create(&file, "two").expect_err("there").kind(), io::ErrorKind::AlreadyExists);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("ours");
        replace(&file, "two", fs::metadata(&file).ok().as_ref()).expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("there"), "two");
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o7777, 0o640);
        replace(&directory.path().join("new"), "x", None).expect("made");
        assert_eq!(fs::metadata(directory.path().join("new")).expect("there").mode() & 0o7777, 0o600);

        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("bound");
        assert!(replace(&socket, "x", None).is_err(), "a device or socket is left alone");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 3, "nothing is left behind");
    }
}
