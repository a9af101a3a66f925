//! Which names a new node's certificate carries beside its SPIFFE id.
//!
//! Nodes verify each other by SPIFFE id and need none of them; curl, browsers and `p2pctl` do. A node gets the
//! names that it asks for, unless they are somebody else's: a worker must not pass for the coordinator with a
//! client that goes by host names.

use crate::identity::San;
use std::{collections::BTreeSet, net::IpAddr};

/// Most names of one certificate.
pub const MAX_NAMES: usize = 16;
/// Longest sum of all names, in bytes.
pub const MAX_NAMES_LEN: usize = 2048;

/// What may be asked for.
#[derive(Debug)]
pub struct Names {
    /// Names and addresses that are other nodes'.
    pub taken: BTreeSet<San>,
    /// The address at which the node was reached: by the coordinator when it joined, by the others since.
    pub proven: Option<IpAddr>,
}

impl Names {
    /// Those of `asked` that are DNS names or IP addresses and nobody else's, each once; and the others, for
    /// the log.
    pub fn choose(&self, asked: &[String]) -> (Vec<San>, Vec<String>) {
        let (mut chosen, mut refused) =
            (self.proven.into_iter().map(San::Ip).collect::<BTreeSet<_>>(), Vec::new());
        let mut bytes = 0;
        for text in asked {
            match text.parse() {
                Ok(name) if chosen.contains(&name) => {}
                Ok(name)
                    if is_local(&name)
                        || !self.taken.contains(&name)
                            && chosen.len() < MAX_NAMES
                            && bytes + text.len() <= MAX_NAMES_LEN =>
                {
                    bytes += text.len();
                    chosen.insert(name);
                }
                Ok(_) | Err(_) if refused.len() < MAX_NAMES => {
                    refused.push(text.chars().take(64).collect());
                }
                Ok(_) | Err(_) => {}
            }
        }
        (chosen.into_iter().collect(), refused)
    }
}

/// Names of every host for itself.
fn is_local(name: &San) -> bool {
    match name {
        San::Dns(name) => name == "localhost",
        San::Ip(ip) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(taken: &[&str]) -> Names {
        let taken = taken.iter().map(|text| text.parse().unwrap()).collect();
        Names { taken, proven: Some([10, 0, 0, 7].into()) }
    }

    fn chosen(names: &Names, asked: &[&str]) -> Vec<String> {
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        names.choose(&asked).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_no_name_or_somebody_elses_is_left_out() {
        let names = names(&["coordinator-1", "10.0.0.1", "bank.example", "localhost", "127.0.0.1"]);
        let asked = [
            "w-1.example",
            "localhost",
            "127.0.0.1",
            "coordinator-1",
            "BANK.example",
            "10.0.0.1",
            "10.0.0.7",
            "spiffe://c/coordinator/c",
            "a b",
            "",
        ];
        assert_eq!(chosen(&names, &asked), ["localhost", "w-1.example", "10.0.0.7", "127.0.0.1"]);
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        let refused = names.choose(&asked).1;
        assert_eq!(
            refused,
            ["coordinator-1", "BANK.example", "10.0.0.1", "spiffe://c/coordinator/c", "a b", ""]
        );
    }

    #[test]
    fn names_are_bounded() {
        let asked: Vec<String> = (0..100).map(|n| format!("{n}.{}.example", "x".repeat(60))).collect();
        let (chosen, refused) = names(&[]).choose(&asked);
        assert_eq!((chosen.len(), refused.len()), (MAX_NAMES, MAX_NAMES));
    }
}
