//! `RpcService.Broadcast`: one method on many nodes at once, one result for each, as they come.

use super::{
    Parts,
    call::{error, method_path},
    caller, generic_act,
};
use crate::{
    auth::Caller,
    error::{Fault, Reason},
    registry::{Method, Provider, code_word},
    router::{AnswerLimit, JsonMethod, Target, UnaryCall, within},
};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use p2p_core::{
    Role, ServiceName,
    gossip::{MemberView, View},
};
use p2p_proto::v1::{
    BroadcastRequest, BroadcastResponse, MemberState, ServiceState, broadcast_request::Payload,
    broadcast_response::Result as NodeResult,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Code, Request, Status};

/// Nodes called at a time.
const FAN_OUT: usize = 64;
/// Results that wait for a slow reader.
const RESULTS_QUEUE: usize = 16;
/// Largest answer taken of one node: many are held at once.
const ANSWER: AnswerLimit = AnswerLimit { bytes: 256 * 1024, name: "the most of one node in a broadcast" };
/// Share of the time, and the most of it, that is kept for telling who has not answered.
const KEPT_SHARE: u32 = 10;
const KEPT_MAX: Duration = Duration::from_secs(1);

/// The answer of `Broadcast`.
pub(super) type Results = BoxStream<'static, Result<BroadcastResponse, Status>>;

/// Which nodes are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    role: Option<Role>,
    labels: BTreeMap<String, String>,
}

impl Filter {
    fn new(role: &str, labels: BTreeMap<String, String>) -> Result<Self, Fault> {
        let role = match role {
            "" => None,
            word => Some(word.parse().ok().filter(|role: &Role| role.is_node()).ok_or_else(|| {
                Fault::new(
                    Reason::InvalidArgument,
                    format!("{word:?} is no role of nodes; write coordinator or worker, or leave it out"),
                )
            })?),
        };
        Ok(Self { role, labels })
    }

    fn means(&self, member: &MemberView) -> bool {
        let own = &member.records.node.labels;
        self.role.is_none_or(|role| role == member.role())
            && self.labels.iter().all(|(name, value)| own.get(name) == Some(value))
    }

    /// As in ` with role worker and label disk=ssd`.
    fn words(&self) -> String {
        let role = self.role.iter().map(|role| format!("role {role}"));
        let labels = self.labels.iter().map(|(name, value)| format!("label {name}={value}"));
        let all: Vec<String> = role.chain(labels).collect();
        if all.is_empty() { String::new() } else { format!(" with {}", all.join(" and ")) }
    }
}

/// One broadcast on its way.
struct Broadcast {
    parts: Parts,
    method: Arc<Method>,
    caller: Arc<Caller>,
    json: Option<JsonMethod>,
    message: Bytes,
    started: Instant,
    /// When the nodes must have answered.
    deadline: Instant,
    nodes: u32,
}

/// Starts a broadcast; its results come through the stream, which ends after the last.
pub(super) async fn broadcast(parts: &Parts, request: Request<BroadcastRequest>) -> Result<Results, Fault> {
    let caller = caller(request.extensions())?;
    let headers = request.metadata().clone().into_headers();
    let BroadcastRequest { method, payload, role, labels } = request.into_inner();
    let filter = Filter::new(&role, labels)?;
    let router = &parts.router;
    let method = router.registry().resolve(method_path(&method)?.as_wire())?;
    router.check_generic(&method, &caller)?;
    parts.limits.charge_target(method.info.path.as_str(), &caller)?;
    let mut act = generic_act(parts, method.info.path.as_str(), &caller);
    let (started, end) = (Instant::now(), router.deadline(&method, &headers));
    let end = end.unwrap_or_else(|| started + router.default_timeout());
    let room = router.begin_broadcast()?;
    let (json, message) = match payload {
        Some(Payload::Binary(message)) => (None, message),
        Some(Payload::Json(text)) => encode(parts, &method, &text).await?,
        None => encode(parts, &method, "{}").await?,
    };
    let targets = targets(parts, &method, &filter);
    if targets.is_empty() {
        let path = &method.info.path;
        let text = format!(
            "no alive node{} provides {path}; `p2pctl cluster nodes -o wide` shows them",
            filter.words()
        );
        return Err(Fault::new(Reason::NotFound, text));
    }
    let kept = (end.saturating_duration_since(started) / KEPT_SHARE).min(KEPT_MAX);
    let nodes = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    let broadcast = Broadcast {
        parts: parts.clone(),
        method,
        caller,
        json,
        message,
        started,
        deadline: end.checked_sub(kept).unwrap_or(end),
        nodes,
    };
    let (sender, receiver) = mpsc::channel(RESULTS_QUEUE);
    tokio::spawn(async move {
        let _room = room;
        let all = broadcast.run(targets, &sender);
        // Who turned away, or does not read in time, ends it.
        tokio::select! {
            () = sender.closed() => {}
            ended = within(Some(end), all) => {
                if ended.is_err() {
                    tracing::debug!(method = %broadcast.method.info.path, "the reader of a broadcast was too slow");
                }
                if let Some(act) = &mut act {
                    act.ended(code_word(ended.unwrap_or(Code::DeadlineExceeded)));
                }
            }
        }
    });
    Ok(complete(receiver, nodes).boxed())
}

async fn encode(parts: &Parts, method: &Method, text: &str) -> Result<(Option<JsonMethod>, Bytes), Fault> {
    let json = parts.router.json_method(method).await?;
    let message = json.encode(text)?;
    Ok((Some(json), message))
}

