//! A journal: records appended durably, one fsync for as many as are waiting, until they are folded into a state file.
//!
//! ```text
//! "p2pjrnl1" then, for each record: length (u32, little endian) · first 8 bytes of SHA-256(length, payload) · payload
//! ```
//!
//! What a crash tore off the end was never acknowledged and is cut away. A record that does not match its checksum while
//! others follow it is damage: the file is moved aside, and what stands before the damage is still returned.

use super::{PersistError, StateDirectory, disk, file::move_aside};
use aws_lc_rs::digest::{Context, SHA256};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"p2pjrnl1";
const HEAD: usize = 12;
/// Largest record, in bytes.
pub const MAX_RECORD_LEN: usize = 4 * 1024 * 1024;
/// Largest journal, in bytes; it should have been folded long before.
pub const MAX_JOURNAL_LEN: u64 = 256 * 1024 * 1024;

/// What a journal held.
#[derive(Debug, Default)]
pub struct Replay {
    /// The records, oldest first.
    pub records: Vec<Vec<u8>>,
    /// Where the file is now if it was damaged: records may be missing.
    pub moved_to: Option<PathBuf>,
}

/// An open journal. Dropped, it stays as it is.
#[derive(Debug)]
pub struct Journal {
    directory: StateDirectory,
    path: PathBuf,
    file: File,
    /// Bytes of the file that count.
    len: u64,
    /// Whether more than these may stand in the file, or its head is missing.
    torn: bool,
}

impl Journal {
    /// Opens the journal `name` in `directory`, makes it if it is missing, and reads what it holds.
    ///
    /// # Errors
    ///
    /// [`PersistError::Read`] and [`PersistError::Write`] as the system says, [`PersistError::MoveAside`] when a damaged
    /// one stands in the way.
    pub fn open(directory: &StateDirectory, name: &Path) -> Result<(Self, Replay), PersistError> {
        let path = directory.path().join(name);
        let failed = |source| PersistError::Write { path: path.clone(), source };
        let mut replay = Replay::default();
        let mut good = 0;
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(PersistError::Read { path, source }),
            Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_JOURNAL_LEN => {
                replay.moved_to = Some(move_aside(directory, name, "it is no journal")?);
            }
            Ok(_) => {
                let read = |source| PersistError::Read { path: path.clone(), source };
                let mut bytes = Vec::new();
                File::open(&path)
                    .map_err(read)?
                    .take(MAX_JOURNAL_LEN)
                    .read_to_end(&mut bytes)
                    .map_err(read)?;
                let (records, end, damaged) = parse(&bytes);
                (replay.records, good) = (records, end);
                if damaged {
                    replay.moved_to =
                        Some(move_aside(directory, name, "a record does not match its checksum")?);
                    good = 0;
                } else if end < bytes.len() {
                    tracing::info!(file = %path.display(), bytes = bytes.len() - end, "cut off what a crash had torn");
                }
            }
        }
        let file = disk::open_or_create(&path).map_err(failed)?;
        let directory = directory.clone();
        let mut journal = Self { directory, file, path: path.clone(), len: good as u64, torn: true };
        journal.mend().map_err(failed)?;
        Ok((journal, replay))
    }

    /// Appends records; they are on disk when this returns. Either all are kept, or none.
    ///
    /// # Errors
    ///
    /// [`PersistError::Write`] when the disk refuses, [`PersistError::TooLarge`] above the limits.
    pub fn append<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<(), PersistError> {
        let mut bytes = Vec::new();
        for record in records {
            if record.len() > MAX_RECORD_LEN {
                return Err(self.too_large(record.len() as u64, MAX_RECORD_LEN as u64));
            }
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes();
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&checksum(&length, record));
            bytes.extend_from_slice(record);
        }
        let len = self.len.max(MAGIC.len() as u64) + bytes.len() as u64;
        if len > MAX_JOURNAL_LEN {
            return Err(self.too_large(len, MAX_JOURNAL_LEN));
        }
        // What was half written before must not stand before what comes now.
        let kept = self.mend().and_then(|()| {
            self.torn = true;
            disk::write(&mut self.file, &bytes)?;
            disk::sync_data(&self.file)
        });
        if let Err(source) = kept {
            if let Err(error) = self.mend() {
                tracing::error!(file = %self.path.display(), %error, "a torn record could not be cut off yet");
            }
            return Err(PersistError::Write { path: self.path.clone(), source });
        }
        (self.len, self.torn) = (len, false);
        Ok(())
    }

    /// Empties the journal: what it held is kept elsewhere.
    ///
    /// # Errors
    ///
    /// [`PersistError::Write`] when the disk refuses. What it held may be found again at the next start, then.
    pub fn clear(&mut self) -> Result<(), PersistError> {
        (self.len, self.torn) = (0, true);
        self.mend().map_err(|source| PersistError::Write { path: self.path.clone(), source })
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.len <= MAGIC.len() as u64
    }

    /// Has the file hold what counts and nothing else. Until that has been possible nothing is appended: it would stand
    /// behind what is torn, and be taken for damage.
    fn mend(&mut self) -> io::Result<()> {
        if !self.torn {
            return Ok(());
        }
        disk::cut(&mut self.file, self.len)?;
        if self.len == 0 {
            disk::write(&mut self.file, MAGIC)?;
        }
        disk::sync(&self.file)?;
        if self.len == 0 {
            self.directory.sync()?;
            self.len = MAGIC.len() as u64;
        }
        self.torn = false;
        Ok(())
    }

    fn too_large(&self, len: u64, limit: u64) -> PersistError {
        PersistError::TooLarge { path: self.path.clone(), len, limit }
    }
}

