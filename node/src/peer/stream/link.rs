//! One stream's life: a hello each way, frames both ways, and its end.

use super::{
    PeerStream, Serving, StreamMetrics,
    frame::FRAME_MAX,
    queue::{Outflow, Queue, queue},
    shared::Shared,
};
use crate::{
    auth::Connection,
    identity::{UnixTime, schedule},
    peer::PeerConnection,
    shutdown::Phase,
};
use p2p_core::{
    NodeId,
    calls::{CALLS_MAX, Violation},
};
use p2p_proto::v1::{PeerFrame, PeerHello, peer_frame::Kind, peer_service_client::PeerServiceClient};
use std::{pin::pin, sync::Arc, time::Duration};
use tonic::{Code, Status, Streaming};

/// Longest wait for the other side's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks whether a stream moves. One that has not for two of them is ended: frames wait and none leaves, or
/// the peer does not close what is over.
const LOOK: Duration = Duration::from_secs(10);

/// Why a stream did not open, or ended before its calls.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no hello within {}s", HELLO_TIMEOUT.as_secs())]
    NoHello,
    #[error("{}", .0.message())]
    Status(Status),
    #[error("the peer ended it")]
    Ended,
    #[error("the peer broke a rule: {0}")]
    Violation(#[from] Violation),
    #[error("the peer reads no more")]
    Stalled,
}

impl Fault {
    /// Every word, so that each series is there before it is needed.
    pub(super) const WORDS: [&str; 6] =
        ["no_hello", "unimplemented", "broken", "ended", "violation", "stalled"];

    /// A word for metrics, one of `WORDS`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::NoHello => "no_hello",
            // A release without peer streams, or one that has them switched off.
            Self::Status(status) if status.code() == Code::Unimplemented => "unimplemented",
            Self::Status(_) => "broken",
            Self::Ended => "ended",
            Self::Violation(_) => "violation",
            Self::Stalled => "stalled",
        }
    }

    fn to_status(&self) -> Option<Status> {
        match self {
            Self::NoHello => Some(Status::deadline_exceeded(self.to_string())),
            Self::Violation(_) => Some(Status::invalid_argument(self.to_string())),
            Self::Stalled => Some(Status::resource_exhausted(self.to_string())),
            Self::Status(_) | Self::Ended => None,
        }
    }
}

/// A stream whose hellos are exchanged, with what is read from it.
pub(super) struct Opened {
    pub(super) stream: PeerStream,
    /// Where the peer says that it accepts connections.
    pub(super) address: String,
    frames: Streaming<PeerFrame>,
}

/// A queue whose first frame is this node's hello.
pub(super) fn greeting(serving: &Serving) -> (Queue, Outflow) {
    let (queue, flow) = queue();
    let address = serving.address.to_string();
    let hello = PeerHello { address, calls_max: CALLS_MAX, features: Vec::new() };
    queue.send(0, Kind::Hello(hello), None);
    (queue, flow)
}

/// Opens a stream over a dialled connection.
pub(super) async fn open(
    connection: &PeerConnection,
    serving: &Serving,
    metrics: &Arc<StreamMetrics>,
) -> Result<Opened, Fault> {
    let (queue, flow) = greeting(serving);
    let origin =
        http::Uri::builder().scheme("https").authority(connection.address.to_string()).path_and_query("/");
    let origin = origin.build().map_err(|error| Fault::Status(Status::internal(error.to_string())))?;
    let client = PeerServiceClient::with_origin(connection.clone(), origin);
    let mut client = client.max_decoding_message_size(FRAME_MAX);
    let flow = tokio_stream::StreamExt::map_while(flow, Result::ok);
    let answer = tokio::time::timeout(HELLO_TIMEOUT, client.calls(flow)).await;
    let frames = answer.map_err(|_elapsed| Fault::NoHello)?.map_err(Fault::Status)?.into_inner();
    greet(connection.node.clone(), connection.caller.clone(), frames, queue, serving, metrics).await
}

