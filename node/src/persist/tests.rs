use super::{
    disk::faults::{self, Fault},
    *,
};
use p2p_core::{Epoch, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

const NAME: &str = "state.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tokens {
    tokens: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

fn tokens(names: &[&str]) -> Tokens {
    Tokens { tokens: names.iter().map(|name| (*name).to_owned()).collect(), note: None }
}

struct Fixture {
    root: tempfile::TempDir,
    directory: StateDirectory,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(root.path().join("data/node")).unwrap();
        Self { root, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self) -> (StateFile<Tokens>, Loaded<Tokens>) {
        StateFile::load(&self.directory, NAME).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path(NAME)).unwrap()
    }

    /// Leaves the directory and opens it again, as the next start of the process does.
    fn restart(self) -> Self {
        let path = self.directory.path().to_owned();
        drop(self.directory);
        Self { root: self.root, directory: StateDirectory::open(path).unwrap() }
    }

    fn start(&self, node: &str, unix_ms: u64) -> Result<GossipFile, PersistError> {
        GossipFile::start(&self.directory, "gossip_state.json", &node.parse::<NodeId>().unwrap(), unix_ms)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_has_one_owner_until_it_is_dropped() {
    let fixture = Fixture::new();
    let path = fixture.directory.path().to_owned();
    let refused = StateDirectory::open(&path).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the state directory {} is in use by process {}; stop that one, or set state_directory to one of this \
             node's own",
            path.display(),
            std::process::id()
        )
    );

    // A file that is still open keeps the lock.
    let (file, missing) = fixture.load();
    assert_eq!(missing, Loaded::Missing);
    drop(fixture.directory);
    assert!(matches!(StateDirectory::open(&path), Err(PersistError::Locked { .. })));
    drop(file);
    StateDirectory::open(&path).unwrap();
}

#[test]
fn a_lock_file_left_by_a_dead_process_is_no_obstacle() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("lock"), "4294967295, and a long line of something else\n").unwrap();
    let directory = StateDirectory::open(root.path()).unwrap();
    let text = fs::read_to_string(directory.path().join("lock")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let shown = StateDirectory::open(&file).unwrap_err().to_string();
    assert!(shown.starts_with(&format!("cannot use the state directory {}: ", file.display())), "{shown}");
}

#[test]
fn only_the_owner_may_read() {
    let fixture = Fixture::new();
    fixture.load().0.save(&tokens(&["a"])).unwrap();
    assert_eq!(mode(fixture.directory.path()), 0o700);
    assert_eq!(mode(&fixture.path(NAME)), 0o600);
    assert_eq!(mode(&fixture.path("lock")), 0o600);
}

#[test]
fn what_is_saved_is_found_after_a_restart() {
    let fixture = Fixture::new();
    fixture.load().0.save(&tokens(&["a", "b"])).unwrap();
    let fixture = fixture.restart();
    assert_eq!(fixture.load().1.ok(), Some(tokens(&["a", "b"])));
    assert!(fixture.text().starts_with("{\n  \"version\": 1,\n"), "{}", fixture.text());
    let mut names: Vec<_> =
        fs::read_dir(fixture.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lock", NAME], "no temporary file is left");
}

#[test]
fn a_torn_temporary_file_is_ignored_and_replaced() {
    let fixture = Fixture::new();
    fixture.load().0.save(&tokens(&["a"])).unwrap();
    let temporary = fixture.path(".state.json.tmp");
    fs::write(&temporary, "{\"version\": 1, \"tok").unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666)).unwrap();
    let (file, loaded) = fixture.load();
    assert_eq!(loaded.ok(), Some(tokens(&["a"])));
    file.save(&tokens(&["b"])).unwrap();
    assert!(!temporary.exists());
    assert_eq!(mode(&fixture.path(NAME)), 0o600);
}

#[test]
fn a_temporary_path_that_leads_elsewhere_is_not_followed() {
    let fixture = Fixture::new();
    let elsewhere = fixture.root.path().join("elsewhere");
    fs::write(&elsewhere, "theirs").unwrap();
    symlink(&elsewhere, fixture.path(".state.json.tmp")).unwrap();
    fixture.load().0.save(&tokens(&["a"])).unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "theirs");
}

#[test]
fn whatever_step_of_a_save_fails_the_next_start_reads_the_old_state_or_the_new() {
    for fault in Fault::ALL {
        for passing in 0.. {
            let fixture = Fixture::new();
            fixture.load().0.save(&tokens(&["old"])).unwrap();
            let (saved, met) = faults::with(passing, fault, || fixture.load().0.save(&tokens(&["new"])));
            let fixture = fixture.restart();
            let (file, loaded) = fixture.load();
            let found = loaded.ok().unwrap_or_else(|| panic!("{fault:?} at step {passing}: neither"));
            match (saved.is_ok(), found.tokens[0].as_str()) {
                (true, "new") | (false, "old" | "new") => {}
                other => panic!("{fault:?} at step {passing}: {other:?}"),
            }
            file.save(&tokens(&["newer"])).unwrap();
            assert_eq!(fixture.load().1.ok(), Some(tokens(&["newer"])));
            if !met {
                assert!(saved.is_ok() && passing >= 5, "{passing} steps");
                break;
            }
        }
    }
}

