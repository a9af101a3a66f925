//! `p2pctl metrics`

mod exposition;

use super::http;
use crate::{
    error::{Exit, Failure, Outcome},
    output::Output,
    session::Session,
};
use clap::Args;
use exposition::Family;

/// Prints the metrics of one node, or one family of them
///
/// The text is what Prometheus scrapes. Use it to look at one number without a Prometheus at hand.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl metrics
  p2pctl metrics p2p_build_info
  p2pctl metrics p2p_build_info -o json")]
pub(crate) struct MetricsArgs {
    /// Only this family, as in p2p_build_info; _total, _bucket, _sum and _count may follow
    name: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: &MetricsArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let answer = http::get(session, "/metrics").await?;
    if !answer.status.is_success() {
        return Err(answer.failure("its metrics", session));
    }
    let families = exposition::parse(&answer.body);
    let chosen = match &args.name {
        Some(name) => vec![find(&families, name)?],
        None => families.iter().collect(),
    };
    if output.format().is_structured() {
        output.list("MetricList", &chosen, |_| crate::output::table::Table::default())?;
    } else {
        output.data(&chosen.iter().map(|family| family.text.as_str()).collect::<String>())?;
    }
    Ok(Exit::Success)
}

fn find<'a>(families: &'a [Family], name: &str) -> Result<&'a Family, Failure> {
    families.iter().find(|family| family.is_called(name)).ok_or_else(|| {
        let known = families.iter().map(|family| family.name.as_str());
        let hint = match p2p_core::suggest::nearest(name, known) {
            Some(near) => format!("Did you mean {near}?"),
            None => "`p2pctl metrics` prints all of them".to_owned(),
        };
        Failure::not_found(format!("the node has no metric {name}")).hint(&hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_metric_is_not_found_and_the_nearest_named() {
        let families = exposition::parse("# TYPE p2p_build_info gauge\np2p_build_info 1\n");
        let failure = find(&families, "p2p_bild_info").expect_err("unknown");
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.message, "the node has no metric p2p_bild_info. Did you mean p2p_build_info?");
    }
}
