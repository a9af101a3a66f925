//! How often a node compares records: less often, the more gossip it receives anyway.
//!
//! The load is the mean rate of received gossip frames over [`PERIOD`]; probes of the failure detector and
//! hellos do not count, since they tell nothing of how much there is to repair. A load of [`QUIET`] or less
//! asks for the shortest pause, one of [`BUSY`] or more for the longest, and between the two it is linear.
//! After each period the interval moves towards that, by a fifth at most, so that one burst changes little.

use crate::Moment;
use p2p_proto::v1::gossip_message::Kind;
use std::time::Duration;

/// Over how long the load is taken, and how often the interval changes.
const PERIOD: Duration = Duration::from_secs(60);
/// Frames per second up to which the interval is the shortest.
const QUIET: f64 = 1.0;
/// Frames per second from which the interval is the longest.
const BUSY: f64 = 5.0;
/// A step is at most one part in this many of the present interval.
const STEP_PARTS: u32 = 5;

/// Bounds of the pause between digest exchanges, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalSettings {
    min: Duration,
    current: Duration,
    max: Duration,
}

impl IntervalSettings {
    /// An interval that starts at `current` and stays within `min` and `max`. A `max` below `min` counts as
    /// `min`; a `current` outside of the bounds, as the bound next to it.
    pub fn new(min: Duration, current: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self { min, current: current.clamp(min, max), max }
    }

    /// An interval that never changes.
    pub fn fixed(interval: Duration) -> Self {
        Self::new(interval, interval, interval)
    }

    /// The interval that `load` frames per second ask for.
    fn target(&self, load: f64) -> Duration {
        let share = ((load - QUIET) / (BUSY - QUIET)).clamp(0.0, 1.0);
        (self.min + (self.max - self.min).mul_f64(share)).min(self.max)
    }
}

/// The present interval, and the load that moves it.
#[derive(Debug)]
pub(super) struct AdaptiveInterval {
    settings: IntervalSettings,
    current: Duration,
    load: f64,
    /// Frames since `since`, which is unknown before the first tick.
    frames: u64,
    since: Option<Moment>,
}

impl AdaptiveInterval {
    pub(super) fn new(settings: IntervalSettings) -> Self {
        Self { settings, current: settings.current, load: 0.0, frames: 0, since: None }
    }

    /// The pause between digest exchanges.
    pub(super) fn current(&self) -> Duration {
        self.current
    }

    /// Frames per second over the last whole period; zero before the first has ended.
    pub(super) fn load(&self) -> f64 {
        self.load
    }

    /// A frame was received; `None` is a kind that only newer releases know.
    pub(super) fn count(&mut self, kind: Option<&Kind>) {
        let counts = match kind {
            Some(Kind::Membership(_) | Kind::MemberList(_) | Kind::Accusation(_) | Kind::Hello(_)) => false,
            Some(
                Kind::States(_)
                | Kind::Digest(_)
                | Kind::StatesRequest(_)
                | Kind::Revocations(_)
                | Kind::RevocationPositions(_)
                | Kind::TrustBundle(_),
            )
            | None => true,
        };
        self.frames = self.frames.saturating_add(u64::from(counts));
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Moment {
        self.since.map_or(Moment::default(), |since| since + PERIOD)
    }

    /// Takes the load and one step when a period has ended.
    pub(super) fn tick(&mut self, now: Moment) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.since(since);
        if elapsed >= PERIOD {
            // Over what really passed: a process that was stopped for an hour took no frames in it.
            self.load = self.frames as f64 / elapsed.as_secs_f64();
            self.frames = 0;
            self.since = Some(now);
            self.step();
        }
    }

