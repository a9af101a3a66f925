//! Rules that one value alone cannot break.

use super::{
    duration::format_duration,
    error::{ConfigError, Problem},
    keys::Parsed,
    sources::Sources,
};
use p2p_core::suggest::nearest;
use std::{net::IpAddr, time::Duration};
use tracing_subscriber::EnvFilter;

/// Longest zone name, in bytes.
const MAX_ZONE_LEN: usize = 63;
/// Smallest useful message limit, in bytes: a call with its metadata.
const MIN_MESSAGE_BYTES: u32 = 1024;

/// Shortest life of an enrolled certificate: room for a renewal and a few tries.
const MIN_CERTIFICATE_TTL: Duration = Duration::from_secs(10);

/// Every rule that is broken. A rule is skipped where a value that it needs is itself wrong.
pub(super) fn across_keys(parsed: &Parsed, sources: &Sources) -> Vec<ConfigError> {
    let mut check = Check { sources, errors: Vec::new() };
    check.gossip_intervals(parsed);
    check.positive_durations(parsed);
    check.plain_text_on_loopback(parsed);
    check.bursts(parsed);
    check.state_files(parsed);
    check.texts(parsed);
    if let Some(bytes @ ..MIN_MESSAGE_BYTES) = parsed.rpc_max_message_bytes {
        check.refuse(
            &["rpc_max_message_bytes"],
            format!("found {bytes}, expected at least {MIN_MESSAGE_BYTES}"),
        );
    }
    if parsed.enrolled_certificate_ttl.is_some_and(|ttl| ttl < MIN_CERTIFICATE_TTL) {
        let least = format_duration(MIN_CERTIFICATE_TTL);
        check.refuse(&["enrolled_certificate_ttl"], format!("expected a duration of at least {least}"));
    }
    check.errors
}

struct Check<'a> {
    sources: &'a Sources,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    /// Reports a broken rule at the first of `keys` that somebody set.
    fn refuse(&mut self, keys: &[&'static str], why: String) {
        let set = keys.iter().copied().find(|key| self.sources.is_given(key));
        if let Some(key) = set.or(keys.first().copied()) {
            let origin = self.sources.origin(key);
            self.errors.push(ConfigError { origin, key: Some(key.to_owned()), problem: Problem::Rule(why) });
        }
    }

    fn gossip_intervals(&mut self, parsed: &Parsed) {
        let min = ("gossip_interval_min", parsed.gossip_interval_min);
        let current = ("gossip_interval_current", parsed.gossip_interval_current);
        let max = ("gossip_interval_max", parsed.gossip_interval_max);
        for ((low, low_value), (high, high_value)) in [(min, current), (current, max)] {
            let (Some(low_value), Some(high_value)) = (low_value, high_value) else { continue };
            if low_value > high_value {
                let why = format!(
                    "{low} ({}) is above {high} ({}), expected gossip_interval_min <= gossip_interval_current \
                     <= gossip_interval_max",
                    format_duration(low_value),
                    format_duration(high_value),
                );
                self.refuse(&[high, low], why);
            }
        }
    }

    /// A grace of zero is a choice; an interval or timeout of zero would stop the node's work.
    fn positive_durations(&mut self, parsed: &Parsed) {
        for (key, value) in [
            ("gossip_interval_min", parsed.gossip_interval_min),
            ("gossip_interval_max", parsed.gossip_interval_max),
            ("gossip_interval_current", parsed.gossip_interval_current),
            ("state_autosave_interval", parsed.state_autosave_interval),
            ("rpc_default_timeout", parsed.rpc_default_timeout),
            ("tls_handshake_timeout", parsed.tls_handshake_timeout),
            ("http_preface_timeout", parsed.http_preface_timeout),
        ] {
            if value == Some(Duration::ZERO) {
                self.refuse(&[key], "found 0, expected a duration above zero".to_owned());
            }
        }
    }

    fn plain_text_on_loopback(&mut self, parsed: &Parsed) {
        let (Some(false), Some(bind)) = (parsed.https_enabled, parsed.bind_address) else { return };
        if !bind.to_canonical().is_loopback() {
            let loopback = if matches!(bind, IpAddr::V4(_)) { "127.0.0.1" } else { "::1" };
            let why = format!(
                "without TLS a node listens on loopback only and bind_address is {bind}, expected https_enabled: \
                 true or bind_address: \"{loopback}\""
            );
            self.refuse(&["https_enabled"], why);
        }
    }

    fn bursts(&mut self, parsed: &Parsed) {
        if parsed.rate_limit_enabled != Some(true) {
            return;
        }
        for (key, burst) in [
            ("rate_limit_rpc_burst", parsed.rate_limit_rpc_burst),
            ("rate_limit_health_burst", parsed.rate_limit_health_burst),
            ("rate_limit_metrics_burst", parsed.rate_limit_metrics_burst),
            ("rate_limit_grpc_burst", parsed.rate_limit_grpc_burst),
            ("rate_limit_default_burst", parsed.rate_limit_default_burst),
        ] {
            if burst == Some(0) {
                let why = "a burst of 0 lets no request through, expected at least 1, or rate_limit_enabled: \
                           false for no limits";
                self.refuse(&[key], why.to_owned());
            }
        }
    }

    fn state_files(&mut self, parsed: &Parsed) {
        let files = [
            ("jwt_blacklist_file", &parsed.jwt_blacklist_file),
            ("gossip_state_file", &parsed.gossip_state_file),
            ("service_state_file", &parsed.service_state_file),
        ];
        for (index, (key, name)) in files.iter().enumerate() {
            for (other_key, other) in &files[..index] {
                if name.is_some() && name == other {
                    let why = format!("{other_key} and {key} name the same file, expected one for each");
                    self.refuse(&[key, other_key], why);
                }
            }
        }
    }

    fn texts(&mut self, parsed: &Parsed) {
        if let Some(zone) = &parsed.zone
            && (zone.len() > MAX_ZONE_LEN || zone.contains(char::is_control))
        {
            let why = format!("expected at most {MAX_ZONE_LEN} bytes without control characters");
            self.refuse(&["zone"], why);
        }
        if let Some(why) = parsed.log_level.as_deref().and_then(wrong_log_level) {
            self.refuse(&["log_level"], why);
        }
    }
}

/// Why `text` is not a log filter. A lone word is a target to the filter, and so would be a mistyped level.
fn wrong_log_level(text: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let expected = "expected error, warn, info, debug, trace, or a filter such as info,p2p_node=debug";
    if text.trim().is_empty() {
        return Some(format!("found {text:?}, {expected}"));
    }
    if let Err(error) = EnvFilter::builder().parse(text) {
        return Some(format!("found {text:?} ({error}), {expected}"));
    }
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let mistyped = text.split(',').map(str::trim).find_map(|word| {
        nearest(&word.to_ascii_lowercase(), LEVELS).filter(|_| !is_level(word)).map(|level| (word, level))
    });
    mistyped.map(|(word, level)| format!("found {word:?}, did you mean {level}?"))
}
