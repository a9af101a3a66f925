//! Flow control end to end: who reads slowly slows the writer down, and nothing piles up in the nodes between.

use crate::support::{Cluster, greeter::HelloRequest};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_stream::StreamExt as _;

/// Bytes of one message, and messages: 96 MiB in each direction.
const MESSAGE: usize = 64 * 1024;
const MESSAGES: usize = 1536;
/// What a node may grow by: the windows of both connections of a hop (4 MiB each), and what an allocator keeps of it.
const BOUND: u64 = 16 << 20;
/// Messages that may be on their way: windows and socket buffers of three connections in each direction.
const UNDER_WAY: usize = 768;

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_both_nodes_of_a_hop_stay_small() {
    let cluster = Cluster::start().await;
    let client = cluster.admin(&cluster.w1).await;
    let resident = || [cluster.w1.resident_bytes(), cluster.g1.resident_bytes()];
    // What a first stream makes once is not what grows.
    client.hello("warm").await.expect("answered");
    let before = resident();

    let sent = Arc::new(AtomicUsize::new(0));
    let name = "x".repeat(MESSAGE);
    let requests = {
        let sent = sent.clone();
        tokio_stream::iter(0..MESSAGES).map(move |number| {
            sent.store(number + 1, Ordering::Relaxed);
            HelloRequest { name: name.clone() }
        })
    };
    let mut replies = client.greeter().chat(requests).await.expect("begun").into_inner();

    // Nobody reads: the writer comes to a stand by itself, long before it is through.
    let mut seen = 0;
    crate::support::eventually("the writer stands still", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut seen, now);
        if now > 0 && now == before { Ok(()) } else { Err(format!("{now} messages were sent")) }
    })
    .await;
    assert!(seen < MESSAGES, "all {seen} messages were taken though nobody reads");

    let mut most = [0_u64; 2];
    let mut read = 0;
    while let Some(reply) = replies.message().await.expect("a reply") {
        assert!(reply.message.len() > MESSAGE, "{} bytes", reply.message.len());
        read += 1;
        if read % 16 == 0 {
            let ahead = sent.load(Ordering::Relaxed) - read;
            assert!(ahead <= UNDER_WAY, "{ahead} messages are on their way");
            for (most, (now, before)) in most.iter_mut().zip(resident().into_iter().zip(before)) {
                *most = now.saturating_sub(before).max(*most);
            }
            // Slower than the writer, who is then held back all the time.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(read, MESSAGES);
    println!("grown by {} and {} KiB", most[0] >> 10, most[1] >> 10);
    assert!(most.iter().all(|grown| *grown < BOUND), "the nodes grew by {most:?} bytes");
}
