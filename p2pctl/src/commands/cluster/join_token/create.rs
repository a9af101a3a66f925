//! `p2pctl cluster join-token create`

use crate::{
    error::{Exit, Outcome},
    output::{
        Output,
        time::{relative, unix_now},
    },
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_core::{NodeId, Role, grant::Grant};
use p2p_proto::v1::{CreateJoinTokenRequest, JoinTokenInfo};
use serde::Serialize;
use std::time::Duration;

/// Makes a join token at a coordinator and prints it, alone, on stdout
///
/// Use it to let a new host join without copying keys: start its node with --join TOKEN. The token is a
/// secret until it is used up: whoever has it can join as it says. Pass it on as you would a password, and
/// bind it to one node where you can.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster join-token create
  p2pctl cluster join-token create --node worker-3 --ttl 15m
  p2pctl cluster join-token create --allow-service 'shop.*' --uses 10
  p2pctl cluster join-token create --node worker-3 --replace
  p2pctl cluster join-token create --role coordinator --node c-2
  p2pctl cluster join-token create | ssh host \\
      'p2p-node --config worker.yaml --join -'")]
pub(crate) struct CreateArgs {
    /// Role of the nodes that join: worker, or coordinator, which gets a CA of its own
    #[arg(long, value_name = "ROLE", default_value = "worker")]
    role: Role,
    /// The only node that may join with it; any otherwise
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Service that the nodes may provide, as in shop.Orders or 'shop.*'; all but p2p. and grpc. otherwise
    #[arg(long = "allow-service", value_name = "GLOB")]
    allow_services: Vec<String>,
    /// How long it can be used, as in 15m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// How many nodes may join with it
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// Let it take over the id of a node whose certificate is still valid
    #[arg(long)]
    replace: bool,
}

/// What scripts see.
#[derive(Serialize)]
struct Created<'a> {
    token: &'a str,
    #[serde(flatten)]
    info: &'a JoinTokenInfo,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = p2p_node::config::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < Duration::from_secs(1) {
        Err("write a time of at least 1s, as in 1h".to_owned())
    } else {
        Ok(ttl)
    }
}

/// Runs the verb.
pub(crate) async fn run(args: &CreateArgs, session: &Session<'_>, output: &Output) -> Outcome {
    Grant::parse(&args.allow_services).map_err(|error| crate::error::Failure::usage(error.to_string()))?;
    let request = CreateJoinTokenRequest {
        role: args.role.to_string(),
        node_id: args.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        allow_services: args.allow_services.clone(),
        ttl_seconds: args.ttl.as_secs(),
        uses: args.uses,
        replace: args.replace,
    };
    let make = async |connection: &Connection| connection.create_join_token(request.clone()).await;
    let created = session.at_coordinator(output, make).await?;
    let info = created.info.unwrap_or_default();
    output.note(&hint(&info, unix_now()));
    let body = Created { token: &created.token, info: &info };
    output.object("JoinToken", &body, |_| format!("{}\n", created.token))?;
    Ok(Exit::Success)
}

fn hint(info: &JoinTokenInfo, now: i64) -> String {
    let who = match (info.node_id.as_str(), info.uses) {
        ("", 1) => "one node".to_owned(),
        ("", uses) => format!("{uses} nodes"),
        (node, _) => format!("node {node}"),
    };
    format!(
        "{who} can join with it as {}, it expires {}; start each with: p2p-node --config FILE --join TOKEN\n\
         It is a secret. To take it back: p2pctl cluster join-token revoke {}",
        info.role,
        relative(info.expires_at.as_ref(), now),
        info.id
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::Timestamp;

    #[test]
    fn the_hint_says_who_may_join_until_when() {
        let expires_at = Some(Timestamp { seconds: 3_700, nanos: 0 });
        let info = JoinTokenInfo {
            id: "ab".into(),
            role: "worker".into(),
            uses: 1,
            expires_at,
            ..Default::default()
        };
        assert_eq!(
            hint(&info, 100),
            "one node can join with it as worker, it expires in 1h; start each with: p2p-node --config FILE --join \
             TOKEN\nIt is a secret. To take it back: p2pctl cluster join-token revoke ab"
        );
        let bound = JoinTokenInfo { node_id: "w-3".into(), ..info.clone() };
        assert!(hint(&bound, 100).starts_with("node w-3 can join"));
        assert!(hint(&JoinTokenInfo { uses: 7, ..info }, 100).starts_with("7 nodes can join"));
    }
}
