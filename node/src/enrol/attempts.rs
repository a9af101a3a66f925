//! How often enrolment may be tried: a bucket for each address, and one for all together.
//!
//! Guessing 256 random bits is hopeless anyway; the limits bound the work and the log lines that strangers
//! cause. An attempt that succeeds is given back, so that many nodes may join at once. An address pays before
//! the common bucket does, so that a single stranger empties its own only.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Attempts that one address may make at once.
pub const PER_ADDRESS: u32 = 32;
/// Attempts that all together may make at once.
pub const IN_ALL: u32 = 256;
/// Time after which an address may try once more.
const ADDRESS_REFILL: Duration = Duration::from_secs(2);
/// Time after which somebody may try once more.
const ALL_REFILL: Duration = Duration::from_millis(50);
/// Most addresses that are told apart; what is beyond shares one bucket.
pub const MAX_ADDRESSES: usize = 4096;

/// Tokens that refill with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    /// When `left` was right.
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant, pause: Duration, most: u32) {
        let gained = now.saturating_duration_since(self.at).as_nanos() / pause.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if self.left.saturating_add(gained) >= most {
            *self = Self { left: most, at: now };
        } else {
            self.left += gained;
            self.at += pause * gained;
        }
    }

    fn wait(&self, now: Instant, pause: Duration) -> Option<Duration> {
        (self.left == 0).then(|| (self.at + pause).saturating_duration_since(now))
    }
}

/// The buckets.
#[derive(Debug)]
pub struct Attempts {
    addresses: HashMap<IpAddr, Bucket>,
    others: Bucket,
    all: Bucket,
}

impl Attempts {
    /// Full buckets.
    pub fn new(now: Instant) -> Self {
        let full = |left| Bucket { left, at: now };
        Self { addresses: HashMap::new(), others: full(PER_ADDRESS), all: full(IN_ALL) }
    }

    /// Charges one attempt from `address`.
    ///
    /// # Errors
    ///
    /// How long to wait; then nothing was charged.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.all.refill(now, ALL_REFILL, IN_ALL);
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&counted(address)) {
            self.addresses.retain(|_, bucket| {
                bucket.refill(now, ADDRESS_REFILL, PER_ADDRESS);
                bucket.left < PER_ADDRESS
            });
        }
        let own = Self::bucket(&mut self.addresses, &mut self.others, address, now);
        own.refill(now, ADDRESS_REFILL, PER_ADDRESS);
        let waits = [own.wait(now, ADDRESS_REFILL), self.all.wait(now, ALL_REFILL)];
        if let Some(wait) = waits.into_iter().flatten().max() {
            return Err(wait);
        }
        own.left -= 1;
        self.all.left -= 1;
        Ok(())
    }

    /// Gives back what a successful attempt was charged.
    pub fn give_back(&mut self, address: IpAddr, now: Instant) {
        let own = Self::bucket(&mut self.addresses, &mut self.others, address, now);
        own.left = own.left.saturating_add(1).min(PER_ADDRESS);
        self.all.left = self.all.left.saturating_add(1).min(IN_ALL);
    }

    fn bucket<'a>(
        addresses: &'a mut HashMap<IpAddr, Bucket>,
        others: &'a mut Bucket,
        address: IpAddr,
        now: Instant,
    ) -> &'a mut Bucket {
        let address = counted(address);
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            return others;
        }
        addresses.entry(address).or_insert(Bucket { left: PER_ADDRESS, at: now })
    }
}

/// An IPv6 client holds at least a /64 and is counted by it.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn an_address_that_tries_too_often_waits_and_others_do_not() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for _ in 0..PER_ADDRESS {
            assert_eq!(attempts.take(address(1), start), Ok(()));
        }
        assert_eq!(attempts.take(address(1), start), Err(ADDRESS_REFILL));
        assert_eq!(attempts.take(address(2), start), Ok(()));
        let later = start + ADDRESS_REFILL;
        assert_eq!(attempts.take(address(1), later), Ok(()));
        assert_eq!(attempts.take(address(1), later), Err(ADDRESS_REFILL));
    }

    #[test]
    fn all_together_are_limited_too() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for number in 0..IN_ALL {
            assert_eq!(attempts.take(address(number), start), Ok(()));
        }
        assert_eq!(attempts.take(address(9_999), start), Err(ALL_REFILL));
        assert_eq!(attempts.take(address(9_999), start + ALL_REFILL), Ok(()));
    }

    #[test]
    fn success_costs_nothing() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for _ in 0..10 * IN_ALL {
            assert_eq!(attempts.take(address(1), start), Ok(()));
            attempts.give_back(address(1), start);
        }
    }

    #[test]
    fn the_addresses_that_are_told_apart_are_bounded() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for number in 0..2 * u32::try_from(MAX_ADDRESSES).unwrap() {
            // Slow enough for all together.
            let now = start + ALL_REFILL * number / 1000;
            let _charged_or_not: Result<(), Duration> = attempts.take(address(number), now);
        }
        assert!(attempts.addresses.len() <= MAX_ADDRESSES);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(attempts.take(address(u32::MAX), much_later), Ok(()));
        assert!(attempts.addresses.len() <= MAX_ADDRESSES);
    }

    #[test]
    fn one_ipv6_network_counts_as_one() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for number in 0..PER_ADDRESS {
            let host: IpAddr = format!("2001:db8::{number:x}").parse().unwrap();
            assert_eq!(attempts.take(host, start), Ok(()));
        }
        assert!(attempts.take("2001:db8::ffff".parse().unwrap(), start).is_err());
    }
}
