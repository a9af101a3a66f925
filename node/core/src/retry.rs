//! How many calls may be made again that a provider may have processed.

use crate::Moment;

/// The time over which calls are counted, in seconds.
const SECONDS: usize = 10;
/// Of the calls so many may be made again, in percent.
const PERCENT: u64 = 20;
/// What may be made again of few calls, a second.
const FLOOR: u64 = 10;

/// A budget for retries: where everything fails, they would double the load that makes it fail. Of the calls of the last
/// 10 s a fifth may be made again, or 10 a second where that is more.
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    /// A bucket for each second, by its number.
    buckets: [Bucket; SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    second: u64,
    calls: u64,
    retries: u64,
}

impl RetryBudget {
    fn bucket(&mut self, now: Moment) -> &mut Bucket {
        let second = now.elapsed().as_secs();
        let length = u64::try_from(SECONDS).unwrap_or(1);
        let place = usize::try_from(second % length).unwrap_or_default();
        let bucket = &mut self.buckets[place];
        if bucket.second != second {
            *bucket = Bucket { second, ..Bucket::default() };
        }
        bucket
    }

    /// A call is made for the first time.
    pub fn called(&mut self, now: Moment) {
        self.bucket(now).calls += 1;
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        let second = now.elapsed().as_secs();
        let length = u64::try_from(SECONDS).unwrap_or(1);
        let recent = self.buckets.iter().filter(|bucket| bucket.second + length > second);
        let (calls, retries) =
            recent.fold((0, 0), |(calls, retries), bucket| (calls + bucket.calls, retries + bucket.retries));
        let allowed = (calls * PERCENT / 100).max(FLOOR * length);
        if retries >= allowed {
            return false;
        }
        self.bucket(now).retries += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(milliseconds: u64) -> Moment {
        Moment::at(Duration::from_millis(milliseconds))
    }

    fn taken(budget: &mut RetryBudget, now: Moment) -> usize {
        (0..100_000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn few_calls_may_be_made_again_a_hundred_times_in_ten_seconds() {
        let mut budget = RetryBudget::default();
        assert_eq!(taken(&mut budget, at(0)), 100);
        assert_eq!(taken(&mut budget, at(9_999)), 0);
        assert_eq!(taken(&mut budget, at(10_000)), 100);
    }

    #[test]
    fn of_many_calls_a_fifth_may_be_made_again() {
        let mut budget = RetryBudget::default();
        for millisecond in 0..10_000 {
            budget.called(at(millisecond));
        }
        assert_eq!(taken(&mut budget, at(9_999)), 2_000);
        // A second later the first thousand calls are out of sight, and so on.
        assert_eq!(taken(&mut budget, at(10_000)), 0);
        assert_eq!(taken(&mut budget, at(19_500)), 100);
    }

    proptest::proptest! {
        #[test]
        fn whatever_happens_no_ten_seconds_see_more_than_is_allowed(
            steps in proptest::collection::vec((0_u64..700, 0_u64..60, 0_usize..40), 1..200),
        ) {
            let (mut budget, mut now) = (RetryBudget::default(), 0);
            let (mut calls, mut retries) = (Vec::new(), Vec::new());
            for (pause, called, asked) in steps {
                now += pause;
                for _ in 0..called {
                    budget.called(at(now));
                    calls.push(now / 1000);
                }
                for _ in 0..asked {
                    let within = |times: &[u64]| times.iter().filter(|time| **time + 10 > now / 1000).count() as u64;
                    let allowed = (within(&calls) / 5).max(100);
                    let had = within(&retries);
                    proptest::prop_assert_eq!(budget.take(at(now)), had < allowed);
                    if had < allowed {
                        retries.push(now / 1000);
                    }
                }
            }
        }
    }
}
