//! `p2pctl rpc describe`

use super::{example, proto_text};
use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, json},
    session::Session,
};
use anyhow::Context as _;
use clap::Args;
use p2p_core::{MethodPath, ServiceName};
use p2p_node::schema::{Comments, Schema};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};
use serde::Serialize;
use std::str::FromStr;

/// Shows the schema of a method or service, with an example request
///
/// The schema comes from the cluster, no .proto file is needed. Use it before `rpc call` to learn what a
/// request looks like.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl rpc describe p2p.v1.SystemService/Echo
  p2pctl rpc describe p2p.v1.SystemService
  p2pctl rpc describe p2p.v1.SystemService/Echo -o json | jq \\
      '.methods[0].example'")]
pub(crate) struct DescribeArgs {
    /// package.Service/Method or package.Service
    #[arg(value_name = "METHOD|SERVICE")]
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Service(ServiceName),
    Method(MethodPath),
}

impl Target {
    fn service(&self) -> &str {
        match self {
            Self::Service(service) => service.as_str(),
            Self::Method(method) => method.service(),
        }
    }
}

impl FromStr for Target {
    type Err = p2p_core::method::InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') { text.parse().map(Self::Method) } else { text.parse().map(Self::Service) }
    }
}

#[derive(Serialize)]
struct Description {
    service: String,
    methods: Vec<Method>,
    proto: String,
}

#[derive(Serialize)]
struct Method {
    path: String,
    comment: String,
    request: String,
    response: String,
    client_streaming: bool,
    server_streaming: bool,
    example: serde_json::Value,
    #[serde(skip)]
    example_text: String,
}

/// Runs the verb.
pub(crate) async fn run(args: &DescribeArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let descriptors =
        connection.descriptors(args.target.service()).await.map_err(|error| session.call_failure(&error))?;
    let description = describe(&descriptors, &args.target)?;
    output.object("ServiceDescription", &description, |_| text(&description))?;
    Ok(Exit::Success)
}

fn describe(descriptors: &[u8], target: &Target) -> Result<Description, Failure> {
    let schema = Schema::decode_with(descriptors.to_vec(), Comments::Keep)
        .context("the node sent a schema that does not read")?;
    let name = target.service();
    let service = schema
        .pool()
        .get_service_by_name(name)
        .ok_or_else(|| Failure::not_found(format!("the node's schema has no service {name}")))?;
    let chosen = chosen(&service, target)?;
    let methods = chosen.iter().map(method).collect();
    Ok(Description { service: name.to_owned(), methods, proto: proto_text::service(&service, &chosen) })
}

fn chosen(service: &ServiceDescriptor, target: &Target) -> Result<Vec<MethodDescriptor>, Failure> {
    let Target::Method(path) = target else {
        return Ok(service.methods().collect());
    };
    let found = service.methods().find(|method| method.name() == path.method());
    found.map(|method| vec![method]).ok_or_else(|| {
        let names: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
        let failure = Failure::not_found(format!("{} has no method {}", service.full_name(), path.method()));
        failure.hint(&format!("It has {}", names.join(", ")))
    })
}

fn method(method: &MethodDescriptor) -> Method {
    let example_text = example::request(&method.input());
    Method {
        path: format!("{}/{}", method.parent_service().full_name(), method.name()),
        comment: proto_text::comment(&method.parent_file(), method.path()).unwrap_or_default(),
        request: method.input().full_name().to_owned(),
        response: method.output().full_name().to_owned(),
        client_streaming: method.is_client_streaming(),
        server_streaming: method.is_server_streaming(),
        example: serde_json::from_str(&example_text).unwrap_or_default(),
        example_text,
    }
}

fn text(description: &Description) -> String {
    let mut text = description.proto.clone();
    for method in &description.methods {
        text.push_str(&format!("\n# Example request of {}\n", method.path));
        text.push_str(&json::pretty(&method.example_text));
        text.push('\n');
        text.push_str(&format!("# p2pctl rpc call {} '{}'\n", method.path, method.example_text));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe_own(target: &str) -> Result<Description, Failure> {
        describe(p2p_proto::DESCRIPTORS, &target.parse().expect("a target"))
    }

    #[test]
    fn a_method_reads_as_proto_with_comments_and_an_example_to_paste() {
        let description = describe_own("p2p.v1.SystemService/Echo").expect("known");
        assert_eq!(
            text(&description),
            r#"package p2p.v1;

// Facts about one node, and its settings. Every node provides it.
service SystemService {
  // Returns what it was sent, and who answered.
  rpc Echo(EchoRequest) returns (EchoResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}

message EchoRequest {
  string message = 1;
}

message EchoResponse {
  string message = 1;
  string node_id = 2;
}

# Example request of p2p.v1.SystemService/Echo
{
  "message": ""
}
# p2pctl rpc call p2p.v1.SystemService/Echo '{"message":""}'
"#
        );
    }

    #[test]
    fn a_service_shows_all_its_methods_and_every_message_once() {
        let description = describe_own("p2p.v1.ClusterService").expect("known");
        assert_eq!(description.methods.len(), 6);
        for once in ["message NodeInfo {", "enum MemberState {", "  optional double rtt_ms = 10;"] {
            assert_eq!(description.proto.matches(once).count(), 1, "{once}\n{}", description.proto);
        }
        assert!(description.proto.contains("map<string, string> labels = 6;"), "{}", description.proto);
        assert!(description.proto.contains("google.protobuf.Timestamp last_change = 11;"));
        assert!(!description.proto.contains("message google"), "{}", description.proto);
    }

    #[test]
    fn an_unknown_method_names_those_that_exist() {
        let failure = describe_own("p2p.v1.RpcService/Cal").err().expect("unknown");
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.message, "p2p.v1.RpcService has no method Cal. It has Call, Broadcast");
    }

    #[test]
    fn a_oneof_shows_as_such_and_its_example_sets_one_field() {
        let description = describe_own("p2p.v1.RpcService/Call").expect("known");
        assert!(
            description.proto.contains("  oneof payload {\n    // The request message as proto3 JSON.\n")
        );
        assert_eq!(description.methods[0].example_text, r#"{"method":"","node":"","json":""}"#);
    }
}
