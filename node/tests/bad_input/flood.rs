//! Nodes with a valid certificate that send too much, read nothing, or say nothing.

use super::gossip::{Liar, framed, refused, states};
use crate::support::{Binary, Certificates, Client, TestNode, eventually, sample};
use p2p_core::Epoch;
use p2p_node::identity::UnixTime;
use p2p_proto::v1::{
    Digest, GetInfoRequest, GossipFrame, MemberState, OwnerState, OwnerStates, StatesRequest,
    gossip_message::Kind,
};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::Code;

/// What a node may grow by whatever it is sent: the room for messages, and what the allocator keeps.
const GROWTH: u64 = 160 * 1024 * 1024;

struct Cluster {
    certificates: Certificates,
    c1: TestNode,
    w1: TestNode,
    observer: Client,
    liar: Liar,
}

/// Two honest nodes that see each other, and one that is not.
async fn start() -> Cluster {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "w2:worker", "w9:worker"]);
    let c1 = TestNode::start(Binary::Node, certificates.config("c1")).await;
    let worker = certificates.config("w1").seeds(&[&c1.address.to_string()]);
    let w1 = TestNode::start(Binary::Node, worker).await;
    let observer = certificates.observer(&c1).await;
    observer.awaits_state("w1", MemberState::Alive).await;
    let liar = Liar::new(&certificates, "w9");
    Cluster { certificates, c1, w1, observer, liar }
}

impl Cluster {
    /// That news spreads, calls are answered, and nobody was given up.
    async fn is_undisturbed(&self) {
        let seed = self.c1.address.to_string();
        let newcomer = self.certificates.config("w2").seeds(&[&seed]);
        let _newcomer = TestNode::start(Binary::Node, newcomer).await;
        for node in [&self.c1, &self.w1] {
            let client = self.certificates.observer(node).await;
            for member in ["c1", "w1", "w2"] {
                client.awaits_state(member, MemberState::Alive).await;
            }
            client.system().get_info(GetInfoRequest {}).await.expect("answered");
            assert!(!node.log().contains("to=\"down\""), "{}", node.log());
        }
    }
}

/// Sends `frame` again and again until the stream ends, or the task is aborted.
fn flood(sender: mpsc::Sender<GossipFrame>, frame: GossipFrame) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { while sender.send(frame.clone()).await.is_ok() {} })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_floods_is_read_more_slowly_and_the_others_do_not_notice() {
    let cluster = start().await;
    let before = cluster.c1.resident_bytes();
    // Several streams do not give more; large frames, all of them to be decompressed, do not take more room.
    let mut answers = Vec::new();
    let mut floods = Vec::new();
    let filler = OwnerState { signature: vec![0; 3 * 1024 * 1024].into(), ..OwnerState::default() };
    let message = p2p_proto::v1::GossipMessage { kind: Some(states(filler)) };
    let large = p2p_core::wire::seal(prost::Message::encode_to_vec(&message).into(), Some(0));
    let small = framed(Kind::Digest(Digest::default()));
    for frame in [&small, &small, &large] {
        let first = vec![cluster.liar.hello()];
        let (sender, stream) = cluster.liar.gossip(&cluster.c1, first).await.expect("a stream");
        answers.push(stream);
        floods.push(flood(sender, frame.clone()));
    }
    cluster.observer.awaits_sample("p2p_gossip_slowed_frames_total", 20.0).await;
    cluster.is_undisturbed().await;
    let grown = cluster.c1.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB more", grown / 1024 / 1024);
    for flood in floods {
        flood.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_records_without_end_are_looked_at_for_a_while_only() {
    let cluster = start().await;
    // Later than any that c1 has signed.
    let now = UnixTime::now().as_secs() * 1_000 + 60_000;
    let (sender, _answers) =
        cluster.liar.gossip(&cluster.c1, vec![cluster.liar.hello()]).await.expect("a stream");
    for batch in 0..30 {
        let forged = (0..32).map(|number| cluster.liar.state_at("c1", Epoch(now + batch * 32 + number)));
        let forged = Kind::States(OwnerStates { states: forged.collect(), answer: false });
        sender.send(framed(forged)).await.expect("sent");
    }
    cluster.observer.awaits_sample(&refused("flood"), 1.0).await;
    let looked_at = sample(&cluster.observer.metrics().await, &refused("owner")).expect("a count");
    assert!((500.0..900.0).contains(&looked_at), "{looked_at} of 960");
    cluster.is_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_is_cut_off() {
    let mut cluster = start().await;
    let before = cluster.c1.resident_bytes();
    let (sender, answers) =
        cluster.liar.gossip(&cluster.c1, vec![cluster.liar.hello()]).await.expect("a stream");
    let question = Kind::StatesRequest(StatesRequest { owners: vec!["c1".to_owned(), "w1".to_owned()] });
    let flood = flood(sender, framed(question));
    cluster.observer.awaits_sample(&refused("stalled"), 1.0).await;
    cluster.c1.logs("the peer has long stopped reading gossip").await;
    flood.await.expect("the connection is closed, so nothing more can be sent");
    let grown = cluster.c1.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB more", grown / 1024 / 1024);
    cluster.is_undisturbed().await;
    drop(answers);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_say_nothing_are_waited_for_in_vain_and_not_for_long() {
    let cluster = start().await;
    // One that opens a stream and does not say who it is.
    let status = cluster.liar.gossip(&cluster.c1, Vec::new()).await.expect_err("no hello");
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "w9 sent no hello within 5s"));
    cluster.observer.awaits_sample(&refused("hello"), 1.0).await;
    // One that accepts connections and does not answer: the seed before the one that does.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let config = cluster.certificates.config("w2").seeds(&[&address, &cluster.c1.address.to_string()]);
    let mut node = TestNode::start(Binary::Node, config).await;
    let line = node.logs("seed not reached").await;
    assert!(line.contains("did not answer within 5s"), "{line}");
    let client = cluster.certificates.observer(&node).await;
    client.awaits_state("w1", MemberState::Alive).await;
    eventually("the dial to be counted", async || {
        let counted = sample(&client.metrics().await, "p2p_peer_dials_total{result=\"timeout\"}");
        counted.filter(|count| *count >= 1.0).map(drop).ok_or_else(|| format!("it is {counted:?}"))
    })
    .await;
}
