//! How calls end otherwise than by their answer, and what may end under them.

use crate::{
    Pair, Provider, Way,
    answers::{connection, raw},
    both_ways,
    support::{PATIENCE, error_details, eventually, in_days},
};
use p2p_node::identity::Validity;
use p2p_proto::v1::{EvictRequest, cluster_service_client::ClusterServiceClient};
use rustix::process::Signal;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

both_ways!(
    a_caller_that_turns_away_ends_its_call_at_the_provider,
    a_deadline_ends_the_call_on_both_sides,
    a_provider_that_dies_loses_its_calls_and_says_so,
    a_provider_that_drains_fails_no_call,
    certificates_are_replaced_under_running_calls,
    an_evicted_provider_is_cut_off,
    more_calls_than_any_cap_are_all_answered,
);

impl Pair {
    /// So many calls that wait at the provider.
    async fn waiting(&self, calls: usize) -> Vec<JoinHandle<Result<(), Status>>> {
        let call = |_| {
            let client = self.client.clone();
            tokio::spawn(async move { client.hello("wait").await.map(drop) })
        };
        let calls: Vec<_> = (0..calls).map(call).collect();
        self.p1.told.awaits_waiting(calls.len()).await;
        calls
    }
}

async fn ended(call: JoinHandle<Result<(), Status>>) -> Result<(), Status> {
    tokio::time::timeout(PATIENCE, call).await.expect("in time").expect("no panic")
}

/// The fault that a provider's loss is.
fn assert_lost(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let info = error_details(status).error_info().expect("ErrorInfo").clone();
    assert_eq!(info.reason, "PROVIDER_LOST", "{status}");
}

async fn a_caller_that_turns_away_ends_its_call_at_the_provider(way: Way) {
    let pair = Pair::start(way).await;
    let calls = pair.waiting(3).await;
    for call in &calls {
        call.abort();
    }
    pair.p1.told.awaits_given_up(3).await;
    // The same once the answer has begun.
    let mut connection = connection(&pair).await;
    let answer = connection.send(raw("size:3000000")).await.expect("an answer");
    drop(answer);
    let provider = pair.certificates.client(&pair.c1, "admin").await;
    provider
        .awaits_sample("p2p_requests_total{method=\"demo.v1.Greeter/SayHello\",code=\"CANCELLED\"}", 4.0)
        .await;
    pair.client.hello("you").await.expect("others go on");
    pair.went_its_way().await;
}

async fn a_deadline_ends_the_call_on_both_sides(way: Way) {
    let pair = Pair::start(way).await;
    let mut connection = connection(&pair).await;
    let mut request = raw("wait");
    request.headers_mut().insert("grpc-timeout", "300m".parse().expect("a value"));
    let answer = tokio::time::timeout(PATIENCE, connection.send(request)).await;
    let answer = answer.expect("in time").expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
    pair.p1.told.awaits_given_up(1).await;
    pair.went_its_way().await;
}

async fn a_provider_that_dies_loses_its_calls_and_says_so(way: Way) {
    let mut pair = Pair::start(way).await;
    let calls = pair.waiting(3).await;
    let mut connection = connection(&pair).await;
    let begun = connection.send(raw("size:3000000")).await.expect("an answer");
    pair.p1.kill();
    for call in calls {
        assert_lost(&ended(call).await.expect_err("lost"));
    }
    // One whose answer had begun is told in its trailers.
    let read = http_body_util::BodyExt::collect(begun.into_body());
    let read = tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("in order");
    assert_eq!(read.trailers().expect("trailers")["grpc-status"], "14");
    let status = pair.client.hello("you").await.expect_err("nobody is left");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    pair.went_its_way().await;
}

