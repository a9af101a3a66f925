//! `p2pctl ca rotate`

use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Output,
        table::{Cell, Table, Tone},
    },
    session::Session,
};
use clap::Args;
use p2p_client::Connection;
use p2p_core::NodeId;
use p2p_proto::v1::{RotateCaAction, RotateCaRequest, RotateCaStatus, RotationStep};
use serde::Serialize;
use std::time::Duration;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Replaces the root of the cluster without an outage, step by step
///
/// Use it when the root's end comes near or its key may be known to others, at the coordinator that holds that
/// key. Every member first trusts both roots, then gets a certificate below the new one, then the old root is
/// dropped. It can be interrupted and run again: it goes on where it was. Members that are away are waited for;
/// those named with --force are not, and may have to join again. Back the new CA up afterwards.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl ca rotate
  p2pctl ca rotate --no-wait
  p2pctl ca rotate --status
  p2pctl ca rotate --force worker-7 --force worker-8")]
pub(crate) struct RotateArgs {
    /// Node that is not waited for; repeat for more
    #[arg(long = "force", value_name = "NODE")]
    force: Vec<NodeId>,
    /// Go as far as possible now, and say whom it waits for
    #[arg(long)]
    no_wait: bool,
    /// Only say how it stands
    #[arg(long, conflicts_with_all = ["force", "no_wait"])]
    status: bool,
}

/// What scripts see.
#[derive(Serialize)]
struct Shown<'a> {
    step: &'a str,
    waiting_for: &'a [String],
    bundle_serial: u64,
}

/// Runs the verb.
pub(crate) async fn run(args: &RotateArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let mut action = if args.status { RotateCaAction::Look } else { RotateCaAction::Begin };
    let mut told = String::new();
    loop {
        // A connection for each look: the coordinator's certificate changes meanwhile.
        let status = ask(args, action, session, output).await?;
        let done =
            matches!(status.step(), RotationStep::Done | RotationStep::Idle | RotationStep::Unspecified);
        if done || args.no_wait || args.status {
            return show(&status, output);
        }
        // From now on nothing is begun: the last answer may be lost.
        action = RotateCaAction::GoOn;
        let line = progress(&status);
        if line != told {
            output.note(&line);
            told = line;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ask(
    args: &RotateArgs,
    action: RotateCaAction,
    session: &Session<'_>,
    output: &Output,
) -> Result<RotateCaStatus, Failure> {
    let force_nodes = args.force.iter().map(ToString::to_string).collect();
    let request = RotateCaRequest { action: action.into(), force_nodes };
    let rotate = async |connection: &Connection| connection.rotate_ca(request.clone()).await;
    session.at_coordinator(output, rotate).await
}

fn word(step: RotationStep) -> &'static str {
    match step {
        RotationStep::Unspecified | RotationStep::Idle => "idle",
        RotationStep::Spreading => "spreading",
        RotationStep::Reissuing => "reissuing",
        RotationStep::Done => "done",
    }
}

fn progress(status: &RotateCaStatus) -> String {
    let what = match status.step() {
        RotationStep::Unspecified | RotationStep::Idle => "No rotation is under way",
        RotationStep::Spreading => "Both roots are spreading; not yet trusted by",
        RotationStep::Reissuing => "The new root issues; no certificate below it yet:",
        RotationStep::Done => "The old root is dropped",
    };
    match status.waiting_for.is_empty() {
        true => what.to_owned(),
        false => format!("{what} {}", status.waiting_for.join(", ")),
    }
}

fn show(status: &RotateCaStatus, output: &Output) -> Outcome {
    let shown =
        Shown { step: word(status.step()), waiting_for: &status.waiting_for, bundle_serial: status.serial };
    if status.step() == RotationStep::Done {
        output.note(
            "The old root is dropped. Back the new CA up (p2pctl ca backup --out FILE), give clients the new \
             ca_cert.pem, and admins new certificates (p2pctl certs generate, where the CA's key is).",
        );
    }
    output.object("CaRotation", &shown, |output| {
        let tone = if status.waiting_for.is_empty() { Tone::Good } else { Tone::Warn };
        let mut lines = Table::lines("");
        lines.row(vec!["step".into(), Cell::new(shown.step, tone)]);
        lines.row(vec!["waiting for".into(), status.waiting_for.join(", ").into()]);
        lines.row(vec!["bundle serial".into(), status.serial.to_string().into()]);
        output.render(&lines)
    })?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_the_step_and_whom_it_waits_for() {
        let status = |step: RotationStep, nodes: &[&str]| RotateCaStatus {
            step: step.into(),
            waiting_for: nodes.iter().map(ToString::to_string).collect(),
            serial: 1,
        };
        assert_eq!(
            progress(&status(RotationStep::Spreading, &["w-1", "w-2"])),
            "Both roots are spreading; not yet trusted by w-1, w-2"
        );
        assert_eq!(
            progress(&status(RotationStep::Reissuing, &["w-1"])),
            "The new root issues; no certificate below it yet: w-1"
        );
        assert_eq!(progress(&status(RotationStep::Done, &[])), "The old root is dropped");
    }
}
