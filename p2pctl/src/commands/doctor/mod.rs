//! `p2pctl doctor`: what will go wrong, before it does.
//!
//! | file | what it holds |
//! |---|---|
//! | `expiry` | certificates that end soon: those of the nodes, and the local files that were named |
//! | `local` | files of whoever asks |
//! | `versions` | nodes of different releases |
//! | `survey` | every node asked by itself: its clock, what it finds wrong, whom it reaches |
//! | `clocks` `legs` | what only the answers of all nodes show together |
//!
//! A check is a function from what was asked for to findings; [`run`] lists them. What a node finds at itself comes from its
//! `SystemService/Examine`.

mod clocks;
mod expiry;
mod legs;
mod local;
mod survey;
mod versions;

use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Output,
        progress::waiting,
        table::{Cell, Table, Tone},
        time::unix_now,
    },
    session::Session,
};
use clap::Args;
use p2p_proto::v1::NodeInfo;
use serde::Serialize;
use std::{borrow::Cow, time::Duration};

/// Looks for what is wrong, or will go wrong soon, and says what to do about it
///
/// Use it in cron: exit code 0 means no findings, 6 means that some are listed, each with the reason and the
/// command that mends it. It looks at certificates that end soon, those of all nodes and the files of --ca and --cert;
/// at nodes of different releases; and asks each node, at its own address and as an admin, for its clock, which members
/// it reaches, and what it finds wrong with itself: its configuration file against what is in force, its state directory,
/// file permissions, the limit of open files, another holder of its id, a CA that was never backed up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl doctor
  p2pctl doctor --expires-within 14d
  p2pctl doctor --expires-within 90d -o json | jq -r \\
      '.items[] | \"\\(.subject): \\(.mend)\"'")]
pub(crate) struct DoctorArgs {
    /// How long a certificate must still be valid, as in 14d or 12h; if not given, 7d for those of nodes, which renew
    /// them ten days before the end or earlier, and 30d for files
    #[arg(long, value_name = "TIME", value_parser = within)]
    expires_within: Option<Duration>,
}

/// How long certificates must still be valid where nobody says it: of nodes, and in files.
const NODES_WITHIN: Duration = Duration::from_secs(7 * 86_400);
const FILES_WITHIN: Duration = Duration::from_secs(30 * 86_400);

fn within(text: &str) -> Result<Duration, String> {
    p2p_node::config::parse_duration(text).map_err(|error| error.to_string())
}

/// One thing that is wrong, or will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Which check found it.
    check: Cow<'static, str>,
    /// The node or file.
    subject: String,
    /// What is so.
    what: String,
    /// Why it matters.
    why: Cow<'static, str>,
    /// What to do, with the command.
    mend: String,
}

impl From<&p2p_proto::v1::Finding> for Finding {
    fn from(found: &p2p_proto::v1::Finding) -> Self {
        Self {
            check: found.check.clone().into(),
            subject: found.subject.clone(),
            what: found.what.clone(),
            why: found.why.clone().into(),
            mend: found.mend.clone(),
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(args: &DoctorArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let now = unix_now();
    let mut findings = expiry::of_files(session.global(), args.expires_within.unwrap_or(FILES_WITHIN), now)?;
    findings.extend(session.global().key.as_deref().and_then(local::readable_key));
    match of_cluster(args, session, output, now).await {
        Ok(found) => findings.extend(found),
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

/// What the nodes show, each and together.
async fn of_cluster(
    args: &DoctorArgs,
    session: &Session<'_>,
    output: &Output,
    now: i64,
) -> Result<Vec<Finding>, Failure> {
    let entry = session.connect().await?;
    let nodes: Vec<NodeInfo> = entry.list_nodes().await.map_err(|error| session.call_failure(&error))?;
    let mut findings = expiry::of_nodes(&nodes, args.expires_within.unwrap_or(NODES_WITHIN), now);
    findings.extend(versions::mixed(&nodes));
    let survey = survey::survey(session, &entry, &nodes);
    let survey = waiting("asking every node", survey).await?;
    if !survey.closed.is_empty() {
        output.note(&format!(
            "Not examined, because that takes an admin's --cert and --key: {}",
            survey.closed.join(", ")
        ));
    }
    findings.extend(clocks::apart(&survey.clocks()));
    findings.extend(legs::broken(&survey.seen()));
    findings.extend(survey.findings);
    Ok(findings)
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
        lines.row(vec!["  why".into(), finding.why.as_ref().into()]);
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
            check: "certificate_expiry".into(),
            subject: subject.to_owned(),
            what: "its certificate expires".to_owned(),
            why: "it matters".into(),
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