async fn a_provider_that_drains_fails_no_call(way: Way) {
    let mut pair = Pair::start(way).await;
    let p2 = Provider::start(&pair.certificates, "p2", &pair.c1, way).await;
    pair.client.awaits_provider("demo.v1.Greeter/SayHello", "p2").await;
    // Of calls that wait, some are at either.
    let wait = |_| {
        let client = pair.client.clone();
        tokio::spawn(async move { client.hello("wait").await.map(drop) })
    };
    let waiting: Vec<_> = (0..20).map(wait).collect();
    eventually("calls at both", async || {
        let stay = pair.p1.told.waiting_now() + p2.told.waiting_now();
        if stay == 20 && pair.p1.told.waiting_now() > 0 { Ok(()) } else { Err(format!("{stay}")) }
    })
    .await;
    // And short ones come all the time.
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop, made) = (pair.client.clone(), stop.clone(), made.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    client.hello("you").await?;
                    made.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<(), Status>(())
            })
        })
        .collect();
    let shutdown = pair.p1.shut_down();
    // Beyond the time in which it still accepts.
    let provider = pair.certificates.observer(&pair.c1).await;
    provider.awaits_state("p1", p2p_proto::v1::MemberState::Left).await;
    let before = made.load(Ordering::SeqCst);
    eventually("calls during the drain", async || {
        let since = made.load(Ordering::SeqCst) - before;
        if since > 200 { Ok(()) } else { Err(format!("{since}")) }
    })
    .await;
    pair.p1.told.let_go(20);
    p2.told.let_go(20);
    for call in waiting {
        ended(call).await.expect("calls in flight are answered");
    }
    tokio::time::timeout(PATIENCE, shutdown).await.expect("in time").expect("in order");
    stop.store(true, Ordering::SeqCst);
    for calls in load {
        ended(calls).await.expect("no call fails");
    }
    pair.went_its_way().await;
}

async fn certificates_are_replaced_under_running_calls(way: Way) {
    let mut pair = Pair::start(way).await;
    let calls = pair.waiting(4).await;
    let week = || Validity { not_before: in_days(-1), not_after: in_days(7) };
    pair.certificates.issue("p1", "spiffe://test/worker/p1", week());
    let unchanged = pair.p1.node().config();
    pair.p1.node().reload(move || Ok(unchanged)).await.expect("in force");
    pair.certificates.issue("c1", "spiffe://test/coordinator/c1", week());
    pair.c1.signal(Signal::HUP);
    pair.c1.logs("new certificates in force").await;
    // Over another connection, and soon another stream.
    pair.awaits_way().await;
    pair.p1.told.let_go(4);
    for call in calls {
        ended(call).await.expect("calls in flight are answered");
    }
    if way == Way::Stream {
        // What carried the calls before is closed, and nothing went wrong with it.
        eventually("the old stream to close", async || {
            let metrics = pair.client.metrics().await;
            match crate::support::sample(&metrics, "p2p_peer_streams") {
                Some(open) if open <= 2.0 => Ok(()),
                open => Err(format!("{open:?} are open")),
            }
        })
        .await;
        let metrics = pair.client.metrics().await;
        let faults: Vec<_> =
            metrics.lines().filter(|line| line.starts_with("p2p_peer_stream_faults_total{")).collect();
        assert!(!faults.is_empty() && faults.iter().all(|line| line.ends_with(" 0")), "{faults:?}");
    }
    pair.went_its_way().await;
}

async fn an_evicted_provider_is_cut_off(way: Way) {
    let pair = Pair::start(way).await;
    let calls = pair.waiting(2).await;
    let request = EvictRequest { node_id: "p1".to_owned(), unknown_too: false };
    ClusterServiceClient::new(pair.client.channel.clone()).evict(request).await.expect("evicted");
    for call in calls {
        assert_lost(&ended(call).await.expect_err("cut off"));
    }
    let status = pair.client.hello("you").await.expect_err("nobody is left");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    pair.went_its_way().await;
}

async fn more_calls_than_any_cap_are_all_answered(way: Way) {
    const CALLS: usize = 1_500;
    let pair = Pair::start(way).await;
    // One connection carries 1,024 calls at a time.
    let other = pair.certificates.client(&pair.c1, "admin").await;
    let call = |number: usize| {
        let client = if number.is_multiple_of(2) { pair.client.clone() } else { other.clone() };
        tokio::spawn(async move { client.hello("wait").await.map(drop) })
    };
    let calls: Vec<_> = (0..CALLS).map(call).collect();
    match way {
        Way::Stream => {
            pair.p1.told.awaits_waiting(CALLS).await;
            let excess = "p2p_peer_stream_excess_total{reason=\"calls\"}";
            pair.client.awaits_sample(excess, (CALLS - 1024) as f64).await;
        }
        // As many as one connection between nodes carries; the others wait for their turn.
        Way::Passthrough => pair.p1.told.awaits_waiting(1_024).await,
    }
    pair.p1.told.let_go(CALLS);
    for call in calls {
        ended(call).await.expect("answered");
    }
    pair.went_its_way().await;
}
