//! `p2pctl rpc broadcast`

use super::payload;
use crate::{
    error::{Exit, Failure, Outcome, code_word},
    output::{
        Output,
        table::{Cell, Table, Tone},
    },
    session::Session,
};
use clap::Args;
use p2p_core::{MethodPath, Role};
use p2p_proto::v1::{BroadcastRequest, BroadcastResponse, broadcast_request::Payload, broadcast_response};
use serde::Serialize;
use tonic::Code;

/// Widths of the columns while rows come; longer values push their row.
const NODE_WIDTH: usize = 16;
const RESULT_WIDTH: usize = 17;
const TIME_WIDTH: usize = 7;

/// Calls a unary method on every node that provides it, and prints each node's answer as it comes
///
/// Use it to ask or tell all nodes the same: `p2p.v1.SystemService` is on every one, a service of yours on its providers. A
/// node that fails does not keep the others from answering. --timeout is for all together; a tenth of it, a second at most,
/// is kept for naming those that did not answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl rpc broadcast p2p.v1.SystemService/GetInfo
  p2pctl rpc broadcast shop.Cache/Flush '{\"prefix\": \"users/\"}' --role worker \\
      --label disk=ssd
  p2pctl rpc broadcast p2p.v1.SystemService/GetMetrics -o json | jq -r \\
      'select(.ok) | .node_id'

Exit codes: 0 if all nodes answered, 7 if some did, 1 if none did, 3 if no node fits.
With -o json, each line is one node's result.")]
pub(crate) struct BroadcastArgs {
    /// Method to call, as `rpc list` writes it: package.Service/Method
    method: MethodPath,
    /// Request message as JSON; @FILE reads a file, - stdin
    #[arg(default_value = "{}", value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: String,
    /// Only nodes of this role: coordinator or worker
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Option<Role>,
    /// Only nodes with this label; several must all fit
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

fn role(text: &str) -> Result<Role, String> {
    let role = text.parse::<Role>().ok().filter(|role| role.is_node());
    role.ok_or_else(|| "write coordinator or worker".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// One node's result, as scripts read it.
#[derive(Debug, PartialEq, Serialize)]
struct NodeResult {
    node_id: String,
    ok: bool,
    elapsed_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<NodeError>,
    /// The answer with its digits and order as they came.
    #[serde(skip)]
    text: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct NodeError {
    code: &'static str,
    message: String,
}

/// Runs the verb.
pub(crate) async fn run(args: &BroadcastArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let request = BroadcastRequest {
        method: args.method.to_string(),
        payload: Some(Payload::Json(payload::one(&args.payload)?)),
        role: args.role.map(|role| role.to_string()).unwrap_or_default(),
        labels: args.labels.iter().cloned().collect(),
    };
    let connection = session.connect().await?;
    let mut results = connection.broadcast(request).await.map_err(|error| session.call_failure(&error))?;
    if !output.format().is_structured() {
        output.data(&output.render(&row(&["NODE", "RESULT", "TIME", "ANSWER"].map(Cell::from))))?;
    }
    let (mut answered, mut failed) = (0_usize, Vec::new());
    while let Some(response) = results.next().await.map_err(|error| session.call_failure(&error))? {
        let result = read(response);
        output.next("BroadcastResult", &result, |output| output.render(&row(&cells(&result))))?;
        if result.ok { answered += 1 } else { failed.push(result.node_id) }
    }
    verdict(answered, &failed)
}

fn read(response: BroadcastResponse) -> NodeResult {
    let (answer, error, text) = match response.result {
        Some(broadcast_response::Result::Json(json)) => (serde_json::from_str(&json).ok(), None, json),
        Some(broadcast_response::Result::Error(error)) => {
            let code = code_word(Code::from_i32(error.code));
            (None, Some(NodeError { code, message: error.message.clone() }), error.message)
        }
        Some(broadcast_response::Result::Binary(_)) | None => {
            let message = "it answered in a form that was not asked for".to_owned();
            (None, Some(NodeError { code: "failure", message: message.clone() }), message)
        }
    };
    let (node_id, elapsed_ms) = (response.node, response.elapsed_ms);
    NodeResult { node_id, ok: error.is_none(), elapsed_ms, answer, error, text }
}

fn cells(result: &NodeResult) -> [Cell; 4] {
    let (word, tone) = match &result.error {
        None => ("ok", Tone::Good),
        Some(error) => (error.code, Tone::Bad),
    };
    [
        result.node_id.as_str().into(),
        Cell::new(word, tone),
        format!("{}ms", result.elapsed_ms).into(),
        result.text.as_str().into(),
    ]
}

/// One line, in columns as wide as those of the lines before it.
fn row(cells: &[Cell; 4]) -> Table {
    let mut table = Table::lines("");
    let [node, result, time, answer] = cells;
    table.row(vec![
        node.padded(NODE_WIDTH),
        result.padded(RESULT_WIDTH),
        time.padded(TIME_WIDTH),
        answer.clone(),
    ]);
    table
}

fn verdict(answered: usize, failed: &[String]) -> Outcome {
    if failed.is_empty() {
        return Ok(Exit::Success);
    }
    let all = answered + failed.len();
    let names = failed.join(", ");
    Err(match answered {
        0 => Failure::other(format!("none of {all} nodes answered: {names}")),
        _ => Failure::partial(format!("{} of {all} nodes failed: {names}", failed.len())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::CallError;

    fn response(node: &str, result: broadcast_response::Result) -> BroadcastResponse {
        BroadcastResponse { node: node.to_owned(), result: Some(result), elapsed_ms: 12, nodes: 2 }
    }

    #[test]
    fn each_node_has_its_row_and_its_line_of_json() {
        let good = read(response("worker-1", broadcast_response::Result::Json(r#"{"pid":7}"#.to_owned())));
        let error = CallError { code: 14, message: "connection\nrefused".to_owned(), ..CallError::default() };
        let bad = read(response("w2", broadcast_response::Result::Error(error)));
        let lines: Vec<String> = [&good, &bad].map(|result| row(&cells(result)).render(false)).to_vec();
        assert_eq!(
            lines,
            [
                "worker-1          ok                 12ms     {\"pid\":7}\n",
                "w2                unavailable        12ms     connection refused\n",
            ]
        );
        assert_eq!(
            serde_json::to_string(&good).expect("serializes"),
            r#"{"node_id":"worker-1","ok":true,"elapsed_ms":12,"answer":{"pid":7}}"#
        );
        assert_eq!(
            serde_json::to_string(&bad).expect("serializes"),
            r#"{"node_id":"w2","ok":false,"elapsed_ms":12,"error":{"code":"unavailable","message":"connection\nrefused"}}"#
        );
    }

    #[test]
    fn the_exit_code_says_whether_all_some_or_none_answered() {
        let number = |outcome: Outcome| outcome.map_or_else(|failure| failure.exit.number(), Exit::number);
        let failed = ["w1".to_owned(), "w2".to_owned()];
        assert_eq!(number(verdict(2, &[])), 0);
        assert_eq!(number(verdict(1, &failed)), 7);
        assert_eq!(number(verdict(0, &failed)), 1);
        let failure = verdict(1, &failed).expect_err("partial");
        assert_eq!(failure.message, "2 of 3 nodes failed: w1, w2");
    }
}
