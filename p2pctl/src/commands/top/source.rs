//! Asks the cluster, again and again, and sends on what it hears. Every question has the deadline of `--timeout`; only the
//! stream of events has no end.

use super::model::{Question, Update};
use crate::{error::Failure, session::Session};
use p2p_client::{CallError, ConnectOptions, Connection, Endpoint, Events};
use p2p_proto::v1::{
    BroadcastRequest, BroadcastResponse, GetMetricsResponse, MemberState, NodeInfo, broadcast_request,
    broadcast_response, events_response::Event,
};
use prost_reflect::prost::Message as _;
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// How many other nodes are remembered, to ask them should the first one go away.
const OTHERS: usize = 8;

/// Where answers come from.
pub(super) struct Source {
    connection: Connection,
    timeout: Duration,
}

impl Source {
    /// Connects, and asks for the first time: who may not ask hears so at once.
    pub(super) async fn open(session: &Session<'_>) -> Result<(Self, Vec<Update>), Failure> {
        let mut options = session.connect_options()?;
        let source = Self { connection: session.connect().await?, timeout: options.timeout };
        let asked = tokio::try_join!(
            source.connection.cluster_status(),
            source.connection.list_nodes(),
            source.connection.list_services()
        );
        let (status, nodes, services) = asked.map_err(|error| session.call_failure(&error))?;
        options.others = others(&options, &nodes);
        let connection = Connection::connect(&options).await;
        let connection = connection.map_err(|error| session.connect_failure(&error))?;
        Ok((
            Self { connection, ..source },
            vec![Update::Status(status), Update::Members(nodes), Update::Services(services)],
        ))
    }

    /// Asks without end; ends when nobody listens.
    pub(super) async fn follow(&self, every: Duration, updates: &mpsc::Sender<Update>) {
        tokio::select! {
            _closed = self.follow_cluster(every, updates) => {}
            _closed = self.follow_nodes(every, updates) => {}
            _closed = self.follow_events(every, updates) => {}
        }
    }