/// Reads the peer's hello.
pub(super) async fn greet(
    peer: NodeId,
    connection: Arc<Connection>,
    mut frames: Streaming<PeerFrame>,
    queue: Queue,
    serving: &Serving,
    metrics: &Arc<StreamMetrics>,
) -> Result<Opened, Fault> {
    let first = match tokio::time::timeout(HELLO_TIMEOUT, frames.message()).await {
        Err(_elapsed) => Err(Fault::NoHello),
        Ok(Err(status)) => Err(Fault::Status(status)),
        Ok(Ok(frame)) => match frame.and_then(|frame| frame.kind) {
            Some(Kind::Hello(hello)) => Ok(hello),
            Some(_) | None => Err(Fault::Violation(Violation::Hello)),
        },
    };
    match first {
        Ok(hello) => {
            let from = (serving.service.clone(), connection);
            let shared = Shared::new(peer, hello.calls_max, queue, from, metrics.clone());
            Ok(Opened { stream: PeerStream(shared), address: hello.address, frames })
        }
        Err(fault) => {
            queue.end(fault.to_status());
            Err(fault)
        }
    }
}

/// Carries calls until the stream ends. It closes, and ends once its calls have, when this node drains, or when the
/// connection's certificates `expire`.
pub(super) async fn run(opened: Opened, expire: Option<UnixTime>, serving: &Serving) {
    let Opened { stream: PeerStream(shared), mut frames, .. } = opened;
    let _read = Read(shared.clone());
    let mut shutdown = serving.shutdown.clone();
    let mut closing = pin!(async move {
        let expired = async {
            match expire {
                Some(at) => schedule::reached(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => {}
            () = shutdown.reached(Phase::Draining) => {}
        }
    });
    let mut looks = tokio::time::interval(LOOK);
    let (mut told, mut still) = (false, Still::default());
    let ended = loop {
        let read = tokio::select! {
            biased;
            read = frames.message() => read,
            () = &mut closing, if !told => {
                told = true;
                shared.close();
                continue;
            }
            _ = looks.tick() => match still.look(&shared) {
                true => break Err(Fault::Stalled),
                false => continue,
            },
        };
        let received = match read {
            Ok(Some(frame)) => shared.received(frame).map_err(Fault::Violation),
            Ok(None) if shared.is_over() => break Ok(()),
            Ok(None) => Err(Fault::Ended),
            Err(_) if shared.is_over() => break Ok(()),
            Err(status) => Err(Fault::Status(status)),
        };
        if let Err(fault) = received {
            break Err(fault);
        }
    };
    match ended {
        Ok(()) => shared.fail("it is closed", None),
        Err(fault) => {
            shared.metrics.fault(fault.word());
            match &fault {
                Fault::Violation(_) | Fault::Stalled => {
                    tracing::warn!(peer.id = %shared.peer, %fault, "peer stream ended");
                }
                Fault::NoHello | Fault::Status(_) | Fault::Ended => {
                    tracing::debug!(peer.id = %shared.peer, %fault, "peer stream ended");
                }
            }
            shared.fail(&fault.to_string(), fault.to_status());
        }
    }
}

/// While this is there, somebody reads the stream. Without a reader, however that came, it is over: its callers would wait for
/// nothing.
struct Read(Arc<Shared>);

impl Drop for Read {
    fn drop(&mut self) {
        self.0.fail("nobody reads it any more", None);
    }
}

/// Whether a stream has stood still since the last look.
#[derive(Default)]
struct Still {
    left: Option<u64>,
    over: bool,
}

impl Still {
    fn look(&mut self, shared: &Shared) -> bool {
        let (left, over) = (shared.queue.left_while_waiting(), shared.is_over());
        let stands = (left.is_some() && left == self.left) || (over && self.over);
        (self.left, self.over) = (left, over);
        stands
    }
}