    fn step(&mut self) {
        let most = self.current / STEP_PARTS;
        let target = self.settings.target(self.load);
        self.current = target.clamp(self.current.saturating_sub(most), self.current + most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::{Digest, Hello, OwnerStates, RevocationPositions, StatesRequest, TrustBundle};
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The defaults: 5 s, 10 s, 30 s.
    fn defaults() -> IntervalSettings {
        IntervalSettings::new(seconds(5), seconds(10), seconds(30))
    }

    fn digest() -> Kind {
        Kind::Digest(Digest::default())
    }

    /// After `period` more periods with `frames` in each, one after the other.
    fn run(interval: &mut AdaptiveInterval, start: u64, periods: u64, frames: u64) -> Vec<Duration> {
        let mut seen = Vec::new();
        for period in start..start + periods {
            interval.tick(Moment::at(PERIOD * u32::try_from(period).expect("small")));
            (0..frames).for_each(|_| interval.count(Some(&digest())));
            let end = Moment::at(PERIOD * u32::try_from(period + 1).expect("small"));
            interval.tick(end);
            seen.push(interval.current());
        }
        seen
    }

    #[test]
    fn the_load_decides_what_the_interval_moves_to() {
        let settings = defaults();
        let cases = [
            (0.0, 5_000),
            (0.5, 5_000),
            (1.0, 5_000),
            (1.5, 8_125),
            (2.0, 11_250),
            (3.0, 17_500),
            (4.0, 23_750),
            (4.5, 26_875),
            (5.0, 30_000),
            (5.1, 30_000),
            (1_000.0, 30_000),
        ];
        for (load, millis) in cases {
            assert_eq!(settings.target(load), Duration::from_millis(millis), "at {load} frames/s");
        }
    }

    #[test]
    fn a_quiet_node_shortens_its_interval_step_by_step() {
        let mut interval = AdaptiveInterval::new(defaults());
        assert_eq!(interval.current(), seconds(10), "starts where it was told");
        // 59 frames in 60 s are less than one a second.
        let steps: Vec<u128> = run(&mut interval, 0, 5, 59).iter().map(Duration::as_millis).collect();
        assert_eq!(steps, [8_000, 6_400, 5_120, 5_000, 5_000]);
    }

    #[test]
    fn a_busy_node_lengthens_it_step_by_step() {
        let mut interval = AdaptiveInterval::new(defaults());
        // 301 frames in 60 s are more than five a second.
        let steps: Vec<u128> = run(&mut interval, 0, 8, 301).iter().map(Duration::as_millis).collect();
        assert_eq!(steps, [12_000, 14_400, 17_280, 20_736, 24_883, 29_859, 30_000, 30_000]);
        assert!((interval.load() - 301.0 / 60.0).abs() < 1e-9);
    }

    #[test]
    fn a_load_between_leads_to_a_value_between() {
        let mut interval = AdaptiveInterval::new(defaults());
        // Two a second.
        let steps: Vec<u128> = run(&mut interval, 0, 3, 120).iter().map(Duration::as_millis).collect();
        assert_eq!(steps, [11_250; 3]);
    }

    #[test]
    fn nothing_changes_within_a_period() {
        let mut interval = AdaptiveInterval::new(defaults());
        let start = Moment::at(seconds(1_000));
        interval.tick(start);
        assert_eq!(interval.next_deadline(), start + PERIOD);
        interval.tick(start + seconds(59));
        assert_eq!((interval.current(), interval.load()), (seconds(10), 0.0));
        interval.tick(start + seconds(60));
        assert_eq!(interval.current(), seconds(8));
        assert_eq!(interval.next_deadline(), start + seconds(120));
    }

    #[test]
    fn probes_and_hellos_do_not_count() {
        let mut interval = AdaptiveInterval::new(defaults());
        let counted = [
            (Some(Kind::Membership(bytes::Bytes::new())), 0),
            (Some(Kind::Hello(Hello::default())), 0),
            (Some(digest()), 1),
            (Some(Kind::States(OwnerStates::default())), 2),
            (Some(Kind::StatesRequest(StatesRequest::default())), 3),
            (Some(Kind::Revocations(p2p_proto::v1::RevocationSegments::default())), 4),
            (Some(Kind::RevocationPositions(RevocationPositions::default())), 5),
            (Some(Kind::TrustBundle(TrustBundle::default())), 6),
            (None, 7),
        ];
        for (kind, frames) in counted {
            interval.count(kind.as_ref());
            assert_eq!(interval.frames, frames, "{kind:?}");
        }
    }

    #[test]
    fn a_late_look_takes_the_mean_over_what_passed() {
        let mut interval = AdaptiveInterval::new(defaults());
        interval.tick(Moment::at(Duration::ZERO));
        (0..1_200).for_each(|_| interval.count(None));
        // Twenty a second if it had been a minute; two over ten, and one step, not ten.
        interval.tick(Moment::at(seconds(600)));
        assert_eq!((interval.load(), interval.current()), (2.0, Duration::from_millis(11_250)));
    }

    #[test]
    fn settings_that_do_not_fit_are_brought_into_order() {
        let settings = |min, current, max| {
            let IntervalSettings { min, current, max } =
                IntervalSettings::new(seconds(min), seconds(current), seconds(max));
            (min.as_secs(), current.as_secs(), max.as_secs())
        };
        assert_eq!(settings(5, 1, 30), (5, 5, 30));
        assert_eq!(settings(5, 40, 30), (5, 30, 30));
        assert_eq!(settings(9, 7, 3), (9, 9, 9));
        assert_eq!(
            IntervalSettings::fixed(seconds(2)),
            IntervalSettings::new(seconds(2), seconds(9), seconds(1))
        );
    }

    fn any_settings() -> impl Strategy<Value = IntervalSettings> {
        let millis = 1_u64..3_600_000;
        (millis.clone(), millis.clone(), millis).prop_map(|(a, b, c)| {
            let millis = Duration::from_millis;
            IntervalSettings::new(millis(a.min(b)), millis(c), millis(a.max(b)))
        })
    }

    proptest! {
        #[test]
        fn it_stays_within_bounds_and_never_jumps(
            settings in any_settings(),
            loads in prop::collection::vec((0_u64..1_000, 60_000_u64..200_000), 1..40),
        ) {
            let mut interval = AdaptiveInterval::new(settings);
            let mut now = Moment::at(Duration::ZERO);
            interval.tick(now);
            for (frames, pause) in loads {
                let before = interval.current();
                (0..frames).for_each(|_| interval.count(None));
                now = now + Duration::from_millis(pause);
                interval.tick(now);
                let after = interval.current();
                prop_assert!((settings.min..=settings.max).contains(&after), "{after:?} of {settings:?}");
                prop_assert!(after.abs_diff(before) * 5 <= before, "{before:?} to {after:?}");
            }
        }

        #[test]
        fn a_constant_load_leads_to_its_target(settings in any_settings(), frames in 0_u64..400) {
            let mut interval = AdaptiveInterval::new(settings);
            // The widest range, 1 ms to 1 h, takes 83 steps up by a fifth.
            run(&mut interval, 0, 90, frames);
            prop_assert_eq!(interval.current(), settings.target(frames as f64 / 60.0));
        }
    }
}
