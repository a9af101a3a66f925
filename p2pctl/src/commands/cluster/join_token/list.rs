//! `p2pctl cluster join-token list`

use crate::{
    error::{Exit, Outcome},
    output::{
        Detail, Output,
        table::{Cell, Table, Tone},
        time::{relative, unix_now},
    },
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_proto::v1::{JoinTokenInfo, JoinTokenState};

/// Lists the join tokens of the coordinator that answers, without their secrets
///
/// Use it to see who may still join, who has joined with which token, and why a token is refused. Tokens
/// are shown for a day after they end. Each coordinator knows its own only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl cluster join-token list
  p2pctl cluster join-token list -o wide
  p2pctl cluster join-token list -o json | jq -r \\
      '.items[] | select(.state == \"valid\").id'")]
pub(crate) struct ListArgs {}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, output: &Output) -> Outcome {
    let list = async |connection: &Connection| connection.list_join_tokens().await;
    let tokens = session.at_coordinator(output, list).await?;
    output.list("JoinTokenList", &tokens, |detail| table(&tokens, detail, unix_now()))?;
    Ok(Exit::Success)
}

fn table(tokens: &[JoinTokenInfo], detail: Detail, now: i64) -> Table {
    let mut header = vec!["ID", "ROLE", "NODE", "STATE", "USES LEFT", "EXPIRES", "JOINED"];
    if detail == Detail::Wide {
        header.extend(["SERVICES", "REPLACE", "CREATED", "CREATED BY"]);
    }
    let mut table = Table::new(&header);
    for token in tokens {
        let mut row: Vec<Cell> = vec![
            token.id.as_str().into(),
            token.role.as_str().into(),
            token.node_id.as_str().into(),
            Cell::new(token.state().word(), tone(token.state())),
            format!("{}/{}", token.uses_left, token.uses).into(),
            relative(token.expires_at.as_ref(), now).into(),
            token.joined.join(",").into(),
        ];
        if detail == Detail::Wide {
            row.extend::<[Cell; 4]>([
                token.allow_services.join(",").into(),
                if token.replace { "yes" } else { "" }.into(),
                relative(token.created_at.as_ref(), now).into(),
                token.created_by.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

fn tone(state: JoinTokenState) -> Tone {
    match state {
        JoinTokenState::Valid => Tone::Good,
        JoinTokenState::Used | JoinTokenState::Expired => Tone::Dim,
        JoinTokenState::Revoked => Tone::Warn,
        JoinTokenState::Unspecified => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::Timestamp;

    #[test]
    fn the_table_shows_each_token_and_the_json_its_words() {
        let token = JoinTokenInfo {
            id: "0a".repeat(16),
            role: "worker".into(),
            state: JoinTokenState::Used.into(),
            uses: 1,
            expires_at: Some(Timestamp { seconds: 4_600, nanos: 0 }),
            joined: vec!["w-3".into()],
            ..JoinTokenInfo::default()
        };
        assert_eq!(
            table(std::slice::from_ref(&token), Detail::Normal, 1_000).render(false),
            "\
ID                                ROLE    NODE  STATE  USES LEFT  EXPIRES  JOINED
0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a  worker  -     used   0/1        in 1h    w-3
"
        );
        let json = serde_json::to_string(&token).expect("serializes");
        assert!(
            json.contains(r#""state":"used","uses_left":0,"uses":1,"expires_at":"1970-01-01T01:16:40Z""#),
            "{json}"
        );
    }
}
