//! Who may read and change this node's files, whether its state can be kept, and whether the CA could be brought back.

use super::finding;
use crate::{
    config::Config,
    identity::{authority::issuer_cert_path, backup},
};
use p2p_core::Role;
use p2p_proto::v1::Finding;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Bits of those who are not the owner.
const OTHERS: u32 = 0o077;
/// Bits that let those who are not the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// Less free space than this is too little: revocations alone may take as much.
const FREE_MIN: u64 = 64 * 1024 * 1024;
/// The file that is written to see whether one can be. The name begins with a dot, as temporary files of the node do.
const PROBE: &str = ".examined.tmp";

/// Everything on disk. Blocks.
pub(super) fn all(config: &Config, role: Role, file: Option<&Path>) -> Vec<Finding> {
    let coordinator = role == Role::Coordinator;
    let ca_key = coordinator.then_some(config.ssl_ca_key_file.as_path());
    let keys = [Some(config.ssl_key_file.as_path()), ca_key, config.join_token_file.as_deref()];
    let mut findings: Vec<Finding> = keys.into_iter().flatten().filter_map(secret).collect();
    findings.extend(file.and_then(configuration));
    findings.extend(state_directory(&config.state_directory));
    findings.extend(ca_key.and_then(ca_backup));
    findings
}

/// The permission bits of `path` among `bits`; none where there is no such file.
fn open_bits(path: &Path, bits: u32) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & bits != 0).then_some(mode)
}

fn secret(path: &Path) -> Option<Finding> {
    let mode = open_bits(path, OTHERS)?;
    Some(finding(
        "file_permissions",
        format!("other users of its host may read {} (mode {mode:04o})", path.display()),
        "whoever reads it can speak in the name of its holder",
        format!("on its host, `chmod 600 {}`", path.display()),
    ))
}

fn configuration(path: &Path) -> Option<Finding> {
    let mode = open_bits(path, OTHERS_WRITE)?;
    Some(finding(
        "file_permissions",
        format!("other users of its host may change {} (mode {mode:04o})", path.display()),
        "who changes it decides who may call what, and which files the node reads and writes",
        format!("on its host, `chmod go-w {}`", path.display()),
    ))
}

fn state_directory(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let mut findings = Vec::new();
    if let Some(mode) = open_bits(path, OTHERS) {
        findings.push(finding(
            "file_permissions",
            format!("other users of its host have access to {shown} (mode {mode:04o})"),
            "the keys that sign access tokens lie there, and what is revoked",
            format!("on its host, `chmod 700 {shown}`"),
        ));
    }
    if let Err(error) = probe(path) {
        findings.push(finding(
            "state_directory",
            format!("nothing can be written to {shown}: {error}"),
            "revocations, registrations and joins are refused, and what changes is lost at its next start",
            format!("on its host, `df -h {shown}` and `ls -ld {shown}`: free some space, or give it back to the node's user"),
        ));
    } else if let Some(free) = free(path).filter(|free| *free < FREE_MIN) {
        findings.push(finding(
            "state_directory",
            format!("the disk of {shown} has {} MiB left", free / (1024 * 1024)),
            "once it is full, revocations, registrations and joins are refused",
            format!("on its host, `df -h {shown}`: free some space, or move state_directory"),
        ));
    }
    let damaged = set_aside(path);
    if !damaged.is_empty() {
        findings.push(finding(
            "state_directory",
            format!("damaged state was moved aside in {shown}: {}", damaged.join(", ")),
            "what it held is lost, or was learned again from other nodes; a disk that damages one file may damage more",
            format!("look at the host's disk, then `rm {shown}/*.corrupt-*` there"),
        ));
    }
    findings
}

/// Whether a file can be made, written and taken away again.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(PROBE);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let written = file.write_all(b"examined\n").and_then(|()| file.sync_data());
    fs::remove_file(&path).and(written)
}

/// Bytes that are left to this user; unknown where the system does not tell.
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Names of damaged files, in order.
fn set_aside(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut damaged: Vec<String> = names.filter(|name| name.contains(".corrupt-")).collect();
    damaged.sort();
    damaged
}

/// A root is worth a backup; a coordinator's own CA, below one, is made anew by joining again.
fn ca_backup(key: &Path) -> Option<Finding> {
    let is_root = key.exists() && !issuer_cert_path(key).exists();
    let missing = is_root && matches!(backup::last(key), Ok(None));
    let directory = key.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    missing.then(|| {
        finding(
            "ca_backup",
            format!("the CA's key {} was never backed up", key.display()),
            "if its disk dies, nobody can add a node or renew a certificate again, and the cluster ends with them",
            format!(
                "on its host, `p2pctl ca backup --ca-dir {} --out ca.backup`, and keep that file elsewhere",
                directory.display()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    fn checks(findings: &[Finding]) -> Vec<(&str, &str)> {
        findings.iter().map(|finding| (finding.check.as_str(), finding.what.as_str())).collect()
    }

    fn write(path: &Path, mode: u32) {
        fs::write(path, "x").expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    #[test]
    fn files_that_others_may_read_or_change_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        for (mode, read, changed) in
            [(0o600, false, false), (0o640, true, false), (0o644, true, false), (0o666, true, true)]
        {
            write(&path, mode);
            assert_eq!(
                (secret(&path).is_some(), configuration(&path).is_some()),
                (read, changed),
                "{mode:o}"
            );
        }
        let found = secret(&path).expect("open to all");
        assert!(found.what.ends_with("(mode 0666)") && found.mend.contains("`chmod 600 /"), "{found:?}");
        assert!(secret(&directory.path().join("none")).is_none());
    }

    #[test]
    fn state_that_cannot_be_kept_or_was_damaged_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        fs::create_dir(&state).expect("made");
        fs::set_permissions(&state, Permissions::from_mode(0o700)).expect("ours");
        assert_eq!(checks(&state_directory(&state)), []);
        assert_eq!(fs::read_dir(&state).expect("there").count(), 0, "the probe is gone");

        write(&state.join("gossip_state.json.corrupt-5"), 0o600);
        fs::set_permissions(&state, Permissions::from_mode(0o755)).expect("ours");
        let found = state_directory(&state);
        assert_eq!(
            found.iter().map(|finding| finding.check.as_str()).collect::<Vec<_>>(),
            ["file_permissions", "state_directory"]
        );
        assert!(found[1].what.ends_with("gossip_state.json.corrupt-5"), "{}", found[1].what);
        let gone = state_directory(&directory.path().join("none"));
        assert!(gone.len() == 1 && gone[0].what.starts_with("nothing can be written"), "{gone:?}");
    }

    #[test]
    fn a_disk_tells_how_much_is_left() {
        assert!(free(Path::new("/")).is_some());
    }
}
