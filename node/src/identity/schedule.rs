//! When a certificate is renewed, how long to wait after a try that failed, and waiting by the wall clock.

use super::{ca::BACKDATE, certificate::PeerCertificate};
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::UnixTime;
use std::time::Duration;

/// The part of its life after which a certificate is renewed, in percent: two thirds, as ACME clients and step-ca's do.
const RENEW_AFTER_PERCENT: f64 = 200.0 / 3.0;
/// How far that is moved for each certificate, so that nodes that joined together do not renew together.
const JITTER_PERCENT: f64 = 5.0;
/// The part of the time left that is waited after a failed try.
const RETRIES_LEFT: u32 = 60;
/// Shortest wait after a failed try.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failed try.
const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest sleep at a stretch: the wall clock may be set, or stand still while the host is suspended.
const NAP: Duration = Duration::from_secs(5 * 60);

/// When a certificate was issued: certificates are backdated against clocks that are behind.
fn issued_at(certificate: &PeerCertificate) -> u64 {
    let issued = certificate.not_before.as_secs().saturating_add(BACKDATE.as_secs());
    if issued < certificate.not_after.as_secs() { issued } else { certificate.not_before.as_secs() }
}

/// How long the certificate lives from the moment it was issued.
pub(super) fn life(certificate: &PeerCertificate) -> Duration {
    Duration::from_secs(certificate.not_after.as_secs().saturating_sub(issued_at(certificate)))
}

/// When the certificate `der` is to be renewed: after two thirds of its life, ±5 % of it as its own bytes
/// decide, so that a restart does not move it.
pub fn renewal_time(certificate: &PeerCertificate, der: &[u8]) -> UnixTime {
    let hash = digest(&SHA256, der);
    let bits = hash.as_ref().iter().take(4).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let jitter = JITTER_PERCENT * (2.0 * f64::from(bits) / f64::from(u32::MAX) - 1.0);
    let after = life(certificate).mul_f64((RENEW_AFTER_PERCENT + jitter) / 100.0);
    UnixTime::since_unix_epoch(Duration::from_secs(issued_at(certificate)) + after)
}

/// How long to wait after a failed try when `left` of the certificate's life remains; `jitter` is 0 to 1 and
/// spreads nodes that failed together.
pub fn retry_pause(left: Duration, jitter: f64) -> Duration {
    (left / RETRIES_LEFT).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0).clamp(RETRY_MIN, RETRY_MAX)
}

/// What is left from `now` until `at`; zero once it has passed.
pub fn left(at: UnixTime, now: UnixTime) -> Duration {
    Duration::from_secs(at.as_secs().saturating_sub(now.as_secs()))
}

/// Waits until the wall clock shows `at`.
pub async fn reached(at: UnixTime) {
    loop {
        let left = left(at, UnixTime::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::instant::from_seconds;
    use proptest::prelude::*;

    fn certificate(not_before: i64, not_after: i64) -> PeerCertificate {
        PeerCertificate {
            spiffe: "spiffe://c/worker/w".parse().unwrap(),
            not_before: from_seconds(not_before),
            not_after: from_seconds(not_after),
            grant: None,
            vouchers: vec![],
            public_key: vec![],
        }
    }

    proptest! {
        #[test]
        fn it_is_two_thirds_of_the_life_since_the_issue_and_the_same_at_each_look(
            life in 10..1_000_000_000_i64,
            der in any::<[u8; 8]>(),
        ) {
            // Backdated by an hour, as the CA does it.
            let certificate = certificate(1_000_000, 1_000_000 + 3600 + life);
            let at = renewal_time(&certificate, &der);
            let part = (at.as_secs() as f64 - 1_003_600.0) / life as f64;
            // Whole seconds cut off up to one.
            prop_assert!((0.6166 - 1.0 / life as f64..=0.7167).contains(&part), "{part}");
            prop_assert_eq!(renewal_time(&certificate, &der), at);
        }
    }

    #[test]
    fn certificates_of_one_moment_are_renewed_at_different_ones() {
        let certificate = certificate(0, 30 * 86_400);
        let times: std::collections::BTreeSet<u64> =
            (0..100_u8).map(|n| renewal_time(&certificate, &[n]).as_secs()).collect();
        assert!(times.len() > 90);
    }

    #[test]
    fn a_certificate_that_is_not_backdated_has_its_time_too() {
        let at = renewal_time(&certificate(1_000, 1_060), b"x").as_secs();
        assert!((1_036..=1_044).contains(&at), "{at}");
    }

    #[test]
    fn retries_come_faster_as_the_end_comes_nearer_and_are_bounded() {
        let pause = |left: u64, jitter: f64| retry_pause(Duration::from_secs(left), jitter);
        assert_eq!(pause(0, 0.5), RETRY_MIN);
        assert_eq!(pause(600, 0.5), Duration::from_secs(10));
        assert_eq!(pause(30 * 86_400, 0.5), RETRY_MAX);
        assert!(pause(600, 0.0) < pause(600, 1.0));
    }
}