#[test]
fn whatever_step_of_a_start_fails_no_epoch_is_given_twice() {
    for fault in Fault::ALL {
        for passing in 0.. {
            let fixture = Fixture::new();
            let first = fixture.start("n", 1_000).unwrap().epoch();
            let (second, met) =
                faults::with(passing, fault, || fixture.start("n", 1_000).map(|started| started.epoch()));
            let fixture = fixture.restart();
            let third = fixture.start("n", 1_000).unwrap().epoch();
            let second = second.unwrap_or(first);
            assert!(
                first <= second && second < third,
                "{fault:?} at step {passing}: {first:?} {second:?} {third:?}"
            );
            if !met {
                assert!(first < second);
                break;
            }
        }
    }
}

#[test]
fn a_damaged_file_that_cannot_be_moved_aside_stops_the_start_and_is_still_there() {
    let fixture = Fixture::new();
    fs::write(fixture.path(NAME), "{").unwrap();
    let (loaded, met) =
        faults::with(0, Fault::Once, || StateFile::<Tokens>::load(&fixture.directory, NAME).map(drop));
    assert!(met && matches!(loaded, Err(PersistError::MoveAside { .. })), "{loaded:?}");
    assert_eq!(fixture.text(), "{");
}

#[test]
fn a_failed_save_keeps_what_was_there() {
    let fixture = Fixture::new();
    let (file, missing) = fixture.load();
    assert_eq!(missing, Loaded::Missing);
    file.save(&tokens(&["a"])).unwrap();
    // A directory where the temporary file should be cannot be written over, even by root.
    fs::create_dir(fixture.path(".state.json.tmp")).unwrap();
    assert!(matches!(file.save(&tokens(&["b"])), Err(PersistError::Write { .. })));
    assert_eq!(fixture.load().1.ok(), Some(tokens(&["a"])));
}

#[test]
fn unknown_fields_survive_a_save_and_known_ones_do_not_come_back() {
    let fixture = Fixture::new();
    let newer = r#"{"version": 7, "tokens": ["a"], "note": "n", "later": {"x": [1, 2]}, "zone": null}"#;
    fs::write(fixture.path(NAME), newer).unwrap();
    let (file, loaded) = fixture.load();
    let state = loaded.ok().unwrap();
    assert_eq!(state, Tokens { tokens: vec!["a".into()], note: Some("n".into()) });
    file.save(&tokens(&["b"])).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&fixture.text()).unwrap();
    let expected = serde_json::json!({"version": 1, "tokens": ["b"], "later": {"x": [1, 2]}, "zone": null});
    assert_eq!(saved, expected);
}

#[test]
fn a_damaged_file_is_moved_aside_and_the_state_starts_empty() {
    for damage in [
        "",
        "{\"version\": 1, \"tok",
        "[]",
        "null",
        "{\"tokens\": []}",
        "{\"version\": 0, \"tokens\": []}",
        "{\"version\": \"1\", \"tokens\": []}",
        "{\"version\": 1}",
        "{\"version\": 1, \"tokens\": 5}",
        "{\"version\": 1, \"tokens\": []} trailing",
    ] {
        let fixture = Fixture::new();
        fs::write(fixture.path(NAME), damage).unwrap();
        let (file, loaded) = fixture.load();
        let Loaded::Corrupt { moved_to } = loaded else { panic!("{damage:?} was taken as {loaded:?}") };
        assert!(moved_to.to_string_lossy().contains("/state.json.corrupt-"), "{}", moved_to.display());
        assert_eq!(fs::read_to_string(&moved_to).unwrap(), damage);
        file.save(&tokens(&["new"])).unwrap();
        assert_eq!(fixture.load().1.ok(), Some(tokens(&["new"])));
    }
}

#[test]
fn two_damaged_files_in_one_second_are_both_kept() {
    let fixture = Fixture::new();
    let damage = |text: &str| {
        fs::write(fixture.path(NAME), text).unwrap();
        let (_, loaded) = fixture.load();
        let Loaded::Corrupt { moved_to } = loaded else { panic!("{loaded:?}") };
        moved_to
    };
    let (first, second) = (damage("first"), damage("second"));
    assert_eq!(fs::read_to_string(first).unwrap(), "first");
    assert_eq!(fs::read_to_string(second).unwrap(), "second");
}

#[test]
fn what_is_no_regular_file_is_moved_aside_unopened() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path(NAME)).unwrap();
    assert!(matches!(fixture.load().1, Loaded::Corrupt { .. }));

    let elsewhere = fixture.root.path().join("elsewhere");
    fs::write(&elsewhere, r#"{"version": 1, "tokens": []}"#).unwrap();
    symlink(&elsewhere, fixture.path(NAME)).unwrap();
    assert!(matches!(fixture.load().1, Loaded::Corrupt { .. }));

    let listener = std::os::unix::net::UnixListener::bind(fixture.path(NAME)).unwrap();
    let Loaded::Corrupt { moved_to } = fixture.load().1 else { panic!("a socket was read") };
    assert!(fs::symlink_metadata(moved_to).unwrap().file_type().is_socket());
    drop(listener);
}

