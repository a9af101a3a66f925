//! `p2pctl doctor`: what will go wrong, before it does.
//!
//! | file | what it holds |
//! |---|---|
//! | `expiry` | certificates that end soon: those of the nodes, and the local files that were named |
//!
//! A check is a function from what was asked for to findings; [`run`] lists them.

mod expiry;

use crate::{
    error::{Exit, Outcome},
    output::{
        Output,
        table::{Cell, Table, Tone},
        time::unix_now,
    },
    session::Session,
};
use clap::Args;
use serde::Serialize;
use std::time::Duration;

/// Looks for what will go wrong soon, and says what to do about it
///
/// Use it in cron: exit code 0 means no findings, 6 means that some are listed, each with the reason and the
/// command that mends it. It asks the connected node for the certificates of all nodes, and looks at the files of
/// --ca and --cert. Nodes renew certificates of join tokens by themselves ten days before the end; where they
/// all have such, ask for 7d.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl doctor
  p2pctl doctor --expires-within 7d
  p2pctl doctor --expires-within 90d -o json | jq -r \\
      '.items[] | \"\\(.subject): \\(.mend)\"'")]
pub(crate) struct DoctorArgs {
    /// How long a certificate must still be valid, as in 7d or 12h
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = within)]
    expires_within: Duration,
}

fn within(text: &str) -> Result<Duration, String> {
    p2p_node::config::parse_duration(text).map_err(|error| error.to_string())
}

/// One thing that is wrong, or will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Which check found it.
    check: &'static str,
    /// The node or file.
    subject: String,
    /// What is so.
    what: String,
    /// Why it matters.
    why: &'static str,
    /// What to do, with the command.
    mend: String,
}

/// Runs the verb.
pub(crate) async fn run(args: &DoctorArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let now = unix_now();
    let mut findings = expiry::of_files(session.global(), args.expires_within, now)?;
    let nodes = async {
        let connection = session.connect().await?;
        connection.list_nodes().await.map_err(|error| session.call_failure(&error))
    };
    match nodes.await {
        Ok(nodes) => findings.extend(expiry::of_nodes(&nodes, args.expires_within, now)),
        Err(failure) => {
            // A file that has expired may be why nobody answers.
            if !findings.is_empty() {
                print(&findings, output)?;
            }
            return Err(failure);
        }
    }
    print(&findings, output)?;
    Ok(exit(&findings))
}

fn exit(findings: &[Finding]) -> Exit {
    if findings.is_empty() { Exit::Success } else { Exit::Degraded }
}

fn print(findings: &[Finding], output: &Output) -> Outcome {
    if output.format().is_structured() {
        output.list("Findings", findings, |_| Table::default())?;
    } else {
        output.data(&text(findings, output))?;
    }
    Ok(exit(findings))
}

fn text(findings: &[Finding], output: &Output) -> String {
    if findings.is_empty() {
        return "no findings\n".to_owned();
    }
    let block = |finding: &Finding| {
        let mut lines = Table::lines("");
        lines.row(vec![finding.subject.as_str().into(), Cell::new(finding.what.as_str(), Tone::Warn)]);
        lines.row(vec!["  why".into(), finding.why.into()]);
        lines.row(vec!["  mend".into(), finding.mend.as_str().into()]);
        output.render(&lines)
    };
    findings.iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn each_finding_says_what_why_and_how_to_mend_it() {
        let output = Output::new(Format::Table);
        assert_eq!((text(&[], &output).as_str(), exit(&[])), ("no findings\n", Exit::Success));
        let finding = |subject: &str| Finding {
            check: "certificate_expiry",
            subject: subject.to_owned(),
            what: "its certificate expires".to_owned(),
            why: "it matters",
            mend: "p2pctl certs generate".to_owned(),
        };
        let findings = [finding("w-1"), finding("worker-2")];
        assert_eq!(exit(&findings), Exit::Degraded);
        assert_eq!(
            text(&findings, &output),
            "\
w-1     its certificate expires
  why   it matters
  mend  p2pctl certs generate

worker-2  its certificate expires
  why     it matters
  mend    p2pctl certs generate
"
        );
    }

    #[test]
    fn the_time_reads_as_configuration_files_write_it() {
        assert_eq!(within("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["", "d", "-1d", "1w", "30 d"] {
            assert!(within(bad).is_err(), "{bad:?}");
        }
    }
}
