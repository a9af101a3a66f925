//! `p2pctl context list`

use crate::{
    context::{Context, Contexts},
    error::{Exit, Outcome},
    output::{Output, table::Table},
};
use clap::Args;
use serde::Serialize;

/// Lists the contexts: what p2pctl can connect with
///
/// Use it to see which clusters this user administers. `p2pctl dev` and `p2pctl certs generate` write contexts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl context list
  p2pctl context list -o json | jq -r '.items[].name'")]
pub(crate) struct ListArgs {}

#[derive(Serialize)]
struct Item<'a> {
    current: bool,
    #[serde(flatten)]
    context: &'a Context,
}

/// Runs the verb.
pub(super) fn run(output: &Output) -> Outcome {
    let contexts = Contexts::load()?;
    let is_current = |context: &Context| contexts.current.as_ref() == Some(&context.name);
    let items = contexts.contexts.iter().map(|context| Item { current: is_current(context), context });
    let items: Vec<Item<'_>> = items.collect();
    output.list("ContextList", &items, |_| {
        let mut table = Table::new(&["CURRENT", "NAME", "ENDPOINT", "CA", "CERT"]);
        for Item { current, context } in &items {
            let path = |path: &Option<std::path::PathBuf>| {
                path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
            };
            table.row(vec![
                if *current { "*" } else { " " }.into(),
                context.name.as_str().into(),
                context.endpoint.clone().unwrap_or_default().into(),
                path(&context.ca).into(),
                path(&context.cert).into(),
            ]);
        }
        table
    })?;
    if items.is_empty() {
        output.note("No contexts yet: `p2pctl dev` and `p2pctl certs generate` write them.");
    }
    Ok(Exit::Success)
}
