//! Waiting until all nodes see all nodes, and the first routed call.

use super::{
    plan::{Plan, PlannedNode},
    process::not_converged,
};
use crate::error::Failure;
use anyhow::Context as _;
use p2p_client::{ConnectOptions, Connection, Identity};
use p2p_proto::v1::{MemberState, call_response};
use std::{fs, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a local cluster may take to form.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a node is asked whom it sees.
const INTERVAL: Duration = Duration::from_millis(150);
/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// A call that entered at one node and was served by another.
pub(super) struct RoutedCall {
    pub(super) method: &'static str,
    pub(super) entry: String,
    pub(super) served_by: String,
    pub(super) answer: String,
}

/// Returns once every node sees as many alive members as were started, with the answer of a call from the
/// first node to the last.
pub(super) async fn all_see_all(plan: &Plan) -> Result<RoutedCall, Failure> {
    let deadline = Instant::now() + DEADLINE;
    let mut coordinator = None;
    // One after the other: the last one to converge decides, in whatever order they are asked.
    for node in &plan.nodes {
        let mut state = "does not answer".to_owned();
        let waited = timeout_at(deadline, sees_all(plan, node, &mut state)).await;
        let connection = waited.map_err(|_| not_converged(plan, &node.id, DEADLINE, &state))??;
        coordinator.get_or_insert(connection);
    }
    let connection = coordinator.context("a plan has at least one node")?;
    call(plan, &connection).await
}

/// Asks until the node sees all; what it answered last stands in `state`.
async fn sees_all(plan: &Plan, node: &PlannedNode, state: &mut String) -> Result<Connection, Failure> {
    let options = options(plan, node)?;
    loop {
        match alive_at(&options).await {
            Ok((connection, alive)) if alive == plan.nodes.len() => return Ok(connection),
            Ok((_, alive)) => *state = format!("sees {alive} of {} members", plan.nodes.len()),
            Err(error) => *state = format!("does not answer ({error})"),
        }
        sleep(INTERVAL).await;
    }
}

async fn alive_at(options: &ConnectOptions) -> Result<(Connection, usize), p2p_client::CallError> {
    let connection = Connection::connect(options).await?;
    let nodes = connection.list_nodes().await?;
    let alive = nodes.iter().filter(|node| node.state() == MemberState::Alive).count();
    Ok((connection, alive))
}

fn options(plan: &Plan, node: &PlannedNode) -> Result<ConnectOptions, Failure> {
    let read = |path: std::path::PathBuf| {
        fs::read(&path).with_context(|| format!("cannot read {}", path.display())).map_err(Failure::from)
    };
    let endpoint = node.address.to_string().parse().context("not an address")?;
    let mut options = ConnectOptions::new(endpoint);
    options.timeout = QUESTION_TIMEOUT;
    options.ca_pem = Some(read(plan.certificate("ca"))?);
    options.identity =
        Some(Identity { cert_pem: read(plan.certificate("admin"))?, key_pem: read(plan.key("admin"))? });
    Ok(options)
}

async fn call(plan: &Plan, connection: &Connection) -> Result<RoutedCall, Failure> {
    let method = "p2p.v1.SystemService/Echo";
    let to = plan.last_worker().id.as_str();
    let failed = |why: String| {
        let log = plan.log_advice(&plan.coordinator().id);
        Failure::other(format!(
            "all nodes see each other, but the call of {method} on {to} failed: {why}. {log}"
        ))
    };
    let response = connection.call_json(method, r#"{"message":"hello"}"#, Some(to)).await;
    let response = response.map_err(|error| failed(error.to_string()))?;
    match response.result {
        Some(call_response::Result::Json(answer)) => Ok(RoutedCall {
            method,
            entry: plan.coordinator().id.to_string(),
            served_by: response.node,
            answer,
        }),
        Some(call_response::Result::Error(error)) => Err(failed(error.message)),
        Some(call_response::Result::Binary(_)) | None => Err(failed("it brought no JSON".to_owned())),
    }
}
