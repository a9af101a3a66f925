//! Files of whoever runs p2pctl.

use super::Finding;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// A finding if other users may read the private key that is shown to nodes.
pub(super) fn readable_key(key: &Path) -> Option<Finding> {
    let mode = fs::metadata(key).ok()?.permissions().mode() & 0o7777;
    let shown = key.display();
    (mode & 0o077 != 0).then(|| Finding {
        check: "file_permissions".into(),
        subject: shown.to_string(),
        what: format!("other users of this host may read it (mode {mode:04o})"),
        why: "whoever reads the key can do all that you can".into(),
        mend: format!("`chmod 600 {shown}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_found() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (mode, found) in [(0o600, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).expect("ours");
            assert_eq!(readable_key(file.path()).is_some(), found, "{mode:o}");
        }
        assert!(readable_key(Path::new("/no/such/file")).is_none());
    }
}
