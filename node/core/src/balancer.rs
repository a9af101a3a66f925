//! Which provider takes a call.

use rand::{Rng, RngExt as _};

/// Chooses among providers by their load (calls in flight): of two random ones the less loaded, which keeps
/// the longest queue exponentially shorter than one random choice does (Mitzenmacher 2001, "The Power of
/// Two Choices"). Returns an index into `loads`; `None` if there are none.
pub fn choose(loads: impl ExactSizeIterator<Item = usize> + Clone, rng: &mut impl Rng) -> Option<usize> {
    let count = loads.len();
    let load = |index: usize| loads.clone().nth(index).unwrap_or(usize::MAX);
    match count {
        0 => None,
        1 => Some(0),
        _ => {
            let first = rng.random_range(0..count);
            let second = (first + rng.random_range(1..count)) % count;
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    #[test]
    fn the_most_loaded_of_several_is_never_chosen_over_another() {
        let mut rng = StdRng::seed_from_u64(1);
        let loads = [3, 900, 3, 3];
        assert!((0..1000).all(|_| choose(loads.iter().copied(), &mut rng) != Some(1)));
        assert_eq!(choose([].into_iter(), &mut rng), None);
        assert_eq!(choose([7].into_iter(), &mut rng), Some(0));
    }

    #[test]
    fn equals_share_the_work() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut counts = [0_u32; 3];
        for _ in 0..3000 {
            counts[choose([0, 0, 0].into_iter(), &mut rng).expect("some")] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
