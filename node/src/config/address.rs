//! Addresses: of a seed to join, and of ourselves as others should dial us.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Longest DNS name in its text form without the closing dot (RFC 1035 § 2.3.4).
const MAX_NAME_LEN: usize = 253;
/// Longest DNS label (RFC 1035 § 2.3.4).
const MAX_LABEL_LEN: usize = 63;

/// Why a text is not an address of the kind that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// No `:port` at the end.
    #[error("the port is missing")]
    NoPort,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Several colons outside brackets.
    #[error("an IPv6 address with a port needs brackets: [2001:db8::1]:8001")]
    Brackets,
    /// What stands in brackets is not an IPv6 address.
    #[error("what stands in brackets is not an IPv6 address")]
    Ipv6,
    /// Neither an IP address nor a DNS name.
    #[error("the host is neither an IP address nor a DNS name")]
    Host,
    /// Not an IP address, with or without a port.
    #[error("it is not an IP address; names are not resolved here")]
    NotAnIp,
    /// `0.0.0.0` or `::`.
    #[error(
        "others cannot reach an unspecified address; set the one they should dial, such as 10.0.0.5, or leave \
         advertise_addresses empty to have it found"
    )]
    Unspecified,
    /// `0.0.0.0` or `::` where a host to dial is named.
    #[error("an unspecified address cannot be dialled; set the address of the other host")]
    UnspecifiedSeed,
    /// A multicast address.
    #[error("a multicast address is not that of one host")]
    Multicast,
}

/// The host of a [`SeedAddress`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeedHost {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, lower-case, to be resolved anew at each try.
    Name(String),
}

/// Where to look for a node of the cluster: `10.0.0.5:8001`, `[2001:db8::1]:8001` or `host:8001`. Who answers
/// there, its certificate tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeedAddress {
    /// The host to dial.
    pub host: SeedHost,
    /// Never 0.
    pub port: u16,
}

impl FromStr for SeedAddress {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(InvalidAddress::Ipv6)?;
            let host = host.parse().map_err(|_| InvalidAddress::Ipv6)?;
            let port = rest.strip_prefix(':').ok_or(InvalidAddress::NoPort)?;
            (SeedHost::Ip(IpAddr::V6(host)), port)
        } else {
            let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress::NoPort)?;
            (parse_host(host)?, port)
        };
        if let SeedHost::Ip(ip) = host {
            check_ip(ip, InvalidAddress::UnspecifiedSeed)?;
        }
        Ok(Self { host, port: parse_port(port)? })
    }
}

impl fmt::Display for SeedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            SeedHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            SeedHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// An address that others should dial us at: `10.0.0.5` with our own port, or `10.0.0.5:18001` where
/// something in between forwards another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdvertiseAddress {
    /// Never unspecified or multicast.
    pub ip: IpAddr,
    /// The port, if it is not the one we listen on.
    pub port: Option<u16>,
}

impl AdvertiseAddress {
    /// The full address of a node that listens on `own_port`.
    pub fn socket_addr(self, own_port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(own_port))
    }
}

impl FromStr for AdvertiseAddress {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let address = if let Ok(ip) = text.parse::<IpAddr>() {
            Self { ip, port: None }
        } else {
            let socket: SocketAddr = text.parse().map_err(|_| InvalidAddress::NotAnIp)?;
            Self { ip: socket.ip(), port: Some(socket.port()) }
        };
        if address.port == Some(0) {
            return Err(InvalidAddress::Port);
        }
        check_ip(address.ip, InvalidAddress::Unspecified)?;
        Ok(address)
    }
}

impl fmt::Display for AdvertiseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

fn check_ip(ip: IpAddr, unspecified: InvalidAddress) -> Result<(), InvalidAddress> {
    // An IPv4 address in IPv6 clothes is the same address.
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Err(unspecified),
        ip if ip.is_multicast() => Err(InvalidAddress::Multicast),
        _ => Ok(()),
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidAddress> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(InvalidAddress::Port)
}

