//! A rotation from beginning to end, with members as the view shows them.

use super::*;
use crate::identity::{
    AnchorsFile, Ca, Expected, GenerateRequest, IdentityFiles, LeafRequest, Validity, generate,
};
use p2p_core::{
    Epoch, SpiffeId,
    record::{RecordView, Signer},
};
use p2p_proto::v1::NodeRecord;
use std::path::Path;

/// A coordinator `c` of cluster `shop`, its rotation, and whom it sees.
struct Rig {
    directory: tempfile::TempDir,
    view: watch::Sender<Arc<View>>,
    rotation: Arc<Rotation>,
}

fn load(directory: &Path, view: watch::Receiver<Arc<View>>, node: &str) -> Arc<Rotation> {
    let at = |name: &str| directory.join("certs").join(name);
    let files = IdentityFiles {
        cert: at(&format!("{node}_cert.pem")),
        key: at(&format!("{node}_key.pem")),
        ca_cert: at("ca_cert.pem"),
        ca_key: at("ca_key.pem"),
    };
    let node_id = node.parse().unwrap();
    let expected = Expected { node_id, cluster_id: None, coordinator: node == "c", may_stand_alone: false };
    let identity = Arc::new(IdentityStore::load(files, expected, UnixTime::now()).unwrap());
    let state = StateDirectory::open(directory.join(format!("data-{node}"))).unwrap();
    let anchors = Anchors::new(AnchorsFile::load(&state).unwrap(), identity.clone());
    Rotation::new(RotationFile::load(&state).unwrap(), identity, anchors, view)
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let request = GenerateRequest {
        out: directory.path().join("certs"),
        cluster_id: Some("shop".parse().unwrap()),
        nodes: vec![("c".parse().unwrap(), Role::Coordinator), ("w".parse().unwrap(), Role::Worker)],
        sans: vec![],
        days: 100,
        self_signed: false,
        force: false,
    };
    generate(&request, UnixTime::now()).unwrap();
    let (view, receiver) = watch::channel(Arc::default());
    let rotation = load(directory.path(), receiver, "c");
    Rig { directory, view, rotation }
}

impl Rig {
    fn restart(self) -> Self {
        let Self { directory, view, rotation } = self;
        drop(rotation);
        let rotation = load(directory.path(), view.subscribe(), "c");
        Self { directory, view, rotation }
    }

    fn ca(&self) -> Ca {
        let files = self.rotation.identity.files();
        Ca::load(&files.ca_cert, &files.ca_key).unwrap()
    }

    fn roots(&self) -> usize {
        self.rotation.identity.current().trust().roots().len()
    }

    /// Shows members: name, serial of their bundle, and whose CA issued for them.
    fn shows(&self, members: &[(&str, u64, &Ca)]) {
        let view = members.iter().map(|(name, serial, ca)| {
            let spiffe = SpiffeId::new("shop".parse().unwrap(), Role::Worker, name.parse().unwrap());
            let validity = Validity::days(UnixTime::now(), 30).unwrap();
            let leaf = LeafRequest {
                spiffe: spiffe.clone(),
                sans: vec![],
                grant: None,
                vouchers: Vec::new(),
                validity,
            };
            let node = NodeRecord {
                certificate_chain: vec![ca.issue(&leaf).unwrap().der().to_vec().into()],
                bundle_serial: *serial,
                ..NodeRecord::default()
            };
            let signer = Signer { id: spiffe, grant: None, expires_at: i64::MAX };
            let records = RecordView { node, services: Default::default(), not_granted: Vec::new(), signer };
            let member = MemberView {
                evicted: false,
                state: MemberState::Alive,
                since_unix_ms: 0,
                epoch: Epoch(1),
                current: true,
                address: None,
                rtt: p2p_core::membership::Rtt::default(),
                records: Arc::new(records),
            };
            (name.parse().unwrap(), member)
        });
        self.view.send_replace(Arc::new(View { members: view.collect() }));
    }

