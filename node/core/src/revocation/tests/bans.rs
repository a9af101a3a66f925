//! Who is banned, by whose word.

use super::{super::Bans, NOW};
use crate::{NodeId, testing::node};
use p2p_proto::v1::NodeEviction;
use proptest::prelude::*;

fn bans(words: &[(u8, u8, u64, bool)]) -> Bans {
    let mut bans = Bans::default();
    for (signer, target, counter, readmitted) in words {
        let eviction = NodeEviction {
            node_id: format!("c{target}"),
            counter: *counter,
            readmitted: *readmitted,
            at: NOW,
        };
        bans.apply(&node(&format!("c{signer}")), &eviction);
    }
    bans
}

fn banned(words: &[(u8, u8, u64, bool)]) -> Vec<String> {
    bans(words).banned().iter().map(NodeId::to_string).collect()
}

#[test]
fn the_higher_counter_decides_and_of_equal_ones_the_ban() {
    assert_eq!(banned(&[(0, 1, 1, false)]), ["c1"]);
    assert_eq!(banned(&[(0, 1, 1, false), (0, 1, 2, true)]), [""; 0]);
    assert_eq!(banned(&[(0, 1, 2, false), (2, 1, 2, true)]), ["c1"]);
    assert_eq!(banned(&[(0, 1, 2, true), (2, 1, 3, false)]), ["c1"]);
    assert_eq!(bans(&[(0, 1, 5, false)]).next_counter(&node("c1")), 6);
    let word = |counter| NodeEviction { node_id: "c1".into(), counter, ..NodeEviction::default() };
    let bans = bans(&[(0, 1, 2, true)]);
    assert!(bans.is_overruled(&node("c0"), &word(1)) && !bans.is_overruled(&node("c0"), &word(2)));
}

#[test]
fn a_stolen_coordinator_stops_counting_once_it_is_evicted_itself() {
    // c1 is stolen and evicts c2 and c3; c0 evicts c1, and with it what c1 said.
    assert_eq!(banned(&[(1, 2, 1, false), (1, 3, 1, false)]), ["c2", "c3"]);
    assert_eq!(banned(&[(1, 2, 1, false), (1, 3, 1, false), (0, 1, 1, false)]), ["c1"]);
    // Nobody speaks for itself.
    assert_eq!(banned(&[(1, 1, 9, true), (0, 1, 1, false)]), ["c1"]);
    // Two that evict each other are banned both; a third that both respect decides.
    assert_eq!(banned(&[(0, 1, 1, false), (1, 0, 1, false)]), ["c0", "c1"]);
    assert_eq!(banned(&[(0, 1, 1, false), (1, 0, 1, false), (2, 1, 1, false)]), ["c1"]);
}

proptest! {
    #[test]
    fn who_is_banned_does_not_depend_on_the_order_of_words(
        words in proptest::collection::vec((0_u8..4, 0_u8..4, 1_u64..4, any::<bool>()), 0..12),
        seed in any::<u64>(),
    ) {
        use rand::{SeedableRng as _, seq::SliceRandom as _};
        let mut shuffled = words.clone();
        shuffled.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
        prop_assert_eq!(bans(&words).banned().clone(), bans(&shuffled).banned().clone());
    }
}
