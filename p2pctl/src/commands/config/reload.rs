//! `p2pctl config reload`, and what `set` and `unset` share of it.

use crate::{
    error::{Exit, Failure, Outcome},
    output::{Output, printable, progress::waiting},
    session::Session,
};
use clap::Args;
use p2p_proto::v1::ReloadResponse;
use serde::Serialize;

/// Has the running node read its configuration and certificates anew, all or nothing, and prints what came of it
///
/// Use it after a change of the node's file in place of a signal: it tells which keys are in force, which wait for a
/// restart, and each mistake for which nothing was taken over (exit code 1). The node reads its own file, on its own
/// host, with what its environment and --set override. It takes an admin, or the node's user over its socket.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config reload --dry-run
  p2pctl config reload
  p2pctl config reload -o json | jq -r '.needs_restart[]'")]
pub(crate) struct ReloadArgs {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

/// What a reload came to.
#[derive(Debug, Serialize)]
pub(super) struct Reload {
    /// The node's file, as it was told of it.
    file: String,
    dry_run: bool,
    accepted: bool,
    applied: Vec<String>,
    needs_restart: Vec<String>,
    certificates_replaced: bool,
    mistakes: Vec<String>,
}

/// Runs the verb.
pub(super) async fn run(args: &ReloadArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let reload = ask(session, args.dry_run).await?;
    output.object("ConfigReload", &reload, |_| reload.text())?;
    reload.advise(output);
    Ok(reload.exit())
}

/// Has the session's node read its configuration anew.
pub(super) async fn ask(session: &Session<'_>, dry_run: bool) -> Result<Reload, Failure> {
    let connection = session.connect().await?;
    let answer = waiting("the node reads its configuration", connection.reload(dry_run))
        .await
        .map_err(|error| session.call_failure(&error))?;
    Ok(Reload::new(answer, dry_run))
}

impl Reload {
    fn new(answer: ReloadResponse, dry_run: bool) -> Self {
        Self {
            file: answer.file,
            dry_run,
            accepted: answer.accepted,
            applied: answer.applied,
            needs_restart: answer.needs_restart,
            certificates_replaced: answer.certificates,
            mistakes: answer.mistakes,
        }
    }

    /// A line for each key or mistake.
    pub(super) fn text(&self) -> String {
        if !self.accepted {
            return self.mistakes.iter().map(|why| format!("refused: {}\n", printable(why))).collect();
        }
        let would = if self.dry_run { "would be " } else { "" };
        let applied = self.applied.iter().map(|key| format!("{would}applied: {key}\n"));
        let certificates = self.certificates_replaced.then(|| format!("{would}replaced: the certificates\n"));
        let waiting = self.needs_restart.iter().map(|key| format!("waits for a restart: {key}\n"));
        let lines: String = applied.chain(certificates).chain(waiting).collect();
        if lines.is_empty() { "unchanged: the node has all that its file says\n".to_owned() } else { lines }
    }

    /// What to do next, where something is.
    pub(super) fn advise(&self, output: &Output) {
        if !self.accepted {
            output.note("The node goes on with what it had. Mend its file, and reload again.");
        } else if !self.needs_restart.is_empty() {
            output.note("Start the node again for what waits, as in `systemctl restart p2p-node`.");
        }
    }

    pub(super) fn accepted(&self) -> bool {
        self.accepted
    }

    pub(super) fn exit(&self) -> Exit {
        if self.accepted { Exit::Success } else { Exit::Failure }
    }

    /// Whether the node has noticed another value of `key` in what it read.
    pub(super) fn names(&self, key: &str) -> bool {
        self.applied.iter().chain(&self.needs_restart).any(|name| name == key)
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_each_mistake_has_its_line() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        let answer = ReloadResponse {
            accepted: true,
            applied: keys(&["calls_max", "zone"]),
            needs_restart: keys(&["port"]),
            certificates: true,
            ..ReloadResponse::default()
        };
        let done = Reload::new(answer.clone(), false);
        assert_eq!(
            done.text(),
            "applied: calls_max\napplied: zone\nreplaced: the certificates\nwaits for a restart: port\n"
        );
        assert!(Reload::new(answer, true).text().starts_with("would be applied: calls_max\n"));
        assert!(done.names("port") && done.names("zone") && !done.names("labels"));
        let nothing = ReloadResponse { accepted: true, ..ReloadResponse::default() };
        assert_eq!(Reload::new(nothing, false).text(), "unchanged: the node has all that its file says\n");
        let refused =
            ReloadResponse { mistakes: keys(&["n.yaml:1: a", "n.yaml:2: b"]), ..Default::default() };
        let refused = Reload::new(refused, false);
        assert_eq!(refused.text(), "refused: n.yaml:1: a\nrefused: n.yaml:2: b\n");
        assert_eq!(refused.exit(), Exit::Failure);
    }
}
