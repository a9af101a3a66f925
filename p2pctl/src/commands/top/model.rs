//! What is known of the cluster. Pure: updates come in, what is drawn reads it.

use super::history::{History, Rates};
use p2p_proto::v1::{ClusterStatus, Evidence, GetMetricsResponse, MemberState, NodeInfo, ServiceInfo};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

/// How many events are kept.
const EVENTS: usize = 500;

/// News of the cluster.
#[derive(Debug)]
pub(super) enum Update {
    /// The cluster in sum.
    Status(ClusterStatus),
    /// Its members.
    Members(Vec<NodeInfo>),
    /// Its services.
    Services(Vec<ServiceInfo>),
    /// What a node answered of itself, or why it did not.
    Node { node: String, at: Instant, answer: Result<Box<GetMetricsResponse>, String> },
    /// What was kept of events before is told again.
    EventsAnew,
    /// Something was learned of a member.
    Event(Evidence),
    /// So many events were missed.
    Missed(u64),
    /// A question found no answer, or found one again.
    Trouble(Question, Option<String>),
}

/// What is asked again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Question {
    /// The cluster, its members and its services.
    Cluster,
    /// What the nodes say of themselves.
    Nodes,
    /// What happens to members.
    Events,
}

/// What a node told of itself.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) history: History,
    /// Why its latest answer is missing.
    pub(super) silent: Option<String>,
}

/// An event, with the number by which it is chosen.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) number: u64,
    pub(super) what: Occurrence,
}

#[derive(Debug)]
pub(super) enum Occurrence {
    Evidence(Evidence),
    Missed(u64),
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) status: ClusterStatus,
    pub(super) nodes: Vec<NodeInfo>,
    pub(super) services: Vec<ServiceInfo>,
    told: HashMap<String, Told>,
    /// Newest first.
    events: VecDeque<Happened>,
    happened: u64,
    troubles: Vec<(Question, String)>,
}

/// Whether a node is asked of itself. What others told once is not what they are now.
fn is_asked(node: &NodeInfo) -> bool {
    match node.state() {
        MemberState::Alive | MemberState::Suspect => true,
        MemberState::Down | MemberState::Left | MemberState::Unspecified => false,
    }
}

impl Model {
    pub(super) fn update(&mut self, update: Update) {
        match update {
            Update::Status(status) => self.status = status,
            Update::Members(nodes) => {
                let asked = nodes.iter().filter(|node| is_asked(node)).map(|node| node.node_id.as_str());
                let asked: HashSet<&str> = asked.collect();
                self.told.retain(|node, _| asked.contains(node.as_str()));
                self.nodes = nodes;
            }
            Update::Services(services) => self.services = services,
            Update::Node { node, at, answer } => {
                let told = self.told.entry(node).or_default();
                match answer {
                    Ok(metrics) => {
                        told.history.push(at, *metrics);
                        told.silent = None;
                    }
                    Err(why) => *told = Told { silent: Some(why), ..Told::default() },
                }
            }
            Update::EventsAnew => self.events.clear(),
            Update::Event(evidence) => self.happen(Occurrence::Evidence(evidence)),
            Update::Missed(missed) => self.happen(Occurrence::Missed(missed)),
            Update::Trouble(question, trouble) => {
                self.troubles.retain(|(of, _)| *of != question);
                self.troubles.extend(trouble.map(|trouble| (question, trouble)));
                self.troubles.sort_by_key(|(question, _)| *question);
            }
        }
    }

    fn happen(&mut self, what: Occurrence) {
        self.happened += 1;
        self.events.push_front(Happened { number: self.happened, what });
        self.events.truncate(EVENTS);
    }

    pub(super) fn told(&self, node: &str) -> Option<&Told> {
        self.told.get(node)
    }

    pub(super) fn rates(&self, node: &str) -> Rates {
        self.told(node).map(|told| told.history.rates()).unwrap_or_default()
    }

    /// Newest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &Happened> {
        self.events.iter()
    }

    /// Why something could not be asked; the first one says most.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.troubles.first().map(|(_, trouble)| trouble.as_str())
    }

    /// The sums of what all nodes tell: calls, errors, and bytes of gossip that were sent, each a second. A routed call
    /// counts twice.
    pub(super) fn sums(&self) -> [Option<f64>; 3] {
        let rates: Vec<Rates> = self.told.values().map(|told| told.history.rates()).collect();
        let sum = |of: fn(&Rates) -> Option<f64>| rates.iter().filter_map(of).reduce(|a, b| a + b);
        [sum(|rates| rates.calls), sum(|rates| rates.errors), sum(|rates| rates.sent)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::NodeTraffic;
    use std::time::Duration;

    fn answer(calls: u64) -> Result<Box<GetMetricsResponse>, String> {
        let traffic = Some(NodeTraffic { calls, gossip_sent_bytes: calls, ..NodeTraffic::default() });
        Ok(Box::new(GetMetricsResponse { traffic, uptime_seconds: calls, ..GetMetricsResponse::default() }))
    }

    fn cluster(nodes: &[&str]) -> Update {
        let node = |id: &&str| NodeInfo {
            node_id: (*id).to_owned(),
            state: MemberState::Alive.into(),
            ..NodeInfo::default()
        };
        Update::Members(nodes.iter().map(node).collect())
    }

    #[test]
    fn who_leaves_the_cluster_is_forgotten_and_who_is_silent_has_no_rates() {
        let (mut model, start) = (Model::default(), Instant::now());
        model.update(cluster(&["a", "b"]));
        for (second, calls) in [(0, 0), (1, 7)] {
            let at = start + Duration::from_secs(second);
            for node in ["a", "b"] {
                model.update(Update::Node { node: node.to_owned(), at, answer: answer(calls) });
            }
        }
        assert_eq!(model.sums(), [Some(14.0), Some(0.0), Some(14.0)]);
        let refused = Err("it refuses connections".to_owned());
        model.update(Update::Node { node: "a".to_owned(), at: start, answer: refused });
        assert_eq!((model.rates("a").calls, model.rates("b").calls), (None, Some(7.0)));
        assert_eq!(model.told("a").and_then(|told| told.silent.as_deref()), Some("it refuses connections"));
        model.update(cluster(&["a"]));
        assert!(model.told("b").is_none());
        assert_eq!(model.sums(), [None; 3]);
    }

    #[test]
    fn events_are_the_newest_and_begin_anew_with_a_new_stream() {
        let mut model = Model::default();
        for _ in 0..=EVENTS {
            model.update(Update::Event(Evidence::default()));
        }
        model.update(Update::Missed(3));
        assert_eq!(model.events().count(), EVENTS);
        let newest = model.events().next().expect("one");
        assert!(matches!(newest.what, Occurrence::Missed(3)) && newest.number == EVENTS as u64 + 2);
        model.update(Update::EventsAnew);
        assert_eq!(model.events().count(), 0);
    }

    #[test]
    fn a_trouble_stands_until_its_question_is_answered() {
        let mut model = Model::default();
        model.update(Update::Trouble(Question::Events, Some("no events".to_owned())));
        model.update(Update::Trouble(Question::Cluster, Some("unreachable".to_owned())));
        assert_eq!(model.trouble(), Some("unreachable"));
        model.update(Update::Trouble(Question::Cluster, None));
        assert_eq!(model.trouble(), Some("no events"));
        model.update(Update::Trouble(Question::Events, None));
        assert_eq!(model.trouble(), None);
    }
}