fn parse_host(text: &str) -> Result<SeedHost, InvalidAddress> {
    if text.contains(':') {
        return Err(InvalidAddress::Brackets);
    }
    if let Ok(ip) = text.parse() {
        return Ok(SeedHost::Ip(IpAddr::V4(ip)));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // A name whose last label is a number is a mistyped IPv4 address: no top-level domain is one.
    let numeric_end = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > MAX_NAME_LEN || numeric_end || !name.split('.').all(is_label) {
        return Err(InvalidAddress::Host);
    }
    Ok(SeedHost::Name(name.to_ascii_lowercase()))
}

/// A DNS label as hosts have them (RFC 1123 § 2.1), and with the underscores of container networks.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_LEN).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_seed_is_an_ip_a_bracketed_ipv6_or_a_name_with_a_port() {
        for text in ["127.0.0.1:8001", "[2001:db8::1]:1", "coordinator:65535", "a_b.c-d.example:8001"] {
            assert_eq!(text.parse::<SeedAddress>().unwrap().to_string(), text);
        }
        assert_eq!("Host.Example.:8001".parse::<SeedAddress>().unwrap().to_string(), "host.example:8001");
    }

    #[test]
    fn a_seed_says_what_it_lacks() {
        for (text, why) in [
            ("10.0.0.1", InvalidAddress::NoPort),
            ("", InvalidAddress::NoPort),
            ("[::1]", InvalidAddress::NoPort),
            ("a:0", InvalidAddress::Port),
            ("a:65536", InvalidAddress::Port),
            ("a:+80", InvalidAddress::Port),
            ("a:", InvalidAddress::Port),
            ("::1:8001", InvalidAddress::Brackets),
            ("https://a:1", InvalidAddress::Brackets),
            ("[a]:1", InvalidAddress::Ipv6),
            ("[::1:1", InvalidAddress::Ipv6),
            (":1", InvalidAddress::Host),
            ("10.0.0.256:1", InvalidAddress::Host),
            ("a b:1", InvalidAddress::Host),
            ("a..b:1", InvalidAddress::Host),
            ("-a:1", InvalidAddress::Host),
            ("0.0.0.0:1", InvalidAddress::UnspecifiedSeed),
            ("[::]:1", InvalidAddress::UnspecifiedSeed),
            ("224.0.0.1:1", InvalidAddress::Multicast),
        ] {
            assert_eq!(text.parse::<SeedAddress>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn an_advertised_ip_without_a_port_means_our_own_port() {
        for (text, full) in [
            ("10.0.0.5", "10.0.0.5:8001"),
            ("10.0.0.5:18001", "10.0.0.5:18001"),
            ("2001:db8::1", "[2001:db8::1]:8001"),
            ("[2001:db8::1]:18001", "[2001:db8::1]:18001"),
        ] {
            let address: AdvertiseAddress = text.parse().unwrap();
            assert_eq!(address.socket_addr(8001).to_string(), full);
            assert_eq!(address.to_string(), text);
        }
        for (text, why) in [
            ("0.0.0.0", InvalidAddress::Unspecified),
            ("0.0.0.0:8001", InvalidAddress::Unspecified),
            ("::", InvalidAddress::Unspecified),
            ("::ffff:0.0.0.0", InvalidAddress::Unspecified),
            ("10.0.0.5:0", InvalidAddress::Port),
            ("ff02::1", InvalidAddress::Multicast),
            ("host:8001", InvalidAddress::NotAnIp),
        ] {
            assert_eq!(text.parse::<AdvertiseAddress>(), Err(why), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_seed_that_parses_reads_back(text in "[a-zA-Z0-9_.:\\[\\]-]{0,30}") {
            if let Ok(seed) = text.parse::<SeedAddress>() {
                prop_assert_eq!(seed.to_string().parse::<SeedAddress>(), Ok(seed));
            }
        }
    }
}
