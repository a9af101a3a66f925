//! `p2pctl rpc list`

use crate::{
    error::{Exit, Outcome},
    output::{
        Detail, Output,
        table::{Cell, Table, Tone},
    },
    session::Session,
};
use clap::Args;
use p2p_proto::v1::MethodInfo;

/// Lists every method that the cluster serves, and which nodes provide it
///
/// Use it to find what can be called and how to write its name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl rpc list
  p2pctl rpc list -o json | jq -r '.items[].path'")]
pub(crate) struct ListArgs {}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let methods = connection.list_methods().await.map_err(|error| session.call_failure(&error))?;
    output.list("MethodList", &methods, |detail| table(&methods, detail))?;
    Ok(Exit::Success)
}

/// More providers than that are counted, but for those who want it wide.
const NAMED: usize = 2;

fn table(methods: &[MethodInfo], detail: Detail) -> Table {
    let mut table = Table::new(&["METHOD", "KIND", "PROVIDERS"]);
    for method in methods {
        let providers = match method.providers.len() {
            0 => Cell::new("none", Tone::Warn),
            count if count > NAMED && detail == Detail::Normal => format!("{count} nodes").into(),
            _ => method.providers.join(",").into(),
        };
        table.row(vec![method.path.as_str().into(), method.streaming().word().into(), providers]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::StreamingKind;

    #[test]
    fn methods_stand_with_their_kind_and_providers() {
        let method = |path: &str, streaming: StreamingKind, providers: &[&str]| MethodInfo {
            path: path.into(),
            streaming: streaming.into(),
            providers: providers.iter().map(|&node| node.to_owned()).collect(),
            ..MethodInfo::default()
        };
        let methods = [
            method("demo.v1.Greeter/SayHello", StreamingKind::Unary, &["worker-1", "worker-2"]),
            method("demo.v1.Greeter/Watch", StreamingKind::Server, &[]),
        ];
        assert_eq!(
            table(&methods, Detail::Normal).render(false),
            "\
METHOD                    KIND              PROVIDERS
demo.v1.Greeter/SayHello  unary             worker-1,worker-2
demo.v1.Greeter/Watch     server_streaming  none
"
        );
    }
}
