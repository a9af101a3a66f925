//! Revocations on disk: appended to a journal at once, folded into the state file now and then.

use crate::{
    config::FileName,
    persist::{Journal, Loaded, PersistError, StateDirectory, StateFile},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use p2p_proto::v1::{RevocationPositions, RevocationSegment};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
};
use tokio::sync::{oneshot, watch};

/// Orders that may wait for the disk. Beyond it what others have signed is not kept until the next save; what is signed
/// here waits for its answer and is never that many.
const QUEUE: usize = 256;

/// `jwt_blacklist.json`: encoded segments, base64.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Blacklist {
    segments: Vec<String>,
    /// Which numbers of every log were seen, an encoded `RevocationPositions`, base64.
    #[serde(default)]
    positions: String,
    /// Some were lost, and no other node has told them again yet.
    #[serde(default)]
    incomplete: bool,
}

/// What was on disk.
#[derive(Debug, Default)]
pub struct Kept {
    /// Segments that this node had verified before.
    pub segments: Vec<RevocationSegment>,
    /// Which numbers it had seen.
    pub positions: RevocationPositions,
    /// Whether something was damaged, now or earlier, so that revocations may be missing.
    pub incomplete: bool,
}

/// All that a node keeps.
#[derive(Debug, Default)]
pub struct Everything {
    /// Each segment.
    pub segments: Vec<Arc<RevocationSegment>>,
    /// Which numbers of every log were seen.
    pub positions: RevocationPositions,
    /// Whether revocations may be missing.
    pub incomplete: bool,
}

enum Order {
    Append(Vec<Arc<RevocationSegment>>, Option<oneshot::Sender<Result<(), PersistError>>>),
    Save(Everything, Option<oneshot::Sender<Result<(), PersistError>>>),
}

/// The thread that owns the two files. It ends with the last handle.
#[derive(Clone, Debug)]
pub struct Keeper {
    orders: mpsc::SyncSender<Order>,
    end: KeeperEnd,
}

/// Tells when that thread has ended.
#[derive(Clone, Debug)]
pub struct KeeperEnd(watch::Receiver<()>);

impl KeeperEnd {
    /// Waits for its end: with the last [`Keeper`], or by a defect.
    pub async fn ended(&mut self) {
        // Nothing is ever sent.
        while self.0.changed().await.is_ok() {}
    }
}

impl Keeper {
    /// Opens the files in `directory` and reads them. Blocks.
    ///
    /// # Errors
    ///
    /// When files that may be whole cannot be read, or the disk cannot be written.
    pub fn open(directory: &StateDirectory, name: &FileName) -> Result<(Self, Kept), PersistError> {
        let (files, kept) = Self::files(directory, name)?;
        let (orders, queue) = mpsc::sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("revocations".to_owned());
        let path = directory.path().join(name);
        let (alive, end) = watch::channel(());
        let work = move || {
            files.work(&queue);
            drop(alive);
        };
        thread.spawn(work).map_err(|source| PersistError::Write { path, source })?;
        Ok((Self { orders, end: KeeperEnd(end) }, kept))
    }

    /// Tells when the thread has ended.
    pub fn end(&self) -> KeeperEnd {
        self.end.clone()
    }

    fn files(directory: &StateDirectory, name: &FileName) -> Result<(Files, Kept), PersistError> {
        let (file, loaded) = StateFile::<Blacklist>::load(directory, name.as_str())?;
        let damaged = matches!(loaded, Loaded::Corrupt { .. });
        let blacklist = loaded.ok().unwrap_or_default();
        let mut kept = Kept { incomplete: damaged || blacklist.incomplete, ..Kept::default() };
        let positions = BASE64_STANDARD.decode(&blacklist.positions).ok();
        match positions.and_then(|bytes| RevocationPositions::decode(bytes.as_slice()).ok()) {
            Some(positions) => kept.positions = positions,
            None => kept.incomplete = true,
        }
        for text in blacklist.segments {
            kept.add(BASE64_STANDARD.decode(text).ok());
        }
        let journal_name = PathBuf::from(format!("{}.journal", name.as_str()));
        let (journal, replay) = Journal::open(directory, &journal_name)?;
        kept.incomplete |= replay.moved_to.is_some();
        for record in replay.records {
            kept.add(Some(record));
        }
        let mut files = Files { file, journal };
        if kept.incomplete {
            // What was seen is not what is held: others must send it again. And the next start must know, too.
            kept.positions = RevocationPositions::default();
            let segments = kept.segments.iter().cloned().map(Arc::new).collect();
            files.save(&Everything { segments, incomplete: true, ..Everything::default() })?;
        }
        Ok((files, kept))
    }

    /// Keeps segments; the answer comes once they are on disk.
    pub fn keep(&self, segments: Vec<Arc<RevocationSegment>>) -> oneshot::Receiver<Result<(), PersistError>> {
        let (done, answer) = oneshot::channel();
        self.order(Order::Append(segments, Some(done)));
        answer
    }

    /// Keeps what others have signed; nobody waits for it.
    pub fn keep_later(&self, segments: Vec<Arc<RevocationSegment>>) {
        self.order(Order::Append(segments, None));
    }

    /// Replaces all that is kept by `all`, which contains whatever was given to be kept before.
    pub fn save(&self, all: Everything) -> oneshot::Receiver<Result<(), PersistError>> {
        let (done, answer) = oneshot::channel();
        self.order(Order::Save(all, Some(done)));
        answer
    }