fn checksum(length: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut context = Context::new(&SHA256);
    context.update(length);
    context.update(payload);
    let mut first = [0; 8];
    first.copy_from_slice(&context.finish().as_ref()[..8]);
    first
}

/// The records, where they end, and whether damage follows.
fn parse(bytes: &[u8]) -> (Vec<Vec<u8>>, usize, bool) {
    let mut records = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
        // Made but not written through, or something else.
        return (records, 0, !MAGIC.starts_with(bytes));
    };
    while !rest.is_empty() {
        let end = bytes.len() - rest.len();
        let Some((head, after)) = rest.split_at_checked(HEAD) else { return (records, end, false) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((payload, next)) = after.split_at_checked(length).filter(|_| length <= MAX_RECORD_LEN)
        else {
            // A length that cannot be is torn only if nothing but zeros, or less than one record, follows.
            let torn = length <= MAX_RECORD_LEN || rest.iter().all(|byte| *byte == 0);
            return (records, end, !torn);
        };
        if checksum(&head[..4], payload) != head[4..] {
            let torn = next.is_empty() || rest.iter().all(|byte| *byte == 0);
            return (records, end, !torn);
        }
        records.push(payload.to_vec());
        rest = next;
    }
    (records, bytes.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::disk::faults;
    use proptest::prelude::*;

    struct Home {
        _temporary: tempfile::TempDir,
        directory: StateDirectory,
    }

    fn home() -> Home {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(temporary.path()).expect("opens");
        Home { _temporary: temporary, directory }
    }

    impl Home {
        fn open(&self) -> (Journal, Replay) {
            Journal::open(&self.directory, Path::new("j")).expect("opens")
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(self.directory.path().join("j")).expect("reads")
        }

        fn replays(&self, bytes: &[u8]) -> Replay {
            std::fs::write(self.directory.path().join("j"), bytes).expect("writes");
            self.open().1
        }
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_until_it_is_cleared() {
        let home = home();
        let (mut journal, replay) = home.open();
        assert!(replay.records.is_empty() && replay.moved_to.is_none() && journal.is_empty());
        journal.append([b"one".as_slice(), b"".as_slice()]).expect("kept");
        journal.append([b"three".as_slice()]).expect("kept");
        drop(journal);
        let (mut journal, replay) = home.open();
        assert_eq!(replay.records, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
        journal.clear().expect("cleared");
        journal.append([b"four".as_slice()]).expect("kept");
        assert_eq!(home.open().1.records, [b"four".to_vec()]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(home.directory.path().join("j")).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_was_torn() {
        let home = home();
        let (mut journal, _) = home.open();
        journal.append([b"kept".as_slice()]).expect("kept");
        let before = home.bytes().len();
        journal.append([b"torn away".as_slice()]).expect("kept");
        let whole = home.bytes();
        for end in 0..whole.len() {
            let replay = home.replays(&whole[..end]);
            let expected = usize::from(end >= before);
            assert_eq!((replay.records.len(), replay.moved_to), (expected, None), "torn at {end}");
            let (mut journal, _) = home.open();
            journal.append([b"next".as_slice()]).expect("goes on");
            assert_eq!(home.open().1.records.len(), expected + 1);
        }
    }

    #[test]
    fn damage_in_the_middle_is_moved_aside_and_what_stands_before_it_is_read() {
        let home = home();
        let (mut journal, _) = home.open();
        for record in ["first", "second", "third"] {
            journal.append([record.as_bytes()]).expect("kept");
        }
        let mut bytes = home.bytes();
        let second = MAGIC.len() + HEAD + "first".len();
        bytes[second + HEAD] ^= 1;
        let replay = home.replays(&bytes);
        assert_eq!(replay.records, [b"first".to_vec()]);
        let moved = replay.moved_to.expect("moved aside");
        assert_eq!(std::fs::read(moved).expect("there"), bytes);
        assert!(home.open().0.is_empty(), "a new one was begun");
        assert!(home.replays(b"something else entirely").moved_to.is_some());
    }

    /// What becomes of operations on a journal of which some fail: what must be found afterwards, and what may be.
    #[derive(Default)]
    struct Expected {
        must: Vec<Vec<u8>>,
        may: Vec<Vec<u8>>,
    }

    impl Expected {
        fn append(&mut self, journal: &mut Journal, records: &[&str]) {
            let bytes: Vec<Vec<u8>> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
            if journal.append(bytes.iter().map(Vec::as_slice)).is_ok() {
                self.must.extend(bytes.iter().cloned());
            }
            self.may.extend(bytes);
        }

        fn clear(&mut self, journal: &mut Journal) {
            if journal.clear().is_ok() {
                self.may.clear();
            }
            self.must.clear();
        }
    }

    #[test]
    fn whatever_step_fails_what_was_acknowledged_is_found_and_nothing_is_taken_for_damage() {
        for fault in faults::Fault::ALL {
            for passing in 0.. {
                let (home, mut expected) = (home(), Expected::default());
                let work = || {
                    let Ok((mut journal, _)) = Journal::open(&home.directory, Path::new("j")) else { return };
                    expected.append(&mut journal, &["one"]);
                    expected.append(&mut journal, &["two", "three"]);
                    expected.clear(&mut journal);
                    expected.append(&mut journal, &["four"]);
                    expected.append(&mut journal, &["five", "six"]);
                    expected.append(&mut journal, &["seven"]);
                };
                let ((), met) = faults::with(passing, fault, work);
                let (mut journal, replay) = home.open();
                let Expected { must, may } = expected;
                let told = format!("{fault:?} at step {passing}: {:?}", replay.records);
                assert_eq!(replay.moved_to, None, "{told}");
                let mut found = replay.records.iter();
                assert!(
                    must.iter().all(|record| found.any(|found| found == record)),
                    "{told} lacks of {must:?}"
                );
                assert!(replay.records.iter().all(|record| may.contains(record)), "{told}");
                journal.append([b"next".as_slice()]).expect("the disk is well again");
                assert_eq!(home.open().1.records.len(), replay.records.len() + 1, "{told}");
                if !met {
                    assert_eq!(must.len(), 4, "all steps passed");
                    assert!(passing > 15, "{passing} steps are too few");
                    break;
                }
            }
        }
    }

    #[test]
    fn too_much_is_refused_and_changes_nothing() {
        let home = home();
        let (mut journal, _) = home.open();
        journal.append([b"kept".as_slice()]).expect("kept");
        let large = vec![0; MAX_RECORD_LEN + 1];
        assert!(matches!(journal.append([large.as_slice()]), Err(PersistError::TooLarge { .. })));
        assert_eq!(home.open().1.records, [b"kept".to_vec()]);
    }

    proptest! {
        /// Whatever the file holds, opening it ends, and the journal can be used.
        #[test]
        fn arbitrary_files_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80), magic in any::<bool>()) {
            let home = home();
            let bytes = if magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            home.replays(&bytes);
            let (mut journal, replay) = home.open();
            let known = replay.records.len();
            journal.append([b"x".as_slice()]).expect("kept");
            drop(journal);
            prop_assert_eq!(home.open().1.records.len(), known + 1);
        }
    }
}
