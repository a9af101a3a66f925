//! Records that a node with a valid certificate must not get through.

use crate::support::{Binary, CLUSTER, Certificates, Client, TestNode, sample, write_with_mode};
use bytes::Bytes;
use p2p_core::{
    ClusterId, Epoch, Grant, NodeId,
    gossip::hello,
    membership::{Identity, Life},
    record::OwnRecords,
    revocation::Segments,
};
use p2p_node::{
    gossip::NodeKeyring,
    identity::{Expected, IdentityFiles, IdentityStore, LeafRequest, UnixTime, Validity},
    peer::dial,
    revocation::Live,
};
use p2p_proto::v1::{
    GossipFrame, GossipMessage, Idempotency, MemberState, NodeEviction, NodeRecord, OwnerState, OwnerStates,
    Revocation, RevocationBody, RevocationPositions, RevocationSegments, RevokeTokenRequest, ServiceMethod,
    ServiceRecord, ServiceState, StatesRequest, StreamingKind, TokenSigner,
    auth_service_client::AuthServiceClient, gossip_message::Kind, gossip_service_client::GossipServiceClient,
    revocation::What, revoke_token_request::What as Asked,
};
use prost::Message as _;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A node that holds a certificate of the cluster, and lies.
pub(super) struct Liar {
    store: Arc<IdentityStore>,
    cluster: ClusterId,
    node: NodeId,
}

pub(super) fn framed(kind: Kind) -> GossipFrame {
    let payload = GossipMessage { kind: Some(kind) }.encode_to_vec().into();
    GossipFrame { payload, ..GossipFrame::default() }
}

impl Liar {
    pub(super) fn new(certificates: &Certificates, name: &str) -> Self {
        let files = IdentityFiles {
            cert: certificates.path(&format!("{name}_cert.pem")),
            key: certificates.path(&format!("{name}_key.pem")),
            ca_cert: certificates.path("ca_cert.pem"),
            ca_key: certificates.path("ca_key.pem"),
        };
        let node: NodeId = name.parse().expect("an id");
        let expected =
            Expected { node_id: node.clone(), cluster_id: None, coordinator: false, may_stand_alone: false };
        let store = IdentityStore::load(files, expected, UnixTime::now()).expect("an identity");
        let cluster = store.current().cluster_id().clone();
        Self { store: Arc::new(store), cluster, node }
    }

    fn life(&self) -> Identity {
        let (epoch, address) = (Epoch(1_000), "127.0.0.1:9".parse().expect("an address"));
        Life { node: self.node.clone(), epoch, generation: 0, instance: 7, address }.into()
    }

    /// Opens a gossip stream with `kinds` as its first frames.
    pub(super) async fn gossip(
        &self,
        to: &TestNode,
        kinds: Vec<Kind>,
    ) -> Result<(mpsc::Sender<GossipFrame>, Streaming<GossipFrame>), Status> {
        let connection = dial(to.address, self.store.current().peer_client_config(), &Live::default())
            .await
            .expect("connected");
        let origin = format!("https://{}", to.address).parse().expect("a URI");
        let (sender, receiver) = mpsc::channel(16);
        for kind in kinds {
            sender.send(framed(kind)).await.expect("room");
        }
        let mut client = GossipServiceClient::with_origin(connection, origin);
        let answer = client.exchange(ReceiverStream::new(receiver)).await?;
        Ok((sender, answer.into_inner()))
    }

    pub(super) fn hello(&self) -> Kind {
        Kind::Hello(hello(&self.cluster, &self.life(), None))
    }

    /// Records signed with this node's key as those of `owner`, newer than what any node of the test has
    /// published.
    pub(super) fn state_of(&self, owner: &str) -> OwnerState {
        self.state_at(owner, Epoch((UnixTime::now().as_secs() + 60) * 1_000))
    }

    pub(super) fn state_at(&self, owner: &str, epoch: Epoch) -> OwnerState {
        let identity = self.store.current();
        let chain = identity.chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect();
        let addresses = vec!["127.0.0.1:9".to_owned()];
        let node = NodeRecord { certificate_chain: chain, addresses, ..NodeRecord::default() };
        self.seal(owner, epoch, node)
    }

    fn seal(&self, owner: &str, epoch: Epoch, node: NodeRecord) -> OwnerState {
        self.seal_with(owner, epoch, node, Vec::new())
    }