#[test]
fn sizes_are_bounded_both_ways() {
    let fixture = Fixture::new();
    let (file, missing) = fixture.load();
    assert_eq!(missing, Loaded::Missing);
    let huge = Tokens { tokens: vec!["x".repeat(MAX_FILE_LEN as usize)], note: None };
    assert!(matches!(file.save(&huge), Err(PersistError::TooLarge { limit: MAX_FILE_LEN, .. })));
    assert!(!fixture.path(NAME).exists());

    fs::File::create(fixture.path(NAME)).unwrap().set_len(MAX_FILE_LEN + 1).unwrap();
    assert!(matches!(fixture.load().1, Loaded::Corrupt { .. }));
}

#[test]
fn a_state_that_is_no_object_or_names_its_own_version_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Versioned {
        version: u32,
    }
    let fixture = Fixture::new();
    let (list, _) = StateFile::<Vec<u32>>::load(&fixture.directory, "list.json").unwrap();
    assert!(matches!(list.save(&vec![1]), Err(PersistError::Encode { .. })));
    let (versioned, _) = StateFile::<Versioned>::load(&fixture.directory, "versioned.json").unwrap();
    assert!(matches!(versioned.save(&Versioned { version: 2 }), Err(PersistError::Encode { .. })));
}

#[test]
fn the_epoch_rises_at_each_start_even_when_the_clock_was_set_back() {
    let fixture = Fixture::new();
    assert_eq!(fixture.start("n", 1_000).unwrap().epoch(), Epoch(1_000));
    let fixture = fixture.restart();
    assert_eq!(fixture.start("n", 1_000).unwrap().epoch(), Epoch(1_001));
    let fixture = fixture.restart();
    assert_eq!(fixture.start("n", 5).unwrap().epoch(), Epoch(1_002));
    let fixture = fixture.restart();
    assert_eq!(fixture.start("n", 9_000).unwrap().epoch(), Epoch(9_000));
}

#[test]
fn the_epoch_is_on_disk_before_it_is_used() {
    let fixture = Fixture::new();
    let epoch = fixture.start("n", 1_000).unwrap();
    let stored = || {
        let text = fs::read_to_string(fixture.path("gossip_state.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(stored(), serde_json::json!({"version": 1, "node_id": "n", "epoch": 1_000, "members": []}));
    epoch.raise(Epoch(2_000)).unwrap();
    assert_eq!((epoch.epoch(), &stored()["epoch"]), (Epoch(2_000), &2_000.into()));
    epoch.raise(Epoch(1_500)).unwrap();
    assert_eq!((epoch.epoch(), &stored()["epoch"]), (Epoch(2_000), &2_000.into()));

    fs::create_dir(fixture.path(".gossip_state.json.tmp")).unwrap();
    epoch.raise(Epoch(3_000)).unwrap_err();
    assert_eq!(epoch.epoch(), Epoch(2_000), "what is not durable is not adopted");
}

#[test]
fn the_state_of_another_node_is_not_taken_over() {
    let fixture = Fixture::new();
    fixture.start("worker", 1_000).unwrap();
    let refused = fixture.start("coordinator", 2_000).unwrap_err().to_string();
    assert_eq!(
        refused,
        format!(
            "{} belongs to node worker, and this is coordinator; set state_directory to one of this node's own, or \
             node_id to worker",
            fixture.path("gossip_state.json").display()
        )
    );
    assert_eq!(fixture.start("worker", 1_000).unwrap().epoch(), Epoch(1_001), "nothing was changed");
}

#[test]
fn members_outlive_a_restart_and_are_written_only_when_they_change() {
    let fixture = Fixture::new();
    let member = |number: u16| KnownMember {
        node_id: format!("m{number}").parse().unwrap(),
        epoch: Epoch(number.into()),
        address: ([10, 0, 0, 1], number).into(),
    };
    let first = fixture.start("n", 1_000).unwrap();
    assert_eq!(first.members(), []);
    assert!(first.remember(vec![member(1), member(2)]).unwrap());
    assert!(!first.remember(vec![member(1), member(2)]).unwrap(), "nothing to write");
    first.raise(Epoch(5_000)).unwrap();
    let second = fixture.start("n", 1_000).unwrap();
    assert_eq!((second.epoch(), second.members()), (Epoch(5_001), vec![member(1), member(2)]));
}

#[test]
fn a_damaged_epoch_starts_from_the_clock_and_an_exhausted_one_does_not() {
    let fixture = Fixture::new();
    fs::write(fixture.path("gossip_state.json"), "{").unwrap();
    let epoch = fixture.start("n", 1_000).unwrap();
    assert_eq!(epoch.epoch(), Epoch(1_000));
    assert!(epoch.moved_aside().is_some_and(Path::exists));

    let last = format!("{{\"version\": 1, \"node_id\": \"n\", \"epoch\": {}}}", u64::MAX);
    fs::write(fixture.path("gossip_state.json"), last).unwrap();
    assert!(matches!(fixture.start("n", 1_000), Err(PersistError::EpochExhausted { .. })));
}
