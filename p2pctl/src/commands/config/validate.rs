//! `p2pctl config validate`

use super::file::FileOption;
use crate::{
    error::{Exit, Outcome},
    output::Output,
};
use clap::Args;
use p2p_node::config::{Config, ConfigError, Origin};
use serde::Serialize;

/// Checks a configuration file as the node does at its start
///
/// Use it before a restart, and where files are made by other programs: all mistakes come at once, each with its line
/// and what is expected instead; exit code 1 if there are any. `p2p-node --check` looks at the environment and --set
/// as well.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config validate --file config/worker.yaml
  p2pctl config validate --file config/coordinator.yaml -o json")]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    file: FileOption,
}

#[derive(Serialize)]
struct Validation {
    file: String,
    valid: bool,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    /// From 1; null for the file as a whole.
    line: Option<u64>,
    key: Option<String>,
    message: String,
    #[serde(skip)]
    shown: String,
}

impl From<&ConfigError> for Problem {
    fn from(error: &ConfigError) -> Self {
        let line = match &error.origin {
            Origin::File { line, .. } => Some(*line).filter(|line| *line > 0),
            Origin::Env(_) | Origin::Set => None,
        };
        Self { line, key: error.key.clone(), message: error.problem.to_string(), shown: error.to_string() }
    }
}

/// Runs the verb.
pub(super) fn run(args: &ValidateArgs, output: &Output) -> Outcome {
    let file = args.file.read()?;
    let errors = Config::from_yaml(&file.text, &file.name()).err().map(|errors| errors.errors);
    let problems: Vec<Problem> = errors.iter().flatten().map(Problem::from).collect();
    let validation = Validation { file: file.name(), valid: problems.is_empty(), problems };
    output.object("ConfigValidation", &validation, |_| {
        if validation.valid {
            return format!("{}: the configuration is valid\n", validation.file);
        }
        validation.problems.iter().map(|problem| crate::output::printable(&problem.shown) + "\n").collect()
    })?;
    Ok(if validation.valid { Exit::Success } else { Exit::Failure })
}