    async fn run(&self, action: Action, forced: &[&str]) -> (RotationStep, Vec<String>, u64) {
        let forced = forced.iter().map(|node| node.parse().unwrap()).collect();
        let status = self.rotation.run(action, forced).await.unwrap();
        (status.step(), status.waiting_for, status.serial)
    }
}

#[tokio::test]
async fn each_step_waits_for_every_member_and_can_be_resumed() {
    let rig = rig();
    let old = rig.ca();
    assert_eq!(rig.run(Action::Look, &[]).await, (RotationStep::Idle, vec![], 0));
    assert_eq!(rig.run(Action::GoOn, &[]).await, (RotationStep::Idle, vec![], 0), "nothing begins by itself");
    rig.shows(&[("a", 0, &old), ("b", 0, &old)]);
    let waiting = |nodes: &[&str]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(rig.run(Action::Begin, &[]).await, (RotationStep::Spreading, waiting(&["a", "b"]), 1));
    assert_eq!((rig.roots(), rig.ca().cert_pem()), (2, old.cert_pem()), "the old root issues");

    let rig = rig.restart();
    rig.shows(&[("a", 1, &old), ("b", 0, &old)]);
    assert_eq!(rig.run(Action::Begin, &[]).await, (RotationStep::Spreading, waiting(&["b"]), 1));
    // What the view forgets is waited for nevertheless.
    rig.shows(&[("a", 1, &old)]);
    assert_eq!(rig.run(Action::GoOn, &[]).await, (RotationStep::Spreading, waiting(&["b"]), 1));
    rig.shows(&[("a", 1, &old), ("b", 1, &old)]);
    assert_eq!(rig.run(Action::GoOn, &[]).await, (RotationStep::Reissuing, waiting(&["a", "b"]), 2));
    let new = rig.ca();
    assert_ne!(new.cert_pem(), old.cert_pem());
    let bundle = rig.rotation.anchors.bundle().unwrap();
    let own = rig.rotation.identity.current();
    assert!(!crate::identity::needs_reissue(&own, &bundle, UnixTime::now()), "its own certificate is new");

    let rig = rig.restart();
    rig.shows(&[("a", 2, &new), ("b", 2, &old)]);
    assert_eq!(rig.run(Action::GoOn, &[]).await, (RotationStep::Reissuing, waiting(&["b"]), 2));
    assert_eq!(
        rig.run(Action::Look, &["b"]).await,
        (RotationStep::Reissuing, vec![], 2),
        "looking does nothing"
    );
    assert_eq!(rig.run(Action::GoOn, &["b"]).await, (RotationStep::Done, vec![], 3));
    assert_eq!(rig.roots(), 1);
    assert!(rig.directory.path().join("certs/ca_key.pem.retired-1").exists());

    // And the next one.
    let rig = rig.restart();
    assert_eq!(rig.run(Action::Look, &[]).await, (RotationStep::Idle, vec![], 3));
    rig.shows(&[]);
    assert_eq!(rig.run(Action::Begin, &[]).await, (RotationStep::Done, vec![], 6));
    assert_ne!(rig.ca().cert_pem(), new.cert_pem());
}

#[tokio::test]
async fn only_the_coordinator_that_holds_the_roots_key_rotates_it() {
    let rig = rig();
    let worker = load(rig.directory.path(), rig.view.subscribe(), "w");
    let fault = worker.run(Action::Begin, BTreeSet::new()).await.unwrap_err();
    assert_eq!(fault.reason, Reason::NotCoordinator);
    assert!(fault.message.starts_with("w is no coordinator; "), "{fault}");

    let key = rig.directory.path().join("certs/ca_key.pem");
    std::fs::rename(&key, rig.directory.path().join("elsewhere")).unwrap();
    let fault = rig.rotation.run(Action::Begin, BTreeSet::new()).await.unwrap_err();
    assert!(fault.message.contains("cannot read"), "{fault}");
    assert_eq!(rig.run(Action::Look, &[]).await, (RotationStep::Idle, vec![], 0), "nothing was begun");
}
