//! `p2pctl rpc call`

use super::payload;
use crate::{
    error::{Exit, Failure, Outcome, code_word},
    output::{Format, Output, json, printable},
    session::Session,
};
use anyhow::Context as _;
use clap::Args;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use p2p_client::{RawAnswers, RawError};
use p2p_core::{MethodPath, NodeId};
use p2p_node::schema::{Schema, decode_json, encode_json};
use prost_reflect::{MessageDescriptor, MethodDescriptor, prost::bytes::Bytes};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait to be sent.
const REQUESTS_QUEUE: usize = 16;
/// Largest answer shown, in bytes of JSON.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Calls a method with requests in JSON and prints its answers
///
/// Any node takes the call and routes it to one that provides the method; no .proto file is needed. A method that streams
/// answers prints each as it comes; one that takes a stream reads several JSON values, one after another, and sends each as
/// it is read. Use it to try a method, or from scripts: when the method itself answers with an error, the exit code is 64
/// plus its gRPC code.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl rpc call p2p.v1.SystemService/GetInfo --node worker-1
  p2pctl rpc call p2p.v1.SystemService/Echo '{\"message\": \"hello\"}'
  p2pctl rpc call p2p.v1.SystemService/Echo @request.json -H 'x-request-id: 7'
  p2pctl rpc call demo.v1.Greeter/Repeat '{\"name\": \"you\", \"count\": 3}' -o json
  echo '{\"name\": \"a\"} {\"name\": \"b\"}' | p2pctl rpc call demo.v1.Greeter/Gather -

--timeout is for calls with one request and one answer; a stream goes on until it ends or Ctrl-C. With -o json, each answer
of a stream is one line.")]
pub(crate) struct CallArgs {
    /// Method to call, as `rpc list` writes it: package.Service/Method
    method: MethodPath,
    /// Request message as JSON; @FILE reads a file, - stdin
    #[arg(default_value = "{}", value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: String,
    /// Only this node may serve the call
    #[arg(long, value_name = "NODE")]
    node: Option<NodeId>,
    /// Metadata to send; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name: HeaderName = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    if name.as_str().starts_with("grpc-") || ["content-type", "te"].contains(&name.as_str()) {
        return Err(format!("{name} belongs to gRPC itself"));
    }
    let value =
        HeaderValue::from_str(value.trim()).map_err(|_| "the value is not one line of text".to_owned())?;
    Ok((name, value))
}

/// Runs the verb.
pub(crate) async fn run(args: &CallArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let descriptors = connection.descriptors(args.method.service()).await;
    let method = method(descriptors.map_err(|error| session.call_failure(&error))?, &args.method)?;
    let unary = !method.is_client_streaming() && !method.is_server_streaming();
    let headers = headers(args, unary.then_some(session.global().timeout))?;
    let (failed, failure) = oneshot::channel();
    let requests = requests(args, &method, failed)?;
    let called = async {
        let answers = connection.call_raw(args.method.as_str(), headers, requests).await;
        let answers = answers.map_err(|error| why(&args.method, error, session))?;
        print(answers, &method, args, session, output).await
    };
    tokio::select! {
        // A request that does not fit ends the call: the method must not take what came before it for all.
        Ok(failure) = failure => Err(failure),
        outcome = called => outcome,
    }
}

fn method(descriptors: Vec<u8>, path: &MethodPath) -> Result<MethodDescriptor, Failure> {
    let schema = Schema::decode(descriptors).context("the node sent a schema that does not read")?;
    schema.method(path).ok_or_else(|| {
        let failure = Failure::not_found(format!("{} has no method {}", path.service(), path.method()));
        failure.hint(&format!("`p2pctl rpc describe {}` shows those that it has", path.service()))
    })
}

fn headers(args: &CallArgs, timeout: Option<Duration>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &args.headers {
        headers.append(name.clone(), value.clone());
    }
    if let Some(node) = &args.node {
        let node = HeaderValue::from_str(node.as_str()).context("the name of the node is no header")?;
        headers.insert("p2p-target-node", node);
    }
    if let Some(timeout) = timeout {
        let millis = format!("{}m", timeout.as_millis().min(99_999_999));
        headers.insert("grpc-timeout", HeaderValue::try_from(millis).context("the timeout is no header")?);
    }
    Ok(headers)
}

