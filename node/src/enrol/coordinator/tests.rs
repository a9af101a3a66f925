//! A coordinator in memory, and every way to be refused by it.

mod coordinators;

use super::*;
use crate::{
    enrol::{
        store::{MAX_USES, StoreError},
        token::{StoredToken, hash},
    },
    identity::{
        Expected, GenerateRequest, IdentityFiles, JoinToken, TokenId, TokenSecret, Validity, generate,
        inspect, pem,
    },
    persist::StateDirectory,
};
use p2p_core::{
    Epoch, SpiffeId,
    gossip::MemberView,
    grant::Grant,
    record::{RecordView, Signer},
};
use p2p_proto::v1::{MemberState, NodeRecord};
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio::net::TcpListener;

mod reissue;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A coordinator `c` of cluster `shop`, an admin, and a port that stands for the new node's.
struct Rig {
    enrolment: Arc<Enrolment>,
    metrics: Metrics,
    view: watch::Sender<Arc<View>>,
    directory: tempfile::TempDir,
    /// What the new node listens with.
    listener: TcpListener,
}

fn load(
    directory: &std::path::Path,
    view: watch::Receiver<Arc<View>>,
    metrics: &Metrics,
    node: &str,
) -> Arc<Enrolment> {
    let at = |name: &str| directory.join("certs").join(name);
    let files = IdentityFiles {
        cert: at(&format!("{node}_cert.pem")),
        key: at(&format!("{node}_key.pem")),
        ca_cert: at("ca_cert.pem"),
        ca_key: at("ca_key.pem"),
    };
    let coordinator = node == "c";
    let expected =
        Expected { node_id: node.parse().unwrap(), cluster_id: None, coordinator, may_stand_alone: false };
    let identity = Arc::new(IdentityStore::load(files, expected, UnixTime::now()).unwrap());
    let store = TokenStore::load(&StateDirectory::open(directory.join("data")).unwrap()).unwrap();
    let advertised = vec!["10.0.0.1:8001".parse().unwrap()];
    let policy = IssuePolicy { ttl: 30 * DAY, recover_window: 30 * DAY };
    Enrolment::new(
        Issuing { identity, store, view, advertised, policy, revocations: Revocations::new(metrics) },
        metrics,
    )
}

async fn rig() -> Rig {
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
    let metrics = Metrics::default();
    let enrolment = load(directory.path(), receiver, &metrics, "c");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Rig { enrolment, metrics, view, directory, listener }
}

