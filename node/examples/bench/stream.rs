//! Messages of long-lived streams (`Chat`, which answers each with one): as many as go through, or so many bytes.
//!
//! A stream keeps a number of messages in flight and sends the next when one is answered. Several that are answered at once
//! are replaced at once, in one piece, as tonic's encoder does. Answers are counted by their bytes: all have one length.

use crate::{
    TlsFiles, grpc,
    measure::{self, Closed, Tally},
    process::Watched,
};
use anyhow::{Context as _, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use clap::Args;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    #[command(flatten)]
    load: Closed,
}

#[derive(Debug, Args)]
pub(crate) struct BulkArgs {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// Mebibytes to send; as many come back
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Bytes of one message
    #[arg(long, default_value_t = 65_536)]
    message_bytes: usize,
    /// Messages in flight
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Seconds after which to give up
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Process whose memory to watch; repeat for more
    #[arg(long = "watch", value_name = "NAME=PID")]
    watched: Vec<Watched>,
}

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// One open `Chat`.
struct Chat {
    requests: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    answers: Incoming,
    head: http::HeaderMap,
    /// As many copies of the message as are in flight.
    messages: Bytes,
    message: usize,
    answer: usize,
    /// Bytes of answers that have come since the last whole one.
    open: usize,
}

impl Chat {
    /// Opens it and sends the first messages.
    async fn open(
        address: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        name_bytes: usize,
        in_flight: usize,
    ) -> anyhow::Result<Self> {
        let message = grpc::greeting(name_bytes);
        let messages = Bytes::from(message.repeat(in_flight));
        // Each answer frees the place of one message, so there is always room.
        let (requests, queue) = mpsc::channel(in_flight + 1);
        let mut sender = grpc::connect(address, tls).await?;
        let call = sender.send_request(grpc::request(
            address,
            "Chat",
            None,
            StreamBody::new(ReceiverStream::new(queue)),
        )?);
        // The first alone: its answer tells how long one is.
        requests.send(Ok(Frame::data(message.clone()))).await?;
        let (head, mut answers) = call.await?.into_parts();
        let mut first = BytesMut::new();
        let answer = loop {
            let data =
                next(&mut answers, &head.headers).await?.context("the stream ended before an answer")?;
            first.extend_from_slice(&data);
            if first.len() >= grpc::FRAME_HEAD {
                break grpc::FRAME_HEAD + (&first[1..]).get_u32() as usize;
            }
        };
        let mut chat = Self {
            requests,
            answers,
            head: head.headers,
            message: message.len(),
            messages,
            answer,
            open: first.len(),
        };
        while chat.open < chat.answer {
            chat.open += chat.more().await?.context("the stream ended within an answer")?;
        }
        ensure!(chat.open == chat.answer, "more answers than messages");
        chat.open = 0;
        chat.send(in_flight).await?;
        Ok(chat)
    }

    /// Sends so many messages, in one piece.
    async fn send(&self, count: usize) -> anyhow::Result<()> {
        if count > 0 {
            let piece = self.messages.slice(..count * self.message);
            self.requests.send(Ok(Frame::data(piece))).await.context("the stream was closed")?;
        }
        Ok(())
    }

    async fn more(&mut self) -> anyhow::Result<Option<usize>> {
        Ok(next(&mut self.answers, &self.head).await?.map(|data| data.len()))
    }

    /// How many answers have become whole by what comes next.
    async fn answered(&mut self) -> anyhow::Result<usize> {
        self.open += self.more().await?.context("the stream ended early")?;
        let whole = self.open / self.answer;
        self.open %= self.answer;
        Ok(whole)
    }

    /// Sends no more, and reads the answers that are due and the end.
    async fn finish(self, due: usize) -> anyhow::Result<()> {
        let Self { requests, mut answers, head, answer, mut open, .. } = self;
        drop(requests);
        while let Some(data) = next(&mut answers, &head).await? {
            open += data.len();
        }
        ensure!(open == due * answer, "the stream ended with {open} bytes, not {due} answers");
        Ok(())
    }
}