    fn seal_with(
        &self,
        owner: &str,
        epoch: Epoch,
        node: NodeRecord,
        services: Vec<ServiceRecord>,
    ) -> OwnerState {
        let records = OwnRecords { node, services };
        records.seal(&self.cluster, &owner.parse().expect("an id"), epoch, 1, &self.keyring())
    }

    fn keyring(&self) -> NodeKeyring {
        NodeKeyring(self.store.clone())
    }
}

pub(super) fn states(state: OwnerState) -> Kind {
    Kind::States(OwnerStates { states: vec![state], answer: false })
}

pub(super) fn refused(reason: &str) -> String {
    format!("p2p_gossip_refused_total{{reason=\"{reason}\"}}")
}

async fn start() -> (Certificates, TestNode, Client, Liar) {
    let certificates = Certificates::new(&["c1:coordinator", "w9:worker"]);
    let node = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let observer = certificates.observer(&node).await;
    let liar = Liar::new(&certificates, "w9");
    (certificates, node, observer, liar)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_worker_cannot_publish_for_anybody_else_or_without_a_signature() {
    let (_certificates, mut node, observer, liar) = start().await;
    let before = observer.members().await.expect("a list");
    let foreign = liar.state_of("c1");
    let stranger = liar.state_of("ghost");
    let mut unsigned = liar.state_of("w9");
    let last = unsigned.signature.len() - 1;
    unsigned.signature =
        unsigned.signature.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == last)).collect();
    let mut changed = liar.state_of("w9");
    changed.records[0].body =
        NodeRecord { zone: "changed".to_owned(), ..NodeRecord::default() }.encode_to_vec().into();
    let two_days = Epoch((UnixTime::now().as_secs() + 48 * 3600) * 1_000);
    let ahead = liar.state_at("w9", two_days);
    let frames = [foreign, stranger, unsigned, changed, ahead].map(states);
    let frames = std::iter::once(liar.hello()).chain(frames).collect();
    let (_sender, _answers) = liar.gossip(&node, frames).await.expect("a stream");

    for (reason, count) in [("owner", 2.0), ("untrusted", 1.0), ("records", 1.0), ("epoch_ahead", 1.0)] {
        observer.awaits_sample(&refused(reason), count).await;
    }
    node.logs("the manifest of c1 is signed by spiffe://test/worker/w9").await;
    let after = observer.members().await.expect("a list");
    assert!(!after.iter().any(|member| member.node_id == "ghost"));
    let of_c1 = |members: &[p2p_proto::v1::NodeInfo]| {
        members.iter().find(|member| member.node_id == "c1").expect("c1").addresses.clone()
    };
    assert_eq!(of_c1(&after), of_c1(&before), "the coordinator's own record stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_stream_is_believed_when_it_tells_the_truth() {
    let (_certificates, node, observer, liar) = start().await;
    let truth = liar.state_of("w9");
    let question = Kind::StatesRequest(StatesRequest { owners: vec!["w9".to_owned()] });
    let frames = vec![liar.hello(), states(truth.clone()), question];
    let (_sender, mut answers) = liar.gossip(&node, frames).await.expect("a stream");
    // What was stored is what the node tells others.
    let told = loop {
        let frame = answers.message().await.expect("no error").expect("more");
        let message = GossipMessage::decode(&*frame.payload).expect("a message");
        if let Some(Kind::States(told)) = message.kind {
            break told;
        }
    };
    assert_eq!(told.states, [truth]);
    let metrics = observer.metrics().await;
    let refused = metrics.lines().filter(|line| line.starts_with("p2p_gossip_refused_total{"));
    assert!(refused.clone().count() > 5 && refused.clone().all(|line| line.ends_with(" 0")), "{metrics}");
}

