//! `p2pctl rpc call`

use super::payload;
use crate::{
    error::{Exit, Failure, Outcome, code_word},
    output::{Format, Output, json, printable},
    session::Session,
};
use anyhow::Context as _;
use clap::Args;
use p2p_core::{MethodPath, NodeId};
use p2p_proto::v1::{CallResponse, call_response};
use tonic::Code;

/// Calls a unary method with a request in JSON and prints its answer
///
/// Any node takes the call and routes it to one that provides the method. Use it to try a method, or from
/// scripts: when the method itself answers with an error, the exit code is 64 plus its gRPC code.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl rpc call p2p.v1.SystemService/GetInfo --node worker-1
  p2pctl rpc call p2p.v1.SystemService/Echo '{\"message\": \"hello\"}'
  p2pctl rpc call p2p.v1.SystemService/Echo @request.json
  echo '{\"message\": \"hello\"}' | p2pctl rpc call p2p.v1.SystemService/Echo -")]
pub(crate) struct CallArgs {
    /// Method to call, as `rpc list` writes it: package.Service/Method
    method: MethodPath,
    /// Request message as JSON; @FILE reads a file, - stdin
    #[arg(default_value = "{}", value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: String,
    /// Only this node may serve the call
    #[arg(long, value_name = "NODE")]
    node: Option<NodeId>,
}

/// Runs the verb.
pub(crate) async fn run(args: &CallArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let payload = payload::one(&args.payload)?;
    let connection = session.connect().await?;
    let node = args.node.as_ref().map(NodeId::as_str);
    let response = connection
        .call_json(args.method.as_str(), &payload, node)
        .await
        .map_err(|error| session.call_failure(&error))?;
    let answer = answer(&args.method, response)?;
    match output.format() {
        Format::Table | Format::Wide | Format::Json => output.data(&(json::pretty(&answer) + "\n"))?,
        Format::Yaml => output.data(&yaml(&answer)?)?,
    }
    Ok(Exit::Success)
}

/// The JSON that the method answered with, or its error as a failure.
fn answer(method: &MethodPath, response: CallResponse) -> Result<String, Failure> {
    match response.result {
        Some(call_response::Result::Json(json)) => Ok(json),
        Some(call_response::Result::Error(error)) => {
            let code = Code::from_i32(error.code);
            let word = code_word(code).to_uppercase();
            Err(Failure::answered(
                code,
                format!("{method} on {} answered {word}: {}", response.node, printable(&error.message)),
            ))
        }
        Some(call_response::Result::Binary(_)) | None => {
            Err(Failure::other(format!("{} answered in a form that was not asked for", response.node)))
        }
    }
}

fn yaml(answer: &str) -> Result<String, Failure> {
    let value: serde_json::Value =
        serde_json::from_str(answer).context("The answer is not JSON").map_err(Failure::from)?;
    Ok(serde_yaml::to_string(&value).context("The answer cannot be written as YAML")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::CallError;

    fn echo() -> MethodPath {
        "p2p.v1.SystemService/Echo".parse().expect("a method")
    }

    #[test]
    fn an_error_of_the_method_is_64_plus_its_code() {
        let error = CallError { code: 9, message: "not now".into(), ..CallError::default() };
        let response =
            CallResponse { node: "worker-1".into(), result: Some(call_response::Result::Error(error)) };
        let failure = answer(&echo(), response).expect_err("an error");
        assert_eq!(failure.exit.number(), 73);
        assert_eq!(
            failure.message,
            "p2p.v1.SystemService/Echo on worker-1 answered FAILED_PRECONDITION: not now"
        );
    }

    #[test]
    fn yaml_shows_the_same_answer() {
        assert_eq!(yaml(r#"{"message":"hi"}"#).as_deref(), Ok("message: hi\n"));
    }
}
