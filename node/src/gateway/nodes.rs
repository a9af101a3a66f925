//! `GET /cluster/nodes`: the members, filtered and in pages.
//!
//! `?state=alive,suspect&role=worker&limit=100&after=NODE_ID`: each may be left out. A page that is not the last has `next`,
//! the `after` of the next one.

use crate::error::{Fault, Reason};
use p2p_core::Role;
use p2p_proto::v1::{MemberState, NodeInfo};
use serde_json::{Value, json};

/// Most members of one page, and how many there are where the client does not say.
const PAGE_MAX: usize = 1000;
const STATES: [MemberState; 4] =
    [MemberState::Alive, MemberState::Suspect, MemberState::Down, MemberState::Left];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    states: Vec<MemberState>,
    roles: Vec<Role>,
    limit: usize,
    after: Option<String>,
}

impl Query {
    /// Reads the query of a URL.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] that names what is wrong, also for a name that nobody knows: a filter that is not
    /// heeded would show what was not asked for.
    pub(super) fn parse(query: &str) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::new(Reason::InvalidArgument, why);
        let mut parsed = Self { states: Vec::new(), roles: Vec::new(), limit: PAGE_MAX, after: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "state" => {
                    parsed.states =
                        words(&value, |word| STATES.into_iter().find(|state| state.word() == word)).map_err(
                            |word| wrong(format!("state {word:?}: write alive, suspect, down or left")),
                        )?
                }
                "role" => {
                    parsed.roles =
                        words(&value, |word| word.parse().ok().filter(|role: &Role| role.is_node()))
                            .map_err(|word| wrong(format!("role {word:?}: write coordinator or worker")))?
                }
                "limit" => {
                    parsed.limit =
                        value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(
                            || wrong(format!("limit {value:?}: write a number from 1 to {PAGE_MAX}")),
                        )?;
                }
                "after" => parsed.after = Some(value.into_owned()),
                _ => {
                    return Err(wrong(format!(
                        "{name:?} is no parameter; there are state, role, limit and after"
                    )));
                }
            }
        }
        Ok(parsed)
    }

    fn means(&self, node: &NodeInfo) -> bool {
        let role = |role: &Role| role.to_string() == node.role;
        (self.states.is_empty() || self.states.contains(&node.state()))
            && (self.roles.is_empty() || self.roles.iter().any(role))
    }

    /// One page of `nodes`, which are sorted by their ids.
    pub(super) fn page(&self, nodes: Vec<NodeInfo>) -> Value {
        let begins = |node: &NodeInfo| self.after.as_ref().is_none_or(|after| node.node_id > *after);
        let mut fitting = nodes.into_iter().filter(|node| begins(node) && self.means(node));
        let items: Vec<NodeInfo> = fitting.by_ref().take(self.limit).collect();
        let mut list = json!({"schema": "p2pctl/v1", "kind": "NodeList", "items": items});
        if let Some(last) = items.last().filter(|_| fitting.next().is_some()) {
            list["next"] = json!(last.node_id);
        }
        list
    }
}

/// The words of a list with commas, or the first that is none.
fn words<T>(list: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    list.split(',').map(|word| read(word.trim()).ok_or_else(|| word.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<NodeInfo> {
        let node = |id: &str, role: &str, state: MemberState| NodeInfo {
            node_id: id.to_owned(),
            role: role.to_owned(),
            state: state.into(),
            ..NodeInfo::default()
        };
        vec![
            node("a", "coordinator", MemberState::Alive),
            node("b", "worker", MemberState::Down),
            node("c", "worker", MemberState::Alive),
            node("d", "worker", MemberState::Suspect),
        ]
    }

    fn ask(query: &str) -> (Vec<String>, Option<String>) {
        let page = Query::parse(query).expect("a query").page(nodes());
        let items = page["items"].as_array().expect("items").iter();
        let ids = items.filter_map(|item| item["node_id"].as_str()).map(str::to_owned).collect();
        (ids, page["next"].as_str().map(str::to_owned))
    }

    #[test]
    fn members_are_filtered_by_role_and_state() {
        assert_eq!(ask("").0, ["a", "b", "c", "d"]);
        assert_eq!(ask("role=worker&state=alive").0, ["c"]);
        assert_eq!(ask("state=alive%2Csuspect").0, ["a", "c", "d"]);
        assert_eq!(ask("state=left").0, Vec::<String>::new());
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let query = after.as_ref().map_or("limit=2".to_owned(), |after| format!("limit=2&after={after}"));
            let (page, next) = ask(&query);
            seen.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d"]);
        assert_eq!(ask("limit=4").1, None, "the last page says so");
        assert_eq!(ask("role=worker&limit=3").1, None, "and what is filtered out does not make another");
    }

    #[test]
    fn a_query_that_is_none_is_refused() {
        for (query, why) in [
            ("state=well", "alive, suspect, down or left"),
            ("role=admin", "coordinator or worker"),
            ("limit=0", "1 to 1000"),
            ("limit=1001", "1 to 1000"),
            ("stat=alive", "no parameter"),
        ] {
            let fault = Query::parse(query).expect_err(query);
            assert!(fault.reason == Reason::InvalidArgument && fault.message.contains(why), "{fault}");
        }
    }
}
