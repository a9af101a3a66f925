//! Why a member is in its state, asked of a node and followed as it happens.

use crate::support::{Client, Cluster};
use p2p_proto::v1::{
    EventsRequest, Evidence, MemberState, WhyRequest, cluster_service_client::ClusterServiceClient,
    events_response::Event,
};
use rustix::process::Signal;
use std::time::Duration;
use tonic::{Code, Streaming, transport::Channel};

/// Far beyond any failure detection.
const PATIENCE: Duration = Duration::from_secs(30);

fn service(client: &Client) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(client.channel.clone())
}

/// Reads events until one says that `member` is in `state`.
async fn until(
    events: &mut Streaming<p2p_proto::v1::EventsResponse>,
    member: &str,
    state: MemberState,
) -> Vec<Evidence> {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.message().await.expect("no error") {
            if let Some(Event::Evidence(evidence)) = event.event {
                let last = evidence.node_id == member && evidence.to() == state;
                seen.push(evidence);
                if last {
                    return;
                }
            }
        }
        panic!("the events ended: {seen:?}");
    });
    found.await.unwrap_or_else(|_| panic!("{member} is not {} in time", state.word()));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_a_member_is_told_as_it_happens_and_explained_afterwards() {
    let mut cluster = Cluster::start().await;
    let observer = cluster.certificates.observer(&cluster.c1).await;
    let mut following =
        service(&observer).events(EventsRequest { follow: true }).await.expect("open").into_inner();
    let kept = until(&mut following, "g1", MemberState::Alive).await;
    assert!(kept.iter().any(|event| event.node_id == "g1" && event.kind == "joined"), "{kept:?}");

    cluster.g1.signal(Signal::KILL);
    let seen = until(&mut following, "g1", MemberState::Down).await;
    let told: Vec<&Evidence> = seen.iter().filter(|event| event.node_id == "g1").collect();
    assert_eq!((told[0].from(), told[0].to()), (MemberState::Alive, MemberState::Suspect), "{told:?}");

    observer.awaits_state("g1", MemberState::Down).await;
    let request = WhyRequest { node_id: "g1".to_owned() };
    let why = service(&observer).why(request).await.expect("an answer").into_inner();
    assert_eq!((why.state(), why.seen_by.as_str()), (MemberState::Down, "c1"));
    let last = why.evidence.last().expect("evidence");
    assert_eq!(last.to(), MemberState::Down, "{why:?}");
    assert!(["ran_out", "rumour"].contains(&last.kind.as_str()), "{why:?}");
    assert!(told.iter().all(|event| why.evidence.contains(event)), "{why:?} lacks what was told: {told:?}");

    let unknown = service(&observer).why(WhyRequest { node_id: "g2".to_owned() }).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert_eq!(unknown.message(), "c1 knows no node g2; did you mean g1?");

    // Without following, the answer ends.
    let mut kept = service(&observer).events(EventsRequest::default()).await.expect("open").into_inner();
    let mut count = 0;
    while kept.message().await.expect("no error").is_some() {
        count += 1;
    }
    assert!(count >= told.len(), "{count}");

    // Who follows does not hold a shutdown up.
    cluster.c1.signal(Signal::TERM);
    let end = tokio::time::timeout(PATIENCE, async { while let Ok(Some(_)) = following.message().await {} });
    end.await.expect("the node lets go");
    assert_eq!(cluster.c1.ends().await.code(), Some(0), "{}", cluster.c1.log());
}
