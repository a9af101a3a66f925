//! What a client takes: `Accept` and `Accept-Encoding` (RFC 9110 § 12.5).

use http::{HeaderMap, HeaderName, header};

/// How much a client likes a media type: 0 not at all, 1 best. Without a header, or with one that says nothing, it takes
/// everything. The entry that names it most exactly decides.
pub(super) fn quality(headers: &HeaderMap, media: &str) -> f32 {
    let kind = media.split('/').next().unwrap_or_default();
    let exactness = |range: &str| match range {
        range if range.eq_ignore_ascii_case(media) => Some(2),
        range if range.strip_suffix("/*").is_some_and(|of| of.eq_ignore_ascii_case(kind)) => Some(1),
        "*/*" => Some(0),
        _ => None,
    };
    best(headers, header::ACCEPT, exactness).unwrap_or(if says_nothing(headers) { 1.0 } else { 0.0 })
}

/// Whether a client names a media type itself, not by a `*`.
pub(super) fn names(headers: &HeaderMap, media: &str) -> bool {
    entries(headers, header::ACCEPT).any(|(range, _)| range.eq_ignore_ascii_case(media))
}

/// Whether a client takes gzip. Who does not say so gets none.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let exactness = |coding: &str| match coding {
        coding if coding.eq_ignore_ascii_case("gzip") => Some(1),
        "*" => Some(0),
        _ => None,
    };
    best(headers, header::ACCEPT_ENCODING, exactness).is_some_and(|quality| quality > 0.0)
}

fn says_nothing(headers: &HeaderMap) -> bool {
    entries(headers, header::ACCEPT).next().is_none()
}

/// The quality of the most exact entry; of several equally exact ones the best.
fn best(headers: &HeaderMap, name: HeaderName, exactness: impl Fn(&str) -> Option<u8>) -> Option<f32> {
    let fitting = entries(headers, name).filter_map(|(range, quality)| Some((exactness(range)?, quality)));
    fitting
        .max_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)))
        .map(|(_, quality)| quality)
}

/// Each entry of a list with its quality, other parameters left out. What is no quality counts as 1.
fn entries(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (&str, f32)> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).filter_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let range = parts.next().filter(|range| !range.is_empty())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.and_then(|quality| quality.parse().ok()).unwrap_or(1.0_f32);
        Some((range, if quality.is_nan() { 1.0 } else { quality.clamp(0.0, 1.0) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a value");
        [(name, value)].into_iter().collect()
    }

    #[test]
    fn the_most_exact_entry_says_how_much_a_type_is_liked() {
        let json = |accept: &str| quality(&headers(header::ACCEPT, accept), "application/json");
        assert_eq!(quality(&HeaderMap::new(), "application/json"), 1.0);
        assert_eq!(json(""), 1.0);
        assert_eq!(json("*/*"), 1.0);
        assert_eq!(json("text/html"), 0.0);
        assert_eq!(json("text/html, application/*;q=0.5"), 0.5);
        assert_eq!(json("application/json;q=0, */*"), 0.0, "named, and refused");
        assert_eq!(json("Application/JSON; charset=utf-8; q=0.3, */*;q=0.9"), 0.3);
        assert_eq!(json("application/json;q=nonsense"), 1.0);
        assert_eq!(json(";q=1,,"), 1.0, "it says nothing");
    }

    #[test]
    fn gzip_is_for_those_who_ask() {
        let gzip = |accept: &str| takes_gzip(&headers(header::ACCEPT_ENCODING, accept));
        assert!(!takes_gzip(&HeaderMap::new()));
        assert!(gzip("gzip") && gzip("deflate, GZIP;q=0.5") && gzip("*"));
        assert!(!gzip("identity") && !gzip("gzip;q=0, *") && !gzip("br"));
    }
}
