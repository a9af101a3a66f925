//! Files that are whole or as they were: written beside their place, made durable, and renamed.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

/// Replaces `target`, or makes it; its mode and owner become those of `like`, else ours and 0600.
pub(crate) fn replace(target: &Path, text: &str, like: Option<&Metadata>) -> io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
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
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
