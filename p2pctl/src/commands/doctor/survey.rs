//! Every node, asked by itself: for its clock, and what it finds wrong.

use super::{Finding, legs::Seen};
use crate::{error::Failure, session::Session};
use futures_util::{StreamExt as _, stream};
use p2p_client::{CallError, ConnectError, ConnectOptions, Connection, Endpoint, ErrorKind};
use p2p_proto::{
    Timestamp,
    v1::{ExamineResponse, MemberState, NodeInfo},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nodes asked at a time.
const AT_ONCE: usize = 16;

/// What one node answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The node, as its certificate and the cluster name it.
    pub(super) node: String,
    /// Its clock against this host's; `None` from an older release.
    pub(super) clock: Option<Clock>,
    pub(super) examined: ExamineResponse,
}

/// A clock against this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// How far it is ahead, in milliseconds.
    pub(super) ahead_ms: i64,
    /// How far that may be wrong: the answer was under way for twice as long.
    pub(super) error_ms: i64,
}

/// Why a node could not be asked.
#[derive(Debug)]
pub(super) enum Unasked {
    /// It does not take who asks for an admin.
    NoAdmin,
    /// It was not reached from here, or does not know the question.
    Failed(String),
    /// Another node answers at its address.
    Other(String),
}

/// What came of asking all nodes.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) answers: Vec<Answer>,
    pub(super) findings: Vec<Finding>,
    /// Nodes that answer admins only.
    pub(super) closed: Vec<String>,
}

/// Asks every node that should be there: `entry`, over which `nodes` came, and the others at their addresses.
pub(super) async fn survey(
    session: &Session<'_>,
    entry: &Connection,
    nodes: &[NodeInfo],
) -> Result<Survey, Failure> {
    let options = session.connect_options()?;
    let own = entry.cluster_status().await.map_err(|error| session.call_failure(&error))?.node_id;
    let asked = nodes.iter().filter(|node| node.state() != MemberState::Left && !node.evicted);
    let asked = asked.map(|node| {
        let (options, own) = (&options, &own);
        async move {
            let result =
                if node.node_id == *own { ask(entry, node).await } else { dial(options, node).await };
            (node, result)
        }
    });
    let mut results: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    results.sort_by(|(a, _), (b, _)| a.node_id.cmp(&b.node_id));
    let mut survey = Survey::default();
    for (node, result) in results {
        match result {
            Ok(answer) => {
                survey.findings.extend(answer.examined.findings.iter().map(Finding::from));
                survey.answers.push(answer);
            }
            Err(Unasked::NoAdmin) => survey.closed.push(node.node_id.clone()),
            // The others tell of it.
            Err(Unasked::Failed(_)) if node.state() == MemberState::Down => {}
            Err(why) => survey.findings.push(unasked(node, &why)),
        }
    }
    Ok(survey)
}

impl Survey {
    /// The clock of each node that tells it.
    pub(super) fn clocks(&self) -> Vec<(&str, Clock)> {
        self.answers.iter().filter_map(|answer| Some((answer.node.as_str(), answer.clock?))).collect()
    }

    /// What each node that answered sees of the others.
    pub(super) fn seen(&self) -> Vec<Seen<'_>> {
        self.answers.iter().map(|answer| Seen { by: &answer.node, legs: &answer.examined.legs }).collect()
    }
}

fn address(node: &NodeInfo) -> &str {
    node.addresses.first().map_or("", String::as_str)
}

async fn dial(options: &ConnectOptions, node: &NodeInfo) -> Result<Answer, Unasked> {
    let failed = |why: String| Unasked::Failed(why);
    let endpoint: Endpoint = address(node).parse().map_err(|_| failed("it has no address".to_owned()))?;
    let options = ConnectOptions { endpoint, others: Vec::new(), ..options.clone() };
    match Connection::connect(&options).await {
        Ok(connection) => ask(&connection, node).await,
        // Over the socket of a node nobody needs files; elsewhere one does.
        Err(ConnectError::NoCa) => Err(Unasked::NoAdmin),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn ask(connection: &Connection, node: &NodeInfo) -> Result<Answer, Unasked> {
    let unasked = |error: CallError| match error.kind() {
        ErrorKind::Denied | ErrorKind::Unauthenticated => Unasked::NoAdmin,
        ErrorKind::Unreachable
        | ErrorKind::Tls
        | ErrorKind::NotFound
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Other => Unasked::Failed(error.to_string()),
    };
    let sent = SystemTime::now();
    let info = connection.info().await.map_err(unasked)?;
    let got = SystemTime::now();
    if info.node_id != node.node_id {
        return Err(Unasked::Other(info.node_id));
    }
    let examined = connection.examine().await.map_err(unasked)?;
    let clock = info.now.map(|now| clock(sent, now, got));
    Ok(Answer { node: info.node_id, clock, examined })
}

/// The clock that showed `now` between `sent` and `got`.
fn clock(sent: SystemTime, now: Timestamp, got: SystemTime) -> Clock {
    let ms = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    };
    let (sent, got) = (ms(sent), ms(got).max(ms(sent)));
    let now = now.seconds.saturating_mul(1000).saturating_add(i64::from(now.nanos / 1_000_000));
    let middle = sent + (got - sent) / 2;
    Clock { ahead_ms: now.saturating_sub(middle), error_ms: (got - sent) / 2 + 1 }
}

fn unasked(node: &NodeInfo, why: &Unasked) -> Finding {
    let (id, address) = (&node.node_id, address(node));
    match why {
        Unasked::Other(found) => Finding {
            check: "duplicate_id".into(),
            subject: id.clone(),
            what: format!("at its address {address} answers {found}"),
            why: "two nodes tell the others the same address: one of them is not reached".into(),
            mend: format!(
                "set advertise_addresses of {id} and {found} to the address that leads to each, with \
                 `p2pctl config set advertise_addresses`, and restart them"
            ),
        },
        Unasked::Failed(reason) => not_examined(id, address, reason),
        Unasked::NoAdmin => not_examined(id, address, "it takes an admin"),
    }
}

fn not_examined(id: &str, address: &str, reason: &str) -> Finding {
    Finding {
        check: "not_examined".into(),
        subject: id.to_owned(),
        what: format!("it could not be asked from here: {reason}"),
        why: "what only the node itself knows, such as its files and its limits, was not looked at".into(),
        mend: format!(
            "run `p2pctl doctor` on its host, or where {address} leads to it under a name of its certificate"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_question() {
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        let now = Timestamp { seconds: 100, nanos: 0 };
        assert_eq!(clock(at(94_900), now, at(95_100)), Clock { ahead_ms: 5_000, error_ms: 101 });
        assert_eq!(clock(at(100_000), now, at(100_000)), Clock { ahead_ms: 0, error_ms: 1 });
        // This host's clock was set back meanwhile.
        assert_eq!(clock(at(100_000), now, at(90_000)), Clock { ahead_ms: 0, error_ms: 1 });
    }

    #[test]
    fn who_answers_in_the_place_of_another_is_named() {
        let node = NodeInfo {
            node_id: "w-1".into(),
            addresses: vec!["10.0.0.7:8001".into()],
            ..NodeInfo::default()
        };
        let found = unasked(&node, &Unasked::Other("w-2".into()));
        assert_eq!(
            (&*found.check, found.what.as_str()),
            ("duplicate_id", "at its address 10.0.0.7:8001 answers w-2")
        );
        let found = unasked(&node, &Unasked::Failed("cannot reach it".into()));
        assert_eq!(
            (&*found.check, found.what.as_str()),
            ("not_examined", "it could not be asked from here: cannot reach it")
        );
    }
}