/// The encoded requests, as they are read; why they cannot be, through `failed`.
fn requests(
    args: &CallArgs,
    method: &MethodDescriptor,
    failed: oneshot::Sender<Failure>,
) -> Result<impl Stream<Item = Bytes> + Send + use<>, Failure> {
    let input = method.input();
    let (sender, receiver) = mpsc::channel(REQUESTS_QUEUE);
    if method.is_client_streaming() {
        let arg = args.payload.clone();
        // A thread of its own, which nobody waits for: stdin may never end.
        std::thread::spawn(move || {
            if let Err(failure) = read_all(&arg, &input, &sender)
                && failed.send(failure).is_ok()
            {
                // The call must not end as if all had been sent.
                std::thread::park();
            }
        });
    } else {
        let message = encode(&input, &payload::one(&args.payload)?)?;
        sender.try_send(message).context("the request cannot be queued")?;
    }
    Ok(stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }))
}

fn read_all(arg: &str, input: &MessageDescriptor, sender: &mpsc::Sender<Bytes>) -> Result<(), Failure> {
    for value in payload::values(arg)? {
        // Whoever has its answer needs no more requests.
        if sender.blocking_send(encode(input, &value?)?).is_err() {
            break;
        }
    }
    Ok(())
}

fn encode(input: &MessageDescriptor, json: &str) -> Result<Bytes, Failure> {
    encode_json(input, json).map_err(|fault| {
        let failure = Failure::usage(format!("the request does not fit: {}", fault.message));
        failure.hint("`p2pctl rpc describe` shows what a request looks like")
    })
}

async fn print(
    mut answers: RawAnswers,
    method: &MethodDescriptor,
    args: &CallArgs,
    session: &Session<'_>,
    output: &Output,
) -> Outcome {
    while let Some(message) = answers.next().await.map_err(|error| why(&args.method, error, session))? {
        let json = decode_json(&method.output(), message, MAX_ANSWER_BYTES);
        let json = json.map_err(|fault| Failure::other(fault.message))?;
        let json = json.ok_or_else(|| Failure::other("the answer is larger than 64 MiB as JSON"))?;
        output.data(&text(&json, output.format(), method.is_server_streaming())?)?;
    }
    Ok(Exit::Success)
}

/// One answer, as one of many or alone.
fn text(json: &str, format: Format, one_of_many: bool) -> Result<String, Failure> {
    Ok(match format {
        Format::Json if one_of_many => format!("{json}\n"),
        Format::Table | Format::Wide | Format::Json => json::pretty(json) + "\n",
        Format::Yaml if one_of_many => format!("---\n{}", yaml(json)?),
        Format::Yaml => yaml(json)?,
    })
}

/// The method's own error, or why it was not reached.
fn why(method: &MethodPath, error: RawError, session: &Session<'_>) -> Failure {
    match error {
        RawError::Call(error) => session.call_failure(&error),
        RawError::Answered { node, status } => {
            let word = code_word(status.code()).to_uppercase();
            let message = format!("{method} on {node} answered {word}: {}", printable(status.message()));
            Failure::answered(status.code(), message)
        }
    }
}

fn yaml(answer: &str) -> Result<String, Failure> {
    let value: serde_json::Value =
        serde_json::from_str(answer).context("the answer is not JSON").map_err(Failure::from)?;
    Ok(serde_yaml::to_string(&value).context("the answer cannot be written as YAML")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_names_and_values_that_are_not_those_of_grpc() {
        let (name, value) = header("X-Request-Id: a:b").expect("a header");
        assert_eq!((name.as_str(), value.to_str().expect("text")), ("x-request-id", "a:b"));
        for bad in ["x", "grpc-timeout: 1S", "a b: c", "Content-Type: text/plain", "x: a\nb"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_stands_alone_or_among_many() {
        let json = r#"{"message":"hi"}"#;
        assert_eq!(text(json, Format::Table, true).as_deref(), Ok("{\n  \"message\": \"hi\"\n}\n"));
        assert_eq!(text(json, Format::Json, true).as_deref(), Ok("{\"message\":\"hi\"}\n"));
        assert_eq!(text(json, Format::Json, false).as_deref(), Ok("{\n  \"message\": \"hi\"\n}\n"));
        assert_eq!(text(json, Format::Yaml, false).as_deref(), Ok("message: hi\n"));
        assert_eq!(text(json, Format::Yaml, true).as_deref(), Ok("---\nmessage: hi\n"));
    }
}
