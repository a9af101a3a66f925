//! Request-reply over a NATS server: the responder, and a closed-loop driver of requests.
//!
//! A client of our own that does no more than the protocol needs: one task for a connection, one write for all that one read
//! brought. So what a run shows is the server, not a client library.

use crate::{
    TlsFiles, grpc,
    measure::{self, Closed, Tally},
};
use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use clap::{Args, Subcommand};
use std::{net::SocketAddr, sync::Arc, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Where requests go.
const SUBJECT: &str = "greeter";
/// Room that is made before each read.
const READ: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(crate) struct NatsArgs {
    #[command(subcommand)]
    side: Side,
}

#[derive(Debug, Subcommand)]
enum Side {
    /// Answers requests with what they brought, until it is killed
    Respond(Server),
    /// Sends requests and prints one line of JSON
    Load {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        load: Closed,
    },
}

#[derive(Debug, Args)]
struct Server {
    /// The NATS server
    #[arg(long)]
    address: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
}

pub(crate) fn run(args: &NatsArgs) -> anyhow::Result<()> {
    match &args.side {
        Side::Respond(server) => measure::on_one_thread(async {
            let mut connection = Connection::open(server).await?;
            connection.write(format!("SUB {SUBJECT} 1\r\n").as_bytes()).await?;
            loop {
                connection
                    .turn(|message, out| {
                        let reply = message.reply.context("a message that wants no reply")?;
                        publish(out, &[reply], None, message.payload);
                        Ok(())
                    })
                    .await?;
            }
        }),
        Side::Load { server, load } => measure::run(load, async |tally| {
            let mut workers = Vec::new();
            for number in 0..load.connections {
                let connection = Connection::open(server).await?;
                let (tally, in_flight) = (tally.clone(), load.in_flight);
                let requests = async move { requests(connection, number, in_flight, &tally).await };
                workers.push(tokio::task::spawn_local(requests));
            }
            Ok(workers)
        }),
    }
}

/// Keeps so many requests in flight until the tally says stop.
async fn requests(
    mut connection: Connection,
    number: usize,
    in_flight: usize,
    tally: &Tally,
) -> anyhow::Result<()> {
    let inbox = format!("_INBOX.{number}.");
    let inboxes: Vec<String> = (0..in_flight).map(|slot| format!("{inbox}{slot}")).collect();
    let payload = [b'x'; grpc::NAME_BYTES];
    let mut sent = vec![Instant::now(); in_flight];
    let mut first = BytesMut::from(format!("SUB {inbox}* 1\r\n").as_bytes());
    for reply in &inboxes {
        publish(&mut first, &[SUBJECT.as_bytes()], Some(reply), &payload);
    }
    connection.write(&first).await?;
    while !tally.stopped() {
        connection
            .turn(|message, out| {
                ensure!(message.payload == payload, "an answer of {} bytes", message.payload.len());
                let slot = message.subject.strip_prefix(inbox.as_bytes()).context("another's answer")?;
                let slot: usize = std::str::from_utf8(slot)?.parse()?;
                let at = sent.get_mut(slot).context("an answer to no request")?;
                let now = Instant::now();
                tally.answered(now - *at);
                *at = now;
                publish(out, &[SUBJECT.as_bytes()], Some(&inboxes[slot]), &payload);
                Ok(())
            })
            .await?;
    }
    Ok(())
}

fn publish(out: &mut BytesMut, subject: &[&[u8]], reply: Option<&String>, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    subject.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b" ");
    if let Some(reply) = reply {
        out.extend_from_slice(reply.as_bytes());
        out.extend_from_slice(b" ");
    }
    out.extend_from_slice(payload.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// What a `MSG` brought.
struct Received<'a> {
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    payload: &'a [u8],
}

struct Connection {
    stream: TlsStream<TcpStream>,
    read: BytesMut,
    out: BytesMut,
}

impl Connection {
    /// The server speaks first, in the clear, and TLS begins after its greeting.
    async fn open(server: &Server) -> anyhow::Result<Self> {
        let mut tcp = TcpStream::connect(server.address).await.with_context(|| server.address.to_string())?;
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"\r\n") {
            ensure!(greeting.len() < READ, "the server's greeting does not end");
            greeting.push(tcp.read_u8().await?);
        }
        ensure!(greeting.starts_with(b"INFO "), "no NATS server is there");
        let mut config = grpc::client_config(&server.tls)?;
        config.alpn_protocols.clear();
        let stream = grpc::secured(tcp, Arc::new(config)).await?;
        let mut connection = Self { stream, read: BytesMut::new(), out: BytesMut::new() };
        connection.write(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true}\r\n").await?;
        Ok(connection)
    }

    async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads once, takes every whole message, and writes what `take` has put out, and the answers to pings.
    async fn turn(
        &mut self,
        mut take: impl FnMut(&Received<'_>, &mut BytesMut) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.read.reserve(READ);
        ensure!(self.stream.read_buf(&mut self.read).await? > 0, "the server closed the connection");
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            let line = self.read[..end].trim_ascii_end();
            let mut words = line.split(|byte| *byte == b' ');
            let taken = match words.next() {
                Some(b"MSG") => {
                    let words: Vec<&[u8]> = words.collect();
                    let (subject, reply, length) = match words[..] {
                        [subject, _, length] => (subject, None, length),
                        [subject, _, reply, length] => (subject, Some(reply), length),
                        _ => bail!("a message line of {} words", words.len()),
                    };
                    let length: usize = std::str::from_utf8(length)?.parse()?;
                    let start = end + 1;
                    let Some(payload) = self.read.get(start..start + length) else { break };
                    if self.read.len() < start + length + 2 {
                        break;
                    }
                    take(&Received { subject, reply, payload }, &mut self.out)?;
                    start + length + 2
                }
                Some(b"PING") => {
                    self.out.extend_from_slice(b"PONG\r\n");
                    end + 1
                }
                Some(b"INFO" | b"PONG") => end + 1,
                _ => bail!("the server says {:?}", String::from_utf8_lossy(line)),
            };
            self.read.advance(taken);
        }
        if !self.out.is_empty() {
            let out = self.out.split();
            self.write(&out).await?;
        }
        Ok(())
    }
}