    /// An order that finds no room is dropped with its sender, whose receiver then fails.
    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::warn!("the disk does not keep up with revocations; they are kept with the next save");
        }
    }
}

impl Kept {
    fn add(&mut self, encoded: Option<Vec<u8>>) {
        match encoded.and_then(|bytes| RevocationSegment::decode(bytes.as_slice()).ok()) {
            Some(segment) => self.segments.push(segment),
            None => self.incomplete = true,
        }
    }
}

struct Files {
    file: StateFile<Blacklist>,
    journal: Journal,
}

impl Files {
    fn work(mut self, queue: &mpsc::Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            let (result, done) = match order {
                Order::Append(segments, done) => (self.append(&segments), done),
                Order::Save(all, done) => (self.save(&all), done),
            };
            if let Err(error) = &result {
                tracing::error!(%error, "revocations could not be kept on disk");
            }
            // Who no longer waits has shut down.
            if let Some(done) = done {
                done.send(result).ok();
            }
        }
    }

    fn append(&mut self, segments: &[Arc<RevocationSegment>]) -> Result<(), PersistError> {
        let encoded: Vec<Vec<u8>> = segments.iter().map(|segment| segment.encode_to_vec()).collect();
        self.journal.append(encoded.iter().map(Vec::as_slice))
    }

    fn save(&mut self, all: &Everything) -> Result<(), PersistError> {
        let encode = |segment: &Arc<RevocationSegment>| BASE64_STANDARD.encode(segment.encode_to_vec());
        let segments = all.segments.iter().map(encode).collect();
        let positions = BASE64_STANDARD.encode(all.positions.encode_to_vec());
        self.file.save(&Blacklist { segments, positions, incomplete: all.incomplete })?;
        self.journal.clear()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::disk::faults::{self, Fault};

    fn segment(text: &str) -> Arc<RevocationSegment> {
        Arc::new(RevocationSegment { body: text.as_bytes().to_vec().into(), ..RevocationSegment::default() })
    }

    fn open(directory: &StateDirectory) -> (Keeper, Kept) {
        Keeper::open(directory, &"jwt_blacklist.json".parse().expect("a name")).expect("opens")
    }

    fn bodies(kept: &Kept) -> Vec<&[u8]> {
        kept.segments.iter().map(|segment| &*segment.body).collect()
    }

    #[tokio::test]
    async fn what_is_kept_survives_in_the_journal_and_in_the_file() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(temporary.path()).expect("opens");
        let (keeper, kept) = open(&directory);
        assert!(kept.segments.is_empty() && !kept.incomplete);
        keeper.keep(vec![segment("a"), segment("b")]).await.expect("answered").expect("kept");
        keeper.keep_later(vec![segment("c")]);
        keeper.keep(vec![]).await.expect("answered").expect("kept");
        assert_eq!(bodies(&open(&directory).1), [b"a", b"b", b"c"]);
        keeper
            .save(Everything { segments: vec![segment("abc")], ..Everything::default() })
            .await
            .expect("answered")
            .expect("saved");
        keeper.keep(vec![segment("d")]).await.expect("answered").expect("kept");
        assert_eq!(bodies(&open(&directory).1), [b"abc".as_slice(), b"d"]);
    }

    #[test]
    fn whatever_step_fails_no_acknowledged_revocation_is_lost() {
        for fault in Fault::ALL {
            for passing in 0.. {
                let temporary = tempfile::tempdir().expect("a directory");
                let directory = StateDirectory::open(temporary.path()).expect("opens");
                let mut files = Keeper::files(&directory, &"jwt_blacklist.json".parse().expect("a name"))
                    .expect("opens")
                    .0;
                let (mut all, mut acknowledged) = (Vec::new(), Vec::new());
                let ((), met) = faults::with(passing, fault, || {
                    for name in ["a", "b", "save", "c", "save", "d", "e"] {
                        if name == "save" {
                            let segments = all.clone();
                            files.save(&Everything { segments, ..Everything::default() }).ok();
                            continue;
                        }
                        all.push(segment(name));
                        if files.append(&[segment(name)]).is_ok() {
                            acknowledged.push(name.as_bytes());
                        }
                    }
                });
                drop(files);
                let (_, kept) = open(&directory);
                let told = format!("{fault:?} at step {passing}");
                assert!(!kept.incomplete, "{told}");
                let lost: Vec<_> = acknowledged.iter().filter(|name| !bodies(&kept).contains(name)).collect();
                assert!(lost.is_empty(), "{told}: {lost:?}");
                if !met {
                    assert!(acknowledged.len() == 5 && passing > 20, "{passing} steps");
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn damage_is_told_and_what_can_be_read_is_read() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(temporary.path()).expect("opens");
        let (keeper, _) = open(&directory);
        keeper.keep(vec![segment("a")]).await.expect("answered").expect("kept");
        std::fs::write(temporary.path().join("jwt_blacklist.json"), "{").expect("written");
        // And again, until it is made good.
        for _ in 0..2 {
            let (_, kept) = open(&directory);
            assert!(kept.incomplete);
            assert_eq!(bodies(&kept), [b"a"]);
            assert_eq!(kept.positions, RevocationPositions::default(), "what is lost was not seen");
        }
        let (keeper, _) = open(&directory);
        keeper.save(Everything::default()).await.expect("answered").expect("saved");
        assert!(!open(&directory).1.incomplete);
    }
}
