//! The address that others should dial.

use crate::config::{Config, SeedHost};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// An address of the documentation range (RFC 5737), which nobody has: asking for the route to it gives the
/// source address of the default route. Nothing is sent.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The addresses to advertise for a node that listens on `listening`, most preferred first: the configured
/// ones; else the bound one, if it is a single one; else the source address towards a seed, or of the
/// default route; else loopback.
pub(super) fn addresses(config: &Config, listening: SocketAddr) -> Vec<SocketAddr> {
    let port = listening.port();
    if !config.advertise_addresses.is_empty() {
        return config.advertise_addresses.iter().map(|address| address.socket_addr(port)).collect();
    }
    if !listening.ip().is_unspecified() {
        return vec![listening];
    }
    let seeds = config.coordinator_addresses.iter().filter_map(|seed| match &seed.host {
        SeedHost::Ip(ip) => Some(SocketAddr::new(*ip, seed.port)),
        SeedHost::Name(name) => {
            std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), seed.port)).ok()?.next()
        }
    });
    let found = seeds.chain([NOWHERE]).find_map(source_towards);
    if found.is_none() {
        tracing::warn!(
            "no route to anywhere; advertising loopback, which other hosts cannot reach (advertise_addresses sets it)"
        );
    }
    vec![SocketAddr::new(found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port)]
}

/// The source address that the system would use towards `target`. Connecting a UDP socket sends nothing.
fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Config {
        Config::from_yaml(&format!("node_id: a\n{yaml}"), "test").expect("valid")
    }

    #[test]
    fn what_is_configured_or_bound_is_advertised_with_the_real_port() {
        let any: SocketAddr = "0.0.0.0:4321".parse().expect("address");
        let configured = config("advertise_addresses: [10.0.0.5, '10.0.0.6:99']");
        let expected: Vec<SocketAddr> =
            ["10.0.0.5:4321", "10.0.0.6:99"].iter().map(|text| text.parse().expect("address")).collect();
        assert_eq!(addresses(&configured, any), expected);
        let bound: SocketAddr = "127.0.0.1:4321".parse().expect("address");
        assert_eq!(addresses(&config(""), bound), vec![bound]);
    }

    #[test]
    fn an_unspecified_address_is_never_advertised() {
        let towards_seed = config("coordinator_addresses: ['127.0.0.1:8001']");
        let any: SocketAddr = "0.0.0.0:4321".parse().expect("address");
        assert_eq!(addresses(&towards_seed, any), vec!["127.0.0.1:4321".parse().expect("address")]);
    }
}