fn plain() -> NewToken {
    NewToken {
        role: Role::Worker,
        node: None,
        grant: None,
        ttl: Duration::ZERO,
        uses: 0,
        replace: false,
        created_by: "spiffe://shop/admin/alice".parse().unwrap(),
    }
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

impl Rig {
    async fn token(&self, new: NewToken) -> JoinToken {
        self.enrolment.create(new).await.unwrap().0
    }

    fn request(&self, token: &JoinToken, key: &KeyPair) -> Request {
        Request {
            from: [192, 0, 2, 1].into(),
            forwarded: false,
            token_id: token.id.as_bytes().to_vec(),
            secret: token.secret.expose().to_vec(),
            csr: csr(key),
            node_id: "new".to_owned(),
            advertise_address: self.listener.local_addr().unwrap().to_string(),
            sans: vec![],
            ca_csr: vec![],
        }
    }

    async fn refused(&self, request: Request) -> &'static str {
        self.enrolment.enrol(request).await.expect_err("refused").word()
    }

    fn counted(&self, result: &str) -> String {
        let text = self.metrics.encode(crate::telemetry::Format::Prometheus).unwrap();
        let name = format!("p2p_enrolments_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn seen(role: Role, state: MemberState, expires_at: i64) -> MemberView {
    let id = SpiffeId::new("shop".parse().unwrap(), role, "new".parse().unwrap());
    let records = RecordView {
        node: NodeRecord::default(),
        services: Default::default(),
        not_granted: Vec::new(),
        signer: Signer { id, grant: None, expires_at },
    };
    MemberView {
        evicted: false,
        state,
        since_unix_ms: 0,
        epoch: Epoch(1),
        current: true,
        address: None,
        rtt: p2p_core::membership::Rtt::default(),
        records: Arc::new(records),
    }
}

#[tokio::test]
async fn a_token_gives_one_key_the_certificate_it_names_however_often_it_asks() {
    let rig = rig().await;
    let token = rig.token(NewToken { grant: Some(Grant::parse(&["demo.*"]).unwrap()), ..plain() }).await;
    let (first, second) = (key(), key());
    let enrolled = rig.enrolment.enrol(rig.request(&token, &first)).await.unwrap();
    let certificate = PeerCertificate::parse(&enrolled.chain[0]).unwrap();
    assert_eq!(certificate.spiffe.to_string(), "spiffe://shop/worker/new");
    assert!(certificate.may_provide(&"demo.A".parse().unwrap()));
    assert!(!certificate.may_provide(&"other.A".parse().unwrap()));
    let days = (certificate.not_after.as_secs() - UnixTime::now().as_secs()).div_ceil(86_400);
    assert_eq!(days, 30);
    assert_eq!(rig.enrolment.enrol(rig.request(&token, &first)).await.unwrap(), enrolled);
    assert_eq!(rig.refused(rig.request(&token, &second)).await, "used");
    assert_eq!(
        (rig.counted("ok"), rig.counted("again"), rig.counted("used")),
        ("1".into(), "1".into(), "1".into())
    );
}

#[tokio::test]
async fn a_restart_forgets_neither_tokens_nor_uses_and_no_secret_is_on_disk() {
    let rig = rig().await;
    let token = rig.token(plain()).await;
    let first = key();
    let request = rig.request(&token, &first);
    let enrolled = rig.enrolment.enrol(request.clone()).await.unwrap();
    let second = rig.request(&token, &key());
    let Rig { enrolment, view, directory, listener: _listener, .. } = rig;
    drop(enrolment);
    let path = directory.path().join("data/identity_state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let hex: String = token.secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = String::from(super::super::token::Base64(token.secret.expose().to_vec()));
    assert!(!text.contains(&hex) && !text.contains(&base64));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = load(directory.path(), view.subscribe(), &Metrics::default(), "c");
    assert_eq!(again.enrol(request).await.unwrap(), enrolled);
    assert_eq!(again.enrol(second).await.unwrap_err().word(), "used");
    assert_eq!(again.list().await.unwrap()[0].joined, ["new"]);
}

#[tokio::test]
async fn strangers_get_one_answer_and_the_operator_each_reason() {
    let rig = rig().await;
    let (valid, used) = (rig.token(plain()).await, rig.token(plain()).await);
    let revoked = rig.token(plain()).await;
    rig.enrolment.enrol(rig.request(&used, &key())).await.unwrap();
    rig.enrolment.revoke(revoked.id, plain().created_by).await.unwrap();
    let expired = rig.token(NewToken { ttl: Duration::from_secs(1), ..plain() }).await;
    let unknown = JoinToken { id: TokenId::new([1; 16]), ..valid.clone() };
    let wrong = JoinToken { secret: TokenSecret::new([1; 32]), ..valid.clone() };
    let short = Request { secret: vec![1], ..rig.request(&valid, &key()) };
    let long_id = Request { token_id: vec![1; 17], ..rig.request(&valid, &key()) };
    while UnixTime::now() <= expired.expires {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (request, word) in [
        (rig.request(&unknown, &key()), "unknown"),
        (rig.request(&wrong, &key()), "wrong_secret"),
        (rig.request(&used, &key()), "used"),
        (rig.request(&expired, &key()), "expired"),
        (rig.request(&revoked, &key()), "revoked"),
        (short, "wrong_secret"),
        (long_id, "unknown"),
        (Request { csr: vec![1], ..rig.request(&wrong, &key()) }, "wrong_secret"),
        (Request { csr: vec![1], ..rig.request(&used, &key()) }, "used"),
        (Request { node_id: "../x".into(), ..rig.request(&wrong, &key()) }, "wrong_secret"),
    ] {
        let refusal = rig.enrolment.enrol(request).await.expect_err("refused");
        assert_eq!(refusal.word(), word);
        let fault = refusal.to_fault();
        assert_eq!((fault.reason, fault.message.as_str()), (Reason::Denied, "the join token is not valid"));
    }
    assert_eq!(rig.counted("wrong_secret"), "4");
    let states: Vec<_> = rig.enrolment.list().await.unwrap().iter().map(|info| info.state().word()).collect();
    assert_eq!(states, ["valid", "used", "revoked", "expired"]);
}

#[tokio::test]
async fn a_bound_token_is_for_its_node_and_a_free_one_for_ids_that_are_free() {
    let rig = rig().await;
    let bound = rig.token(NewToken { node: Some("other".parse().unwrap()), ..plain() }).await;
    let refusal = rig.enrolment.enrol(rig.request(&bound, &key())).await.unwrap_err();
    assert_eq!(
        refusal.to_fault().message,
        "the join token is for node other, and this is new; make one with --node new"
    );
    let free = rig.token(NewToken { uses: 3, ..plain() }).await;
    assert_eq!(
        rig.refused(Request { node_id: "c".into(), ..rig.request(&free, &key()) }).await,
        "node_id_taken"
    );
    assert_eq!(
        rig.refused(Request { node_id: "A/b".into(), ..rig.request(&free, &key()) }).await,
        "malformed"
    );
    rig.enrolment.enrol(rig.request(&free, &key())).await.unwrap();
    assert_eq!(rig.refused(rig.request(&free, &key())).await, "node_id_taken", "issued a moment ago");
    let replace = rig.token(NewToken { replace: true, ..plain() }).await;
    assert!(rig.enrolment.enrol(rig.request(&replace, &key())).await.is_ok());
}

#[tokio::test]
async fn a_members_id_is_taken_while_it_lives_or_its_certificate_does() {
    let rig = rig().await;
    let (token, now) = (rig.token(plain()).await, i64::try_from(UnixTime::now().as_secs()).unwrap());
    let replace = rig.token(NewToken { replace: true, ..plain() }).await;
    let show = |role, state, expires_at| {
        let members = [("new".parse().unwrap(), seen(role, state, expires_at))].into();
        rig.view.send_replace(Arc::new(View { members }));
    };
    for (state, expires_at) in [(MemberState::Alive, now - 9), (MemberState::Down, now + 999)] {
        show(Role::Worker, state, expires_at);
        assert_eq!(rig.refused(rig.request(&token, &key())).await, "node_id_taken");
    }
    show(Role::Coordinator, MemberState::Down, now - 9);
    assert_eq!(rig.refused(rig.request(&replace, &key())).await, "node_id_taken", "a coordinator's id");
    show(Role::Worker, MemberState::Alive, now + 999);
    assert!(rig.enrolment.enrol(rig.request(&replace, &key())).await.is_ok());
    show(Role::Worker, MemberState::Down, now - 9);
    assert_eq!(
        rig.refused(rig.request(&token, &key())).await,
        "node_id_taken",
        "the new one's certificate lives"
    );
}

#[tokio::test]
async fn a_request_cannot_widen_what_the_token_says() {
    let rig = rig().await;
    let token = rig.token(NewToken { grant: Some(Grant::parse(&["demo.*"]).unwrap()), ..plain() }).await;
    let evil = key();
    let mut params = CertificateParams::new(vec!["coordinator.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://shop/coordinator/c".try_into().unwrap()));
    params.distinguished_name.push(rcgen::DnType::CommonName, "c");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&evil).unwrap().der().to_vec();
    let sans = ["new.example", "c", "spiffe://shop/admin/root", "*.example"].map(str::to_owned).to_vec();
    let enrolled = rig.enrolment.enrol(Request { csr, sans, ..rig.request(&token, &evil) }).await.unwrap();
    let pem = pem::to_text(&enrolled.chain[0]);
    let info = inspect(pem.as_bytes(), UnixTime::now()).unwrap().remove(0);
    assert_eq!(info.spiffe_id.as_deref(), Some("spiffe://shop/worker/new"));
    assert_eq!((info.subject.as_str(), info.is_ca), ("CN=new", false));
    assert_eq!(info.grant, Some(vec!["demo.*".to_owned()]));
    assert_eq!(info.dns_names, ["new.example"]);
    assert_eq!(info.ip_addresses, [IpAddr::from([127, 0, 0, 1])]);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_keeps_its_token() {
    let rig = rig().await;
    let token = rig.token(plain()).await;
    let (key, closed) = (key(), TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    let request = Request { advertise_address: closed.to_string(), ..rig.request(&token, &key) };
    let fault = rig.enrolment.enrol(request).await.unwrap_err().to_fault();
    assert_eq!(fault.reason, Reason::Precondition);
    assert!(fault.message.contains(&format!("cannot reach this node at {closed} (")), "{fault}");
    for bad in ["", "0.0.0.0:1", "127.0.0.1:0", "127.0.0.1", "host:1", "224.0.0.1:1"] {
        let request = Request { advertise_address: bad.into(), ..rig.request(&token, &key) };
        assert_eq!(rig.refused(request).await, "malformed", "{bad:?}");
    }
    assert!(rig.enrolment.enrol(rig.request(&token, &key)).await.is_ok());
}

#[tokio::test]
async fn a_request_without_a_key_of_its_own_or_through_a_node_is_refused() {
    let rig = rig().await;
    let token = rig.token(plain()).await;
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(rig.refused(Request { csr: csr(&p384), ..rig.request(&token, &key()) }).await, "csr");
    let mut damaged = csr(&key());
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(rig.refused(Request { csr: damaged, ..rig.request(&token, &key()) }).await, "csr");
    assert_eq!(rig.refused(Request { forwarded: true, ..rig.request(&token, &key()) }).await, "forwarded");
}

#[tokio::test]
async fn attempts_are_limited_and_successes_cost_nothing() {
    let rig = rig().await;
    let token = rig.token(NewToken { uses: 1, ..plain() }).await;
    let key = key();
    let wrong = JoinToken { secret: TokenSecret::new([1; 32]), ..token.clone() };
    for _ in 0..super::super::attempts::PER_ADDRESS {
        assert!(rig.enrolment.enrol(rig.request(&token, &key)).await.is_ok());
    }
    for _ in 0..super::super::attempts::PER_ADDRESS {
        rig.refused(rig.request(&wrong, &key)).await;
    }
    let fault = rig.enrolment.enrol(rig.request(&token, &key)).await.unwrap_err().to_fault();
    assert_eq!(fault.reason, Reason::RateLimited);
    assert!(fault.retry_after.is_some());
    assert!(rig.counted("limited").parse::<u32>().unwrap() >= 1);
    let elsewhere = Request { from: [192, 0, 2, 2].into(), ..rig.request(&token, &key) };
    assert!(rig.enrolment.enrol(elsewhere).await.is_ok());
}

#[tokio::test]
async fn only_a_coordinator_with_its_ca_makes_tokens_and_only_within_bounds() {
    let rig = rig().await;
    for (new, says) in [
        (NewToken { role: Role::Coordinator, uses: 2, ..plain() }, "for a coordinator has one use"),
        (NewToken { role: Role::Admin, ..plain() }, "join tokens are for nodes"),
        (NewToken { ttl: admin::MAX_TTL + Duration::from_secs(1), ..plain() }, "at most 30d"),
        (NewToken { uses: MAX_USES + 1, ..plain() }, "at most 1000 uses"),
        (NewToken { uses: 2, node: Some("a".parse().unwrap()), ..plain() }, "for one node has one use"),
    ] {
        let fault = rig.enrolment.create(new).await.unwrap_err();
        assert_eq!(fault.reason, Reason::InvalidArgument);
        assert!(fault.message.contains(says), "{fault}");
    }
    let unknown = rig.enrolment.revoke(TokenId::new([0; 16]), plain().created_by).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::NotFound);

    std::fs::remove_file(rig.directory.path().join("certs/ca_key.pem")).unwrap();
    let fault = rig.enrolment.create(plain()).await.unwrap_err();
    assert_eq!(fault.reason, Reason::NotCoordinator);
    assert!(fault.message.starts_with("coordinator c cannot issue certificates: cannot read "), "{fault}");

    let Rig { enrolment, view, directory, .. } = rig;
    drop(enrolment);
    let mut coordinator = seen(Role::Coordinator, MemberState::Alive, i64::MAX);
    let record = NodeRecord { addresses: vec!["10.0.0.1:8001".into()], ..NodeRecord::default() };
    coordinator.records = Arc::new(RecordView { node: record, ..coordinator.records.as_ref().clone() });
    view.send_replace(Arc::new(View { members: [("c".parse().unwrap(), coordinator)].into() }));
    let worker = load(directory.path(), view.subscribe(), &Metrics::default(), "w");
    for fault in [worker.create(plain()).await.map(drop), worker.list().await.map(drop)] {
        let fault = fault.unwrap_err();
        assert_eq!(fault.reason, Reason::NotCoordinator);
        assert_eq!(fault.message, "w is no coordinator; ask a coordinator: c at 10.0.0.1:8001");
    }
}

#[tokio::test]
async fn tokens_are_bounded_and_those_that_ended_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = TokenStore::load(&StateDirectory::open(directory.path()).unwrap()).unwrap();
    let token = |number: u8, uses: u32, expires_at: u64| StoredToken {
        id: TokenId::new([number; 16]),
        secret_sha256: hash(b""),
        role: Role::Worker,
        node_id: None,
        grant: None,
        replace: false,
        uses,
        created_at: 0,
        expires_at,
        created_by: String::new(),
        revoked: false,
        used: Vec::new(),
        unknown: serde_json::Map::new(),
    };
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let mut kept = 0;
    let full = loop {
        match store.add(token(kept, MAX_USES, 1000), at(0)) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full) && kept > 5, "{kept}");
    assert!(store.add(token(100, 1, 1000), at(1000)).is_ok(), "a small one fits");
    assert!(store.add(token(101, MAX_USES, 1), at(1000 + 86_401)).is_ok(), "a day after their end");
    assert_eq!(store.tokens().len(), 1);
}
