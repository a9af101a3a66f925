//! Evicting nodes, with real processes over real TLS.

mod support;

use p2p_proto::v1::{
    EvictRequest, EvictResponse, MemberState, ReadmitRequest, cluster_service_client::ClusterServiceClient,
};
use std::time::Duration;
use support::{Binary, Client, Cluster, eventually, greeter::RepeatRequest};
use tonic::Code;

async fn evict(client: &Client, node: &str) -> Result<EvictResponse, tonic::Status> {
    let request = EvictRequest { node_id: node.to_owned(), unknown_too: false };
    let answer = ClusterServiceClient::new(client.channel.clone()).evict(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn readmit(client: &Client, node: &str) -> Result<(), tonic::Status> {
    let request = ReadmitRequest { node_id: node.to_owned() };
    ClusterServiceClient::new(client.channel.clone()).readmit(request).await.map(|_| ())
}

/// Waits until `client`'s node shows `node` as evicted, or not.
async fn awaits_evicted(client: &Client, node: &str, evicted: bool) -> Duration {
    eventually("the eviction", async || {
        let members = client.members().await.map_err(|status| status.to_string())?;
        match members.iter().find(|member| member.node_id == node) {
            Some(found) if found.evicted == evicted => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_node_is_cut_off_at_once_and_stays_out_until_readmitted() {
    let mut cluster = Cluster::start().await;
    let (admin, through_w1) = (cluster.admin(&cluster.c1).await, cluster.admin(&cluster.w1).await);
    // A stream through w1 from the node that is about to be evicted.
    let request = RepeatRequest { name: "x".into(), count: 1_000_000, pause_ms: 50 };
    let mut stream = through_w1.greeter().repeat(request).await.expect("open").into_inner();
    assert!(stream.message().await.expect("flows").is_some());

    let receipt = evict(&admin, "g1").await.expect("evicted");
    assert_eq!((receipt.nodes, receipt.enforced), (2, 2), "{receipt:?}");
    assert!(receipt.connections_closed >= 2 && !receipt.already && receipt.missing.is_empty(), "{receipt:?}");
    let broken = tokio::time::timeout(support::PATIENCE, async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if all were well"),
                Err(status) => return status,
            }
        }
    });
    let broken = broken.await.expect("the stream ends");
    assert_eq!(broken.code(), Code::Unavailable, "{broken}");
    for client in [&admin, &through_w1] {
        awaits_evicted(client, "g1", true).await;
        let refused = client.hello("anybody").await.expect_err("nobody provides it now");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    // It is refused with its certificate, at any node, and knows why.
    let banned = cluster.certificates.client(&cluster.g1, "admin").await;
    assert!(banned.members().await.is_ok(), "its own port still answers an admin");
    cluster.w1.logs("was evicted from the cluster").await;

    // Not even with a fresh start.
    cluster.g1.signal(rustix::process::Signal::KILL);
    cluster.g1.ends().await;
    cluster.g1 = cluster.g1.start_again(Binary::Greeter).await;
    let log = cluster.g1.logs("does not gossip with this node").await;
    assert!(log.contains("were evicted from the cluster"), "it says why: {log}");
    let members = admin.members().await.expect("answered");
    assert_eq!(support::state_of(&members, "g1"), Some(MemberState::Down));

    readmit(&admin, "g1").await.expect("readmitted");
    admin.awaits_state("g1", MemberState::Alive).await;
    awaits_evicted(&through_w1, "g1", false).await;
    through_w1.awaits_provider("demo.v1.Greeter/SayHello", "g1").await;
    through_w1.hello("again").await.expect("served");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_survives_the_end_of_every_node_right_after_it_was_acknowledged() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    evict(&admin, "g1").await.expect("evicted");
    let Cluster { certificates, mut c1, mut w1, g1, .. } = cluster;
    for node in [&c1, &w1, &g1] {
        node.signal(rustix::process::Signal::KILL);
    }
    c1.ends().await;
    w1.ends().await;
    drop(g1);
    // Each for itself: neither hears of the other before it is asked.
    for node in [c1, w1] {
        let mut node = node.start_again(Binary::Node).await;
        let logged = node.logs("revocations loaded").await;
        assert!(logged.contains("entries=1"), "{logged}");
        let evicted = certificates.client(&node, "g1").await;
        let refused = evicted.members().await.expect_err("it is evicted");
        assert!(matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{refused}");
        node.signal(rustix::process::Signal::KILL);
        node.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_evict_is_told_so_and_nothing_changes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let worker = cluster.certificates.client(&cluster.c1, "w1").await;
    let refused = evict(&worker, "g1").await.expect_err("a worker may not");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let stranger = cluster.certificates.stranger(&cluster.c1).await;
    assert_eq!(evict(&stranger, "g1").await.expect_err("a stranger").code(), Code::Unauthenticated);
    let elsewhere = cluster.admin(&cluster.w1).await;
    let refused = evict(&elsewhere, "g1").await.expect_err("not at a worker");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for (node, code) in
        [("c1", Code::InvalidArgument), ("nobody", Code::NotFound), ("../x", Code::InvalidArgument)]
    {
        assert_eq!(evict(&admin, node).await.expect_err(node).code(), code);
    }
    assert_eq!(readmit(&admin, "g1").await.expect_err("not evicted").code(), Code::NotFound);
    assert!(admin.members().await.expect("answered").iter().all(|member| !member.evicted));
}