/// The next data of an answer; none after its trailers, which must say OK.
async fn next(answers: &mut Incoming, head: &http::HeaderMap) -> anyhow::Result<Option<Bytes>> {
    loop {
        let Some(frame) = answers.frame().await else {
            grpc::ensure_ok(head, None)?;
            return Ok(None);
        };
        match frame?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Ok(Some(data)),
            Err(frame) => {
                grpc::ensure_ok(head, frame.trailers_ref())?;
                return Ok(None);
            }
        }
    }
}

/// Small messages, one stream on each connection.
pub(crate) fn run(args: &StreamArgs) -> anyhow::Result<()> {
    measure::run(&args.load, async |tally| {
        let tls = Arc::new(grpc::client_config(&args.tls)?);
        let mut workers = Vec::new();
        for _ in 0..args.load.connections {
            let chat = Chat::open(args.address, tls.clone(), grpc::NAME_BYTES, args.load.in_flight).await?;
            let (tally, in_flight) = (tally.clone(), args.load.in_flight);
            workers
                .push(tokio::task::spawn_local(async move { until_stopped(chat, &tally, in_flight).await }));
        }
        Ok(workers)
    })
}

async fn until_stopped(mut chat: Chat, tally: &Tally, in_flight: usize) -> anyhow::Result<()> {
    while !tally.stopped() {
        let answered = chat.answered().await?;
        tally.many(answered as u64);
        chat.send(answered).await?;
    }
    chat.finish(in_flight).await
}

/// Large messages on one stream until so many bytes have gone; how much the watched processes grew meanwhile.
pub(crate) fn bulk(args: &BulkArgs) -> anyhow::Result<()> {
    measure::on_one_thread(async {
        let tls = Arc::new(grpc::client_config(&args.tls)?);
        let resident =
            || args.watched.iter().map(Watched::resident_bytes).collect::<anyhow::Result<Vec<u64>>>();
        let before = resident()?;
        let mut most = before.clone();
        let began = Instant::now();
        let transfer = transfer(args, tls);
        let mut transfer = std::pin::pin!(tokio::time::timeout(Duration::from_secs(args.patience), transfer));
        let mut looks = tokio::time::interval(LOOK);
        let bytes = loop {
            tokio::select! {
                done = &mut transfer => break done.context("it took too long")??,
                _ = looks.tick() => {
                    for (most, now) in most.iter_mut().zip(resident()?) {
                        *most = now.max(*most);
                    }
                }
            }
        };
        let took = began.elapsed().as_secs_f64();
        let growth = args
            .watched
            .iter()
            .zip(before.iter().zip(&most))
            .map(|(process, (before, most))| (process.name.clone(), (most - before).into()));
        Ok(serde_json::json!({
            "bytes_each_way": bytes,
            "message_bytes": args.message_bytes,
            "seconds": took,
            "megabytes_per_second": bytes as f64 / took / 1e6,
            "growth_bytes": serde_json::Map::from_iter(growth),
        }))
    })
}

async fn transfer(args: &BulkArgs, tls: Arc<rustls::ClientConfig>) -> anyhow::Result<u64> {
    let total = usize::try_from((args.mebibytes << 20).div_ceil(args.message_bytes as u64))?;
    let in_flight = args.in_flight.clamp(1, total);
    let mut chat = Chat::open(args.address, tls, args.message_bytes, in_flight).await?;
    let (mut sent, mut answered) = (in_flight, 0);
    while answered < total - in_flight {
        let whole = chat.answered().await?;
        answered += whole;
        let more = whole.min(total - sent);
        chat.send(more).await?;
        sent += more;
    }
    chat.finish(total - answered).await?;
    Ok((total * args.message_bytes) as u64)
}