/// The results; if some were lost because nobody read them in time, the end says so.
fn complete(
    receiver: mpsc::Receiver<BroadcastResponse>,
    nodes: u32,
) -> impl stream::Stream<Item = Result<BroadcastResponse, Status>> {
    stream::unfold((receiver, nodes), |(mut receiver, left)| async move {
        match receiver.recv().await {
            Some(result) => Some((Ok(result), (receiver, left.saturating_sub(1)))),
            None if left == 0 => None,
            None => {
                let text = format!("the results of {left} nodes were not read in time");
                let status = Fault::new(Reason::DeadlineExceeded, text).to_status();
                Some((Err(status), (receiver, 0)))
            }
        }
    })
}

/// Alive and suspect members that provide the method and are meant, the suspect ones last: they may take all the time.
fn targets(parts: &Parts, method: &Method, filter: &Filter) -> Vec<Arc<Provider>> {
    let (view, table) = (parts.gossip.view().borrow().clone(), parts.router.registry().table());
    let own = parts.router.registry().node();
    let mut found = Vec::new();
    for state in [MemberState::Alive, MemberState::Suspect] {
        let fitting = in_state(&view, state).filter(|(_, member)| filter.means(member));
        for (node, member) in fitting {
            let provided = if node == own { method.local.is_some() } else { provides(member, method) };
            let of_service = table.services.get(method.info.path.service()).and_then(|nodes| nodes.get(node));
            let known = of_service.or_else(|| table.nodes.get(node)).cloned();
            let provider = known.or_else(|| Some(Arc::new(Provider::new(node.clone(), member.address?))));
            found.extend(provider.filter(|_| provided));
        }
    }
    found
}

fn in_state(view: &View, state: MemberState) -> impl Iterator<Item = (&p2p_core::NodeId, &MemberView)> {
    view.members.iter().filter(move |(_, member)| member.current && member.state == state)
}

/// Every node has the services of the system.
fn provides(member: &MemberView, method: &Method) -> bool {
    let Ok(service) = method.info.path.service().parse::<ServiceName>() else { return false };
    let serves = |path: &str| {
        let record = member.records.services.get(&service);
        record.is_some_and(|record| {
            let named = record.methods.iter().find(|found| found.name == path);
            let same = named.is_some_and(|found| found.streaming == i32::from(method.info.streaming));
            same && record.state == i32::from(ServiceState::Serving)
        })
    };
    service.is_reserved() || serves(method.info.path.method())
}

impl Broadcast {
    /// Asks all. Returns the first code that was not OK, or that.
    async fn run(&self, targets: Vec<Arc<Provider>>, sender: &mpsc::Sender<BroadcastResponse>) -> Code {
        let mut code = Code::Ok;
        let calls = targets.into_iter().map(|provider| async move { self.one(&provider).await });
        let mut results = std::pin::pin!(stream::iter(calls).buffer_unordered(FAN_OUT));
        while let Some(result) = results.next().await {
            if let (Code::Ok, Some(NodeResult::Error(error))) = (code, &result.result) {
                code = error.code.into();
            }
            if sender.send(result).await.is_err() {
                return Code::Cancelled;
            }
        }
        code
    }

    async fn one(&self, provider: &Arc<Provider>) -> BroadcastResponse {
        let result = self.ask(provider).await.unwrap_or_else(|fault| Err(fault.to_status()));
        self.parts.router.count_result(result.is_ok());
        let elapsed = self.started.elapsed().as_millis();
        BroadcastResponse {
            node: provider.node.to_string(),
            result: Some(result.unwrap_or_else(|status| NodeResult::Error(error(&status)))),
            elapsed_ms: u32::try_from(elapsed).unwrap_or(u32::MAX),
            nodes: self.nodes,
        }
    }

    async fn ask(&self, provider: &Arc<Provider>) -> Result<Result<NodeResult, Status>, Fault> {
        if Instant::now() >= self.deadline {
            return Err(Fault::new(Reason::DeadlineExceeded, "the time was over before its turn came"));
        }
        let call = UnaryCall {
            method: &self.method,
            caller: &self.caller,
            target: Target::Provider(provider),
            deadline: Some(self.deadline),
            limit: ANSWER,
        };
        let answer = match self.parts.router.send(call, &self.message).await?.result {
            Ok(answer) => answer,
            Err(status) => return Ok(Err(status)),
        };
        Ok(Ok(match &self.json {
            Some(json) => NodeResult::Json(json.decode(answer, ANSWER)?),
            None => NodeResult::Binary(answer),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_that_nobody_read_are_missed_aloud() {
        let (sender, receiver) = mpsc::channel(2);
        sender.send(BroadcastResponse::default()).await.expect("room");
        drop(sender);
        let all: Vec<_> = complete(receiver, 3).collect().await;
        assert_eq!(all.len(), 2);
        let status = all[1].as_ref().expect_err("incomplete");
        assert_eq!(status.message(), "the results of 2 nodes were not read in time");
    }

    #[test]
    fn a_filter_says_what_it_means() {
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let filter = Filter::new("worker", labels).expect("a filter");
        assert_eq!(filter.words(), " with role worker and label disk=ssd");
        for bad in ["admin", "king"] {
            let fault = Filter::new(bad, BTreeMap::new()).expect_err(bad);
            assert!(fault.message.contains("write coordinator or worker"), "{}", fault.message);
        }
    }
}
