//! Notices that the certificate files have changed.
//!
//! Looks instead of being told (inotify): three `stat` calls every few seconds cost nothing, and work on every
//! file system and for files that appear by renaming, by links, or by mounts.

use super::{
    error::IdentityError,
    local::IdentityFiles,
    store::{IdentityStore, Reloaded},
};
use rustls_pki_types::UnixTime;
use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// What tells one state of a file from another; `None` while it is not there.
type Mark = Option<(u64, u64, i64, i64)>;

fn mark(path: &Path) -> Mark {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn marks(files: &IdentityFiles) -> [Mark; 3] {
    [&files.cert, &files.key, &files.ca_cert].map(|path| mark(path))
}

/// Looks at the files of one identity.
#[derive(Debug)]
pub struct FileWatch {
    /// The state that is in force, or was found to say the same.
    handled: [Mark; 3],
    /// A state that was refused, and complained about.
    refused: Option<[Mark; 3]>,
}

impl FileWatch {
    /// Takes the present state for the one that `store` was loaded from.
    pub fn new(store: &IdentityStore) -> Self {
        Self { handled: marks(store.files()), refused: None }
    }

    /// Reloads `store` if its files have changed. `None` if there is nothing to tell: nothing has changed,
    /// the files say what is in force already, or what is wrong with them was told before. What is refused
    /// is tried again at each look: somebody may be in the midst of copying.
    pub fn look(&mut self, store: &IdentityStore, now: UnixTime) -> Option<Result<(), IdentityError>> {
        let found = marks(store.files());
        if found == self.handled {
            self.refused = None;
            return None;
        }
        match store.reload(now) {
            Ok(reloaded) => {
                self.handled = found;
                self.refused = None;
                (reloaded == Reloaded::Replaced).then_some(Ok(()))
            }
            Err(error) => (self.refused.replace(found) != Some(found)).then_some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{expect, issuer, now, place, request};

    #[test]
    fn a_new_pair_is_taken_as_a_whole_and_a_half_written_one_is_told_once() {
        let (ca, directory) = (issuer("c"), tempfile::tempdir().unwrap());
        let place = |issued| place(directory.path(), issued, ca.cert_pem());
        let first = ca.issue(&request("spiffe://c/worker/w")).unwrap();
        let files = place(&first);
        let store = IdentityStore::load(files.clone(), expect("w", false), now()).unwrap();
        let mut watch = FileWatch::new(&store);
        assert!(watch.look(&store, now()).is_none(), "nothing has changed");

        let second = ca.issue(&request("spiffe://c/worker/w")).unwrap();
        fs::write(&files.cert, &second.cert_pem).unwrap();
        assert!(matches!(watch.look(&store, now()), Some(Err(IdentityError::KeyMismatch { .. }))));
        assert!(watch.look(&store, now()).is_none(), "told once");
        assert_ne!(store.current().chain_der()[0], *second.der(), "all or nothing");
        fs::write(&files.key, &second.key_pem).unwrap();
        assert!(matches!(watch.look(&store, now()), Some(Ok(()))));
        assert_eq!(store.current().chain_der()[0], *second.der());
        assert!(watch.look(&store, now()).is_none());

        // The same again, and gone for a moment.
        place(&second);
        assert!(watch.look(&store, now()).is_none(), "it says what is in force");
        fs::remove_file(&files.cert).unwrap();
        assert!(matches!(watch.look(&store, now()), Some(Err(IdentityError::Missing { .. }))));
        assert!(watch.look(&store, now()).is_none(), "told once");
        place(&second);
        assert!(watch.look(&store, now()).is_none());
        assert_eq!(store.current().chain_der()[0], *second.der());
    }

    #[test]
    fn a_changed_list_of_trusted_certificates_is_noticed() {
        let (ca, directory) = (issuer("c"), tempfile::tempdir().unwrap());
        let issued = ca.issue(&request("spiffe://c/worker/w")).unwrap();
        let files = place(directory.path(), &issued, ca.cert_pem());
        let store = IdentityStore::load(files.clone(), expect("w", false), now()).unwrap();
        let mut watch = FileWatch::new(&store);
        fs::write(&files.ca_cert, format!("{}{}", ca.cert_pem(), issuer("c").cert_pem())).unwrap();
        assert!(matches!(watch.look(&store, now()), Some(Ok(()))));
        assert_eq!(store.current().trust().roots().len(), 2);
    }
}
