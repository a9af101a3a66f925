//! A journal: records appended durably, one fsync for as many as are waiting, until they are folded into a state file.
//!
//! ```text
//! "p2pjrnl1" then, for each record: length (u32, little endian) · first 8 bytes of SHA-256(length, payload) · payload
//! ```
//!
//! What a crash tore off the end was never acknowledged and is cut away. A record that does not match its checksum while
//! others follow it is damage: the file is moved aside, and what stands before the damage is still returned.

use super::{PersistError, StateDirectory, file::move_aside};
use aws_lc_rs::digest::{Context, SHA256};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
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
    len: u64,
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
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut journal = Self {
            directory: directory.clone(),
            file: file.map_err(failed)?,
            path: path.clone(),
            len: good as u64,
        };
        if good == 0 {
            journal.clear()?;
        } else {
            journal.cut().map_err(failed)?;
        }
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
        let len = self.len + bytes.len() as u64;
        if len > MAX_JOURNAL_LEN {
            return Err(self.too_large(len, MAX_JOURNAL_LEN));
        }
        match self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.len = len;
                Ok(())
            }
            Err(source) => {
                // What was half written must not stand before what comes next.
                if let Err(error) = self.cut() {
                    tracing::error!(file = %self.path.display(), %error, "a torn record could not be cut off");
                }
                Err(PersistError::Write { path: self.path.clone(), source })
            }
        }
    }

    /// Empties the journal: what it held is kept elsewhere.
    ///
    /// # Errors
    ///
    /// [`PersistError::Write`] when the disk refuses.
    pub fn clear(&mut self) -> Result<(), PersistError> {
        let failed = |source| PersistError::Write { path: self.path.clone(), source };
        self.file.set_len(0).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(MAGIC).and_then(|()| self.file.sync_all()).map_err(failed)?;
        self.directory.sync().map_err(failed)?;
        self.len = MAGIC.len() as u64;
        Ok(())
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.len <= MAGIC.len() as u64
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.sync_all()
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
