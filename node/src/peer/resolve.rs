//! Addresses from the configuration, resolved anew at each try.

use crate::config::{SeedAddress, SeedHost};
use std::{net::SocketAddr, time::Duration};

/// Longest wait for a name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The socket addresses of a seed; none if its name does not resolve now.
pub async fn resolve(seed: &SeedAddress) -> Vec<SocketAddr> {
    let name = match &seed.host {
        SeedHost::Ip(ip) => return vec![SocketAddr::new(*ip, seed.port)],
        SeedHost::Name(name) => name,
    };
    let lookup = tokio::net::lookup_host((name.as_str(), seed.port));
    match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            tracing::warn!(seed = %seed, %error, "seed's name does not resolve; trying again later");
            Vec::new()
        }
        Err(_elapsed) => {
            tracing::warn!(seed = %seed, "name server did not answer; trying again later");
            Vec::new()
        }
    }
}