/// A token signer's certificate that names `name`, as only the CA could make it.
fn signer(certificates: &Certificates, name: &str) -> TokenSigner {
    let spiffe = format!("spiffe://{CLUSTER}/token-signer/{name}").parse().expect("an id");
    let validity = Validity::days(UnixTime::now(), 1).expect("a day");
    let issued = certificates.ca().issue(&LeafRequest {
        spiffe,
        sans: Vec::new(),
        grant: None,
        vouchers: Vec::new(),
        validity,
    });
    TokenSigner { certificate_chain: vec![Bytes::copy_from_slice(issued.expect("issued").der())] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_worker_cannot_publish_token_signers() {
    let (certificates, node, observer, liar) = start().await;
    let chain: Vec<_> =
        liar.store.current().chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let record = NodeRecord {
        certificate_chain: chain.clone(),
        addresses: vec!["127.0.0.1:9".to_owned()],
        // Its own certificate, one of the coordinator that it copied, and even one of its own.
        token_signers: vec![
            TokenSigner { certificate_chain: chain },
            signer(&certificates, "c1"),
            signer(&certificates, "w9"),
        ],
        ..NodeRecord::default()
    };
    let state = liar.seal("w9", Epoch((UnixTime::now().as_secs() + 60) * 1_000), record);
    let (_sender, _answers) = liar.gossip(&node, vec![liar.hello(), states(state)]).await.expect("a stream");
    // It publishes, and answers no probe.
    observer.awaits_state("w9", MemberState::Down).await;
    assert_eq!(sample(&observer.metrics().await, "p2p_token_signers"), Some(1.0), "the coordinator's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_worker_cannot_provide_what_it_was_not_granted() {
    let (certificates, node, observer, _liar) = start().await;
    // As a join token with --allow-service 'demo.*' makes it.
    let grant = Some(Grant::parse(&["demo.*"]).expect("a grant"));
    let spiffe = format!("spiffe://{CLUSTER}/worker/w8").parse().expect("an id");
    let validity = Validity::days(UnixTime::now(), 1).expect("a day");
    let issued = certificates.ca().issue(&LeafRequest {
        spiffe,
        sans: Vec::new(),
        grant,
        vouchers: Vec::new(),
        validity,
    });
    let issued = issued.expect("issued");
    write_with_mode(&certificates.path("w8_cert.pem"), &issued.cert_pem, 0o644);
    write_with_mode(&certificates.path("w8_key.pem"), &issued.key_pem, 0o600);
    let liar = Liar::new(&certificates, "w8");
    let chain = liar.store.current().chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let addresses = vec!["127.0.0.1:9".to_owned()];
    let record = NodeRecord { certificate_chain: chain, addresses, ..NodeRecord::default() };
    let services =
        ["bank.Ledger", "demo.Fine", "grpc.health.v1.Evil", "p2p.v1.Evil"].map(|name| ServiceRecord {
            name: name.to_owned(),
            methods: vec![ServiceMethod {
                name: "Do".to_owned(),
                streaming: StreamingKind::Unary.into(),
                idempotency: Idempotency::Unknown.into(),
            }],
            state: ServiceState::Serving.into(),
            ..ServiceRecord::default()
        });
    let epoch = Epoch((UnixTime::now().as_secs() + 60) * 1_000);
    let state = liar.seal_with("w8", epoch, record, services.to_vec());
    let (_sender, _answers) = liar.gossip(&node, vec![liar.hello(), states(state)]).await.expect("a stream");
    observer.awaits_sample(&refused("not_granted"), 1.0).await;
    observer.awaits_state("w8", MemberState::Down).await;
    let shown = observer.members().await.expect("a list");
    let shown = shown.iter().find(|member| member.node_id == "w8").expect("w8");
    assert_eq!(shown.services, ["demo.Fine"]);
    for service in ["bank.Ledger", "grpc.health.v1.Evil", "p2p.v1.Evil"] {
        let known = observer.providers(&format!("{service}/Do")).await.expect("a list");
        assert!(known.is_empty(), "{service}: {known:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_worker_cannot_revoke_or_evict_anybody() {
    let (certificates, mut node, observer, liar) = start().await;
    let chain: Vec<_> =
        liar.store.current().chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let now_ms = UnixTime::now().as_secs() * 1_000;
    let eviction = NodeEviction { node_id: "c1".to_owned(), counter: 9, readmitted: false, at: 0 };
    // In its own name, and in the coordinator's.
    let signed = ["w9", "c1"].map(|name| {
        let entries = vec![
            Revocation { expires_at: 0, what: Some(What::Node(eviction.clone())) },
            Revocation { expires_at: 0, what: Some(What::Token("some-token".to_owned())) },
        ];
        let signer = name.parse().expect("an id");
        let mut log = Segments::new(liar.cluster.clone());
        let made = log.append(&signer, entries, now_ms, &liar.keyring(), &chain).expect("signed");
        (*made[0]).clone()
    });
    let forged = RevocationSegments { segments: signed.to_vec() };
    let frames = vec![liar.hello(), Kind::Revocations(forged.clone())];
    let (_sender, _answers) = liar.gossip(&node, frames).await.expect("a stream");
    observer.awaits_sample(&refused("signer"), 2.0).await;

    // Nor under numbers that the coordinator has used itself: it must not make it sign everything anew.
    let mut admin_acts = AuthServiceClient::new(certificates.client(&node, "admin").await.channel);
    let revoked = RevokeTokenRequest { what: Some(Asked::Jti("some-jti".to_owned())) };
    admin_acts.revoke_token(revoked).await.expect("revoked");
    let question = Kind::RevocationPositions(RevocationPositions { logs: Vec::new(), reply_wanted: true });
    let (_sender, mut answers) = liar.gossip(&node, vec![liar.hello(), question]).await.expect("a stream");
    let mut genuine = loop {
        let frame = answers.message().await.expect("no error").expect("more");
        let message = GossipMessage::decode(&*frame.payload).expect("a message");
        if let Some(Kind::Revocations(told)) = message.kind {
            break told.segments[0].clone();
        }
    };
    let mut body = RevocationBody::decode(&*genuine.body).expect("a body");
    (body.entries, body.issued_at) = (Vec::new(), body.issued_at + 1);
    genuine.body = body.encode_to_vec().into();
    let worker = certificates.client(&node, "w9").await;
    for _ in 0..3 {
        let nonsense = RevocationSegments { segments: vec![genuine.clone()] };
        let receipt =
            GossipServiceClient::new(worker.channel.clone()).enforce(nonsense).await.expect("heard");
        assert!(!receipt.into_inner().in_force);
    }
    assert!(!node.log().contains("signed its own once more"), "{}", node.log());
    assert_eq!(sample(&observer.metrics().await, "p2p_revocations"), Some(1.0));

    // Nor by the call that evictions use.
    let receipt =
        GossipServiceClient::new(worker.channel.clone()).enforce(forged.clone()).await.expect("heard");
    let receipt = receipt.into_inner();
    assert!(receipt.connections_closed == 0 && !receipt.in_force, "{receipt:?}");
    let admin = certificates.client(&node, "admin").await;
    let denied = GossipServiceClient::new(admin.channel.clone()).enforce(forged).await.expect_err("refused");
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    node.logs("only coordinators revoke, each for itself").await;
    let metrics = observer.metrics().await;
    assert_eq!(sample(&metrics, "p2p_revocations"), Some(1.0), "what the admin has revoked");
    assert_eq!(sample(&metrics, "p2p_evicted_nodes"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_does_not_fit_is_refused_with_both_sides_named() {
    let (_certificates, node, observer, liar) = start().await;
    let good = hello(&liar.cluster, &liar.life(), None);
    let cases = [
        (
            p2p_proto::v1::Hello { cluster_id: "x".into(), ..good.clone() },
            "w9 belongs to cluster \"x\", this node to test",
        ),
        (
            p2p_proto::v1::Hello { node_id: "c1".into(), ..good.clone() },
            "the certificate names w9, the hello \"c1\"",
        ),
        (p2p_proto::v1::Hello { protocol_min: 7, protocol_max: 9, ..good }, "speaks gossip protocol 7 to 9"),
    ];
    for (count, (hello, sentence)) in (1_u32..).zip(cases) {
        let status = liar.gossip(&node, vec![Kind::Hello(hello)]).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains(sentence), "{status}");
        observer.awaits_sample(&refused("hello"), count.into()).await;
    }
    // Bytes that are no message end the stream.
    let (sender, mut answers) = liar.gossip(&node, vec![liar.hello()]).await.expect("a stream");
    sender
        .send(GossipFrame { payload: Bytes::from_static(&[0xff; 64]), ..GossipFrame::default() })
        .await
        .expect("sent");
    observer.awaits_sample(&refused("malformed"), 1.0).await;
    while let Ok(Some(_)) = answers.message().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_may_not_gossip() {
    let (certificates, node, _observer, liar) = start().await;
    let admin = certificates.client(&node, "admin").await;
    let frames = tokio_stream::iter([framed(liar.hello())]);
    let status = GossipServiceClient::new(admin.channel.clone()).exchange(frames).await.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("it takes a node's certificate"), "{status}");
    let denied = "p2p_requests_total{method=\"p2p.v1.GossipService/Exchange\",code=\"PERMISSION_DENIED\"}";
    admin.awaits_sample(denied, 1.0).await;
}
