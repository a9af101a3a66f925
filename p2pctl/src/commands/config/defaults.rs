//! `p2pctl config show-defaults`

use super::{default_of, effect, file::key};
use crate::{
    error::{Exit, Outcome},
    output::Output,
};
use clap::Args;
use p2p_node::config::{self, Key};
use serde::Serialize;
use serde_yaml::Value;

/// Columns of the explanations.
const WIDTH: usize = 100;

/// Explains every key of the configuration: its default, what it means, and how to choose a value
///
/// Use it to look a key up, or to start a file: what it prints is a valid configuration in which everything is
/// commented out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl config show-defaults
  p2pctl config show-defaults port shutdown_grace
  p2pctl config show-defaults -o json | jq -r '.items[].key'")]
pub(crate) struct ShowDefaultsArgs {
    /// Keys to explain; all if none is given
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
}

#[derive(Serialize)]
struct Explained {
    key: &'static str,
    /// Null where it is found when the node starts, as the meaning says.
    default: Value,
    expected: &'static str,
    meaning: &'static str,
    takes_effect: &'static str,
}

/// Runs the verb.
pub(super) fn run(args: &ShowDefaultsArgs, output: &Output) -> Outcome {
    let chosen: Vec<&'static Key> = match args.keys.as_slice() {
        [] => config::keys().iter().collect(),
        names => names.iter().map(|name| key(name)).collect::<Result<_, _>>()?,
    };
    let explained = |key: &&'static Key| Explained {
        key: key.name,
        default: default_of(key),
        expected: key.expected,
        meaning: key.doc,
        takes_effect: effect::word(key.takes_effect),
    };
    let items: Vec<Explained> = chosen.iter().map(explained).collect();
    if output.format().is_structured() {
        output.list("KeyList", &items, |_| crate::output::table::Table::default())?;
    } else {
        let text: Vec<String> = chosen.iter().map(|key| commented(key)).collect();
        output.data(&text.join("\n"))?;
    }
    Ok(Exit::Success)
}

/// The key as it would stand in a file, commented out, below its explanation.
fn commented(key: &Key) -> String {
    let mut text = String::new();
    let expected = format!("Expected: {}. Takes effect {}.", key.expected, effect::when(key.takes_effect));
    for paragraph in [key.doc, &expected] {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    let default = if key.default.is_empty() { String::new() } else { format!(" {}", key.default) };
    text + &format!("# {}:{default}\n", key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_explained_as_a_file_would_have_it() {
        let key = config::keys().iter().find(|key| key.name == "port").expect("a key");
        assert_eq!(
            commented(key),
            "# The one TCP port for everything: nodes, clients, metrics. Open it between all nodes. 0 lets the\n\
             # system choose, which suits tests.\n\
             # Expected: a whole number from 0 to 65535. Takes effect when the node is started.\n\
             # port: 8001\n"
        );
    }

    #[test]
    fn every_key_can_be_set_in_the_file_that_it_makes() {
        let file: String = config::keys().iter().map(commented).collect();
        for key in config::keys() {
            let line = format!("\n# {}:", key.name);
            assert_eq!(format!("\n{file}").matches(&line).count(), 1, "{}", key.name);
        }
        assert!(config::Config::from_yaml(&format!("node_id: a\n{file}"), "f").is_ok());
    }
}
