//! A disk that is full, read-only, or holds something else than it should: the node goes on serving, says so, and refuses
//! only what it could not keep.

mod support;

use p2p_proto::v1::{
    ListRevocationsRequest, auth_service_client::AuthServiceClient, revoke_token_request::What,
};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};
use support::{Binary, Certificates, Client, TestNode, eventually};

/// A small file system of its own; gone when this is dropped.
struct Tmpfs {
    at: tempfile::TempDir,
}

impl Tmpfs {
    /// `None`, with the reason on the screen, where this user may not mount.
    fn new() -> Option<Self> {
        let fs = Self { at: tempfile::tempdir().expect("a directory") };
        fs.mount(&["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]).then_some(fs)
    }

    #[allow(clippy::print_stdout, reason = "whoever runs the tests should know that one was passed over")]
    fn mount(&self, arguments: &[&str]) -> bool {
        let mounted = Command::new("mount").args(arguments).arg(self.at.path()).output();
        let trouble = match mounted {
            Ok(done) if done.status.success() => return true,
            Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("passed over: this user cannot mount a file system ({})", trouble.trim());
        false
    }

    /// From now on what is opened by its path cannot be changed.
    fn make_read_only(&self) -> bool {
        let path = self.at.path().display().to_string();
        self.mount(&["--bind", &path]) && self.mount(&["-o", "remount,bind,ro"])
    }

    fn unmount(&self) {
        // Lazily: the node may have files open.
        let done = Command::new("umount").arg("--lazy").arg(self.at.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "unmounted");
    }

    /// Takes all the space there is.
    fn fill(&self) -> PathBuf {
        let path = self.at.path().join("filler");
        let mut file = fs::File::create(&path).expect("made");
        while file.write_all(&[0; 512]).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.at.path()).output().ok();
    }
}

async fn revoked(client: &Client) -> BTreeSet<String> {
    let mut service = AuthServiceClient::new(client.channel.clone());
    let listed = service.list_revocations(ListRevocationsRequest {}).await.expect("listed").into_inner();
    listed.revocations.into_iter().map(|row| row.name).collect()
}

/// Waits until the journal is empty: what it held is in the state file.
async fn saved(state: &Path) {
    eventually("a save", async || match fs::metadata(state.join("jwt_blacklist.json.journal")) {
        Ok(journal) if journal.len() == 8 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// A coordinator whose state is there.
async fn coordinator_on(disk: &Tmpfs, certificates: &Certificates) -> (TestNode, Client) {
    let config = certificates
        .config("c1")
        .set("state_directory", &disk.at.path().display().to_string())
        .set("state_autosave_interval", "100ms");
    let node = TestNode::start(Binary::Node, config).await;
    let admin = certificates.client(&node, "admin").await;
    (node, admin)
}

async fn killed(mut node: TestNode) -> TestNode {
    node.signal(Signal::KILL);
    node.ends().await;
    node.start_again(Binary::Node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_cannot_be_kept_and_nothing_else() {
    let Some(disk) = Tmpfs::new() else { return };
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (mut node, admin) = coordinator_on(&disk, &certificates).await;
    let mut kept = BTreeSet::new();
    let filler = disk.fill();
    let refused = 'refused: {
        for number in 0..1000 {
            let jti = format!("token-{number}");
            match admin.revoke(What::Jti(jti.clone())).await {
                Ok(_) => drop(kept.insert(jti)),
                Err(status) => break 'refused (jti, status),
            }
        }
        panic!("a full disk keeps {} revocations", kept.len());
    };
    let told = refused.1.message();
    assert!(told.contains("in force on this node, but it would not survive a restart"), "{told}");
    // All else goes on.
    admin.members().await.expect("it serves");
    node.logs("revocations could not be kept on disk").await;

    // With room again it makes good by itself what it could not keep.
    fs::remove_file(filler).expect("removed");
    saved(disk.at.path()).await;
    admin.revoke(What::Jti("afterwards".to_owned())).await.expect("kept");
    kept.extend([refused.0, "afterwards".to_owned()]);
    let node = killed(node).await;
    let found = revoked(&certificates.client(&node, "admin").await).await;
    assert_eq!(kept.difference(&found).count(), 0, "{kept:?}, found {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_become_read_only_is_said_and_no_reason_to_stop() {
    let Some(disk) = Tmpfs::new() else { return };
    let certificates = Certificates::new(&["c1:coordinator"]);
    let (mut node, admin) = coordinator_on(&disk, &certificates).await;
    if !disk.make_read_only() {
        return;
    }
    // The journal is open still; the state file cannot be replaced.
    admin.revoke(What::Jti("one".to_owned())).await.expect("kept");
    node.logs("Read-only file system").await;
    admin.members().await.expect("it serves");

    // Nothing starts there, and why is said.
    node.signal(Signal::KILL);
    node.ends().await;
    let refused = TestNode::run(&node.config).await;
    assert_eq!(refused.code, Some(1), "{}", refused.log);
    assert!(refused.log.contains("Read-only file system"), "{}", refused.log);
    assert!(refused.log.contains("set state_directory"), "{}", refused.log);
    disk.unmount();
    let node = node.start_again(Binary::Node).await;
    let found = revoked(&certificates.client(&node, "admin").await).await;
    assert!(found.contains("one"), "{found:?}");
}

type Harm = (&'static str, fn(&Path));

/// What may have become of a state file.
const DAMAGE: [Harm; 5] = [
    ("emptied", |path| fs::write(path, "").expect("written")),
    ("with a bit flipped", |path| {
        let mut bytes = fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x80;
        fs::write(path, bytes).expect("written");
    }),
    ("of no version", |path| fs::write(path, "{\"version\": 0}").expect("written")),
    ("a directory", |path| {
        fs::remove_file(path).expect("removed");
        fs::create_dir(path).expect("made");
    }),
    ("a link elsewhere", |path| {
        fs::remove_file(path).expect("removed");
        symlink("/etc/hostname", path).expect("linked");
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_has_become_of_a_state_file_the_node_starts_and_says_what_is_lost() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let mut node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let admin = certificates.client(&node, "admin").await;
    let token = admin.issue("ci", &["*"]).await.expect("issued");
    admin.revoke(What::Jti("gone".to_owned())).await.expect("revoked");
    for (damage, harm) in DAMAGE {
        node.signal(Signal::TERM);
        assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
        for name in ["jwt_blacklist.json", "gossip_state.json"] {
            harm(&node.state_directory().join(name));
        }
        node = node.start_again(Binary::Node).await;
        node.logs("no access token is accepted until another node has told").await;
        let client = certificates.client(&node, "admin").await;
        client.members().await.expect("it serves");
        client.awaits_verdict(&token, "state_lost").await;
        let aside = fs::read_dir(node.state_directory()).expect("listed").filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.to_string_lossy().starts_with("jwt_blacklist.json.corrupt-")
        });
        assert!(aside.count() > 0, "{damage}: it is kept for who looks into it");
    }
    assert!(
        fs::metadata("/etc/hostname").is_ok_and(|file| file.is_file()),
        "what a link led to is untouched"
    );
}
