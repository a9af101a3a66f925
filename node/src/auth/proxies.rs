//! The address of a caller behind a proxy.

use crate::config::Network;
use http::{HeaderMap, HeaderName};
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from: the connection's address, or, as far as `trusted` proxies say so, the one that they saw.
/// Each proxy appends the address that it was called from, so the list is read from its end, and what stands before the
/// first address that is no proxy's is only what that one claims.
pub(super) fn origin(connection: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(connection) {
        return connection;
    }
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let entries = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    let mut origin = connection;
    for entry in entries {
        let Some(address) = address(entry.trim()) else { break };
        origin = address;
        if !is_trusted(address) {
            break;
        }
    }
    origin
}

/// An address, with or without a port, as proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn seen(connection: &str, sent: &[&str]) -> String {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "::1"].iter().map(|text| text.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).expect("a value"));
        }
        origin(connection.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"]), "192.0.2.1", "anybody can write the header");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_caller_writes_itself_is_not_believed() {
        assert_eq!(seen("10.0.0.1", &["198.51.100.7, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            seen("10.0.0.1", &["198.51.100.7", "203.0.113.9, 10.2.3.4"]),
            "203.0.113.9",
            "two proxies"
        );
        assert_eq!(
            seen("10.0.0.1", &["203.0.113.9, rubbish"]),
            "10.0.0.1",
            "what is no address ends the list"
        );
    }

    #[test]
    fn addresses_come_in_several_forms() {
        assert_eq!(seen("::1", &["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(seen("::1", &["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
    }
}