    async fn follow_cluster(&self, every: Duration, updates: &mpsc::Sender<Update>) -> Option<Infallible> {
        let (mut ticks, mut status) = (ticks(every), false);
        loop {
            ticks.tick().await;
            // What changes least is asked half as often: all questions of one caller share one rate limit.
            status = !status;
            let trouble = match self.cluster(status).await {
                Ok(answers) => {
                    for answer in answers {
                        updates.send(answer).await.ok()?;
                    }
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            updates.send(Update::Trouble(Question::Cluster, trouble)).await.ok()?;
        }
    }

    async fn follow_nodes(&self, every: Duration, updates: &mpsc::Sender<Update>) -> Option<Infallible> {
        let mut ticks = ticks(every);
        loop {
            ticks.tick().await;
            let trouble = self.nodes(updates).await.err().map(|error| error.to_string());
            updates.send(Update::Trouble(Question::Nodes, trouble)).await.ok()?;
        }
    }

    async fn follow_events(&self, pause: Duration, updates: &mpsc::Sender<Update>) -> Option<Infallible> {
        loop {
            let why = match self.connection.events(true).await {
                Ok(events) => follow_stream(events, updates).await?,
                Err(error) => error.to_string(),
            };
            updates.send(Update::Trouble(Question::Events, Some(why))).await.ok()?;
            sleep(pause).await;
        }
    }

    /// How the answering node sees the members, and the cluster in sum or its services.
    async fn cluster(&self, status: bool) -> Result<[Update; 2], CallError> {
        let connection = &self.connection;
        let other = async {
            if status {
                connection.cluster_status().await.map(Update::Status)
            } else {
                connection.list_services().await.map(Update::Services)
            }
        };
        let (nodes, other) = tokio::try_join!(connection.list_nodes(), other)?;
        Ok([Update::Members(nodes), other])
    }

    /// Asks all nodes of themselves, by one call: it is charged once, and no address but the answering node's needs to be
    /// reachable from here.
    pub(super) async fn nodes(&self, updates: &mpsc::Sender<Update>) -> Result<(), CallError> {
        let request = BroadcastRequest {
            method: "p2p.v1.SystemService/GetMetrics".to_owned(),
            payload: Some(broadcast_request::Payload::Binary(Default::default())),
            ..BroadcastRequest::default()
        };
        let mut answers = self.connection.broadcast(request).await?;
        while let Some(response) = answers.next().await? {
            if updates.send(node_update(response)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// What is kept of events, oldest first.
    pub(super) async fn past(&self) -> Result<Vec<Update>, CallError> {
        let mut events = self.connection.events(false).await?;
        let mut past = Vec::new();
        let late = || CallError::DeadlineExceeded {
            endpoint: self.connection.endpoint().clone(),
            timeout: self.timeout,
        };
        while let Some(event) = timeout(self.timeout, events.next()).await.map_err(|_elapsed| late())?? {
            past.extend(event.event.map(event_update));
        }
        Ok(past)
    }
}

/// Sends on what comes, and returns why no more does.
async fn follow_stream(mut events: Events, updates: &mpsc::Sender<Update>) -> Option<String> {
    updates.send(Update::EventsAnew).await.ok()?;
    updates.send(Update::Trouble(Question::Events, None)).await.ok()?;
    loop {
        match events.next().await {
            Ok(Some(event)) => {
                // A kind that a newer release sends is passed over.
                let Some(event) = event.event else { continue };
                updates.send(event_update(event)).await.ok()?;
            }
            Ok(None) => return Some("the node has stopped".to_owned()),
            Err(error) => return Some(error.to_string()),
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    // A slow cluster is not asked more often for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Nodes that can be asked should the first one go away. Who came by the socket of this host knows no CA to check them by.
fn others(options: &ConnectOptions, nodes: &[NodeInfo]) -> Vec<Endpoint> {
    if options.endpoint.socket().is_some() || options.endpoint.is_plain() {
        return vec![];
    }
    let alive = nodes.iter().filter(|node| node.state() == MemberState::Alive);
    let addresses = alive.filter_map(|node| node.addresses.first()?.parse().ok());
    addresses.filter(|address| *address != options.endpoint).take(OTHERS).collect()
}

fn event_update(event: Event) -> Update {
    match event {
        Event::Evidence(evidence) => Update::Event(evidence),
        Event::Missed(missed) => Update::Missed(missed),
    }
}

fn node_update(response: BroadcastResponse) -> Update {
    let answer = match response.result {
        Some(broadcast_response::Result::Binary(message)) => {
            GetMetricsResponse::decode(message).map(Box::new).map_err(|error| error.to_string())
        }
        Some(broadcast_response::Result::Error(error)) => Err(error.message),
        Some(broadcast_response::Result::Json(_)) | None => {
            Err("it answered in a form that was not asked for".to_owned())
        }
    };
    Update::Node { node: response.node, at: Instant::now(), answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::CallError as NodeError;

    fn node(at: usize, state: MemberState) -> NodeInfo {
        let addresses = vec![format!("10.0.0.{at}:8001"), "192.168.0.1:8001".to_owned()];
        NodeInfo { addresses, state: state.into(), ..NodeInfo::default() }
    }

    fn others_of(endpoint: &str, nodes: &[NodeInfo]) -> Vec<String> {
        let options = ConnectOptions::new(endpoint.parse().expect("an endpoint"));
        others(&options, nodes).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_few_nodes_that_live_are_remembered_by_what_they_prefer_to_be_dialled_by() {
        let mut nodes: Vec<_> = (0..20).map(|at| node(at, MemberState::Alive)).collect();
        nodes[0].state = MemberState::Down.into();
        let others = others_of("10.0.0.1:8001", &nodes);
        assert_eq!((others.len(), others[0].as_str()), (OTHERS, "10.0.0.2:8001"));
        assert_eq!(others_of("unix:/run/p2p/node.sock", &nodes), [""; 0]);
        assert_eq!(others_of("http://127.0.0.1:8001", &nodes), [""; 0]);
    }

    #[test]
    fn a_node_that_fails_or_answers_nonsense_is_silent_and_says_why() {
        let update = |result| {
            let response =
                BroadcastResponse { node: "w1".to_owned(), result, ..BroadcastResponse::default() };
            let Update::Node { node, answer, .. } = node_update(response) else { panic!("of a node") };
            (node, answer.map(|metrics| metrics.uptime_seconds))
        };
        let told = GetMetricsResponse { uptime_seconds: 7, ..GetMetricsResponse::default() };
        let told = broadcast_response::Result::Binary(told.encode_to_vec().into());
        assert_eq!(update(Some(told)), ("w1".to_owned(), Ok(7)));
        let error = NodeError { message: "it refuses".to_owned(), ..NodeError::default() };
        let refused = update(Some(broadcast_response::Result::Error(error))).1;
        assert_eq!(refused, Err("it refuses".to_owned()));
        let nonsense = broadcast_response::Result::Binary(vec![0xff].into());
        assert!(update(Some(nonsense)).1.is_err() && update(None).1.is_err());
    }
}
