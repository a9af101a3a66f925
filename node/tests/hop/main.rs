//! Unary calls between two nodes, by both ways: what holds for calls that are passed through holds for the peer stream.
//!
//! | file | what it shows |
//! |---|---|
//! | `provider` | a node of this test whose service does as it is told |
//! | `answers` | metadata, errors, sizes, readers that are slow |
//! | `ends` | cancellation, deadlines, death, drain, renewal, eviction |
//! | `stream` | what only the peer stream has: both directions, caps, and peers that break its rules |

mod answers;
mod ends;
mod idle;
mod provider;
mod stream;
#[path = "../support/mod.rs"]
mod support;

use provider::Provider;
use support::{Binary, Certificates, Client, TestNode, sample};

/// How unary calls go from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Stream,
    Passthrough,
}

/// Makes a test of each function, for both ways.
macro_rules! both_ways {
    ($($test:ident),+ $(,)?) => {
        mod over_the_stream {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::Way::Stream).await;
            })+
        }
        mod passed_through {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::Way::Passthrough).await;
            })+
        }
    };
}
pub(crate) use both_ways;

/// The coordinator `c1`, where calls enter, and the provider `p1`.
struct Pair {
    way: Way,
    certificates: Certificates,
    c1: TestNode,
    p1: Provider,
    /// A client of `c1`.
    client: Client,
}

impl Pair {
    /// Starts both and waits until calls go the given way.
    async fn start(way: Way) -> Self {
        let certificates = Certificates::new(&["c1:coordinator", "p1:worker", "p2:worker"]);
        let config = certificates
            .config("c1")
            .set("peer_stream_enabled", way.enabled())
            .set("calls_per_client_max", "2048");
        let c1 = TestNode::start(Binary::Node, config).await;
        let p1 = Provider::start(&certificates, "p1", &c1, way).await;
        let client = certificates.client(&c1, "admin").await;
        client.awaits_provider("demo.v1.Greeter/SayHello", "p1").await;
        let pair = Self { way, certificates, c1, p1, client };
        pair.awaits_way().await;
        pair
    }

    /// Calls until calls go over a stream, if they shall.
    async fn awaits_way(&self) {
        let before = self.sent(Way::Stream).await;
        support::eventually("a call over the stream", async || {
            self.client.hello("you").await.map_err(|status| status.to_string())?;
            match self.way {
                Way::Stream if self.sent(Way::Stream).await <= before => Err("passed through".to_owned()),
                Way::Stream | Way::Passthrough => Ok(()),
            }
        })
        .await;
    }

    /// How many calls `c1` has sent this way.
    async fn sent(&self, way: Way) -> f64 {
        sent(&self.client, way).await
    }

    /// Makes sure that the test has shown what it says.
    async fn went_its_way(&self) {
        let (stream, passthrough) = (self.sent(Way::Stream).await, self.sent(Way::Passthrough).await);
        match self.way {
            Way::Stream => assert!(stream >= 2.0, "{stream} over the stream, {passthrough} passed through"),
            Way::Passthrough => assert!(stream == 0.0 && passthrough >= 2.0, "{stream}, {passthrough}"),
        }
    }
}

async fn sent(client: &Client, way: Way) -> f64 {
    let name = match way {
        Way::Stream => "p2p_peer_calls_total{way=\"stream\"}",
        Way::Passthrough => "p2p_peer_calls_total{way=\"passthrough\"}",
    };
    sample(&client.metrics().await, name).expect("a sample")
}

impl Way {
    fn enabled(self) -> &'static str {
        match self {
            Self::Stream => "true",
            Self::Passthrough => "false",
        }
    }
}
