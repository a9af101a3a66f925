//! The first message each way of a gossip stream: may these two work together?

use crate::{
    ClusterId, Epoch, NodeId,
    membership::{Identity, Life},
    wire::FEATURE_LZ4,
};
use p2p_proto::v1::Hello;
use std::net::SocketAddr;

/// Oldest gossip protocol version that this release speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest gossip protocol version that this release speaks. A release always speaks the version of the one
/// before as well.
pub const PROTOCOL_MAX: u32 = 1;

/// Why two nodes cannot gossip. Each names both sides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloMismatch {
    /// Not of one cluster.
    #[error("{peer} belongs to cluster {theirs:?}, this node to {ours}")]
    Cluster {
        /// The peer.
        peer: NodeId,
        /// Its cluster.
        theirs: String,
        /// Our cluster.
        ours: ClusterId,
    },
    /// The hello names another node than the certificate.
    #[error("the certificate names {certificate}, the hello {hello:?}")]
    Node {
        /// Whom the certificate names.
        certificate: NodeId,
        /// Whom the hello names.
        hello: String,
    },
    /// No common protocol version.
    #[error(
        "{peer} ({software}) speaks gossip protocol {min} to {max}, this node {PROTOCOL_MIN} to {PROTOCOL_MAX}; upgrade the older one"
    )]
    Protocol {
        /// The peer.
        peer: NodeId,
        /// Its release.
        software: String,
        /// Its oldest version.
        min: u32,
        /// Its newest version.
        max: u32,
    },
    /// The peer is this very node.
    #[error("this is the node itself")]
    Ourselves,
    /// The advertised address is not one that can be dialled.
    #[error("{peer} advertises {address:?}, which nobody can dial; set advertise_addresses there")]
    Address {
        /// The peer.
        peer: NodeId,
        /// What it advertises.
        address: String,
    },
}

/// What two hellos agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The peer's present life.
    pub identity: Identity,
    /// The version to speak.
    pub protocol: u32,
    /// The highest epoch of our own node id that the peer has seen.
    pub known_epoch: Option<Epoch>,
    /// Whether the peer reads compressed frames.
    pub lz4: bool,
}

/// The hello that the life `own` of `cluster` sends to a peer of whom it knows `known_epoch`.
pub fn hello(cluster: &ClusterId, own: &Identity, known_epoch: Option<Epoch>) -> Hello {
    Hello {
        cluster_id: cluster.to_string(),
        node_id: own.node.to_string(),
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: vec![FEATURE_LZ4.to_owned()],
        epoch: own.epoch.0,
        generation: own.generation,
        instance: own.instance,
        advertise_address: own.address.to_string(),
        known_epoch: known_epoch.map_or(0, |epoch| epoch.0),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Checks the hello of the node that the connection's certificate names.
pub fn negotiate(
    cluster: &ClusterId,
    own: &NodeId,
    certificate: &NodeId,
    theirs: &Hello,
) -> Result<Peer, HelloMismatch> {
    let peer = certificate.clone();
    if peer == *own {
        return Err(HelloMismatch::Ourselves);
    }
    if theirs.node_id != peer.as_str() {
        return Err(HelloMismatch::Node { certificate: peer, hello: theirs.node_id.clone() });
    }
    if theirs.cluster_id != cluster.as_str() {
        return Err(HelloMismatch::Cluster {
            peer,
            theirs: theirs.cluster_id.clone(),
            ours: cluster.clone(),
        });
    }
    let (min, max) = (theirs.protocol_min, theirs.protocol_max);
    if min > PROTOCOL_MAX || max < PROTOCOL_MIN || min > max {
        return Err(HelloMismatch::Protocol { peer, software: theirs.version.clone(), min, max });
    }
    let address: Option<SocketAddr> = theirs.advertise_address.parse().ok();
    let Some(address) = address.filter(|address| !address.ip().is_unspecified() && address.port() != 0)
    else {
        return Err(HelloMismatch::Address { peer, address: theirs.advertise_address.clone() });
    };
    Ok(Peer {
        identity: Life {
            node: peer,
            epoch: Epoch(theirs.epoch),
            generation: theirs.generation,
            instance: theirs.instance,
            address,
        }
        .into(),
        protocol: max.min(PROTOCOL_MAX),
        known_epoch: (theirs.known_epoch != 0).then_some(Epoch(theirs.known_epoch)),
        lz4: theirs.features.iter().any(|feature| feature == FEATURE_LZ4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(node: &str) -> Identity {
        let (epoch, generation, instance) = (Epoch(5), 1, 9);
        let address = "127.0.0.1:8001".parse().expect("address");
        Life { node: node.parse().expect("id"), epoch, generation, instance, address }.into()
    }

    #[test]
    fn a_hello_of_the_same_release_agrees() {
        let cluster: ClusterId = "c".parse().expect("id");
        let sent = hello(&cluster, &life("a"), Some(Epoch(3)));
        let peer = negotiate(&cluster, &life("b").node, &life("a").node, &sent).expect("agrees");
        assert_eq!((peer.identity, peer.known_epoch), (life("a"), Some(Epoch(3))));
    }

    #[test]
    fn a_feature_that_the_peer_does_not_name_is_not_used() {
        let cluster: ClusterId = "c".parse().expect("id");
        let reads_lz4 = |features: &[&str]| {
            let features = features.iter().map(|feature| (*feature).to_owned()).collect();
            let sent = Hello { features, ..hello(&cluster, &life("a"), None) };
            negotiate(&cluster, &life("b").node, &life("a").node, &sent).expect("agrees").lz4
        };
        assert!(reads_lz4(
            &hello(&cluster, &life("a"), None).features.iter().map(String::as_str).collect::<Vec<_>>()
        ));
        assert!(reads_lz4(&["of-the-future", "lz4"]));
        assert!(!reads_lz4(&[]));
        assert!(!reads_lz4(&["LZ4", "lz4hc"]));
    }

    #[test]
    fn a_mismatch_names_both_sides() {
        let cluster: ClusterId = "c".parse().expect("id");
        let other: ClusterId = "d".parse().expect("id");
        let (a, b) = (life("a").node.clone(), life("b").node.clone());
        let good = hello(&cluster, &life("a"), None);
        let message = |hello: &Hello| negotiate(&cluster, &b, &a, hello).expect_err("refused").to_string();

        assert_eq!(message(&hello(&other, &life("a"), None)), "a belongs to cluster \"d\", this node to c");
        assert_eq!(message(&hello(&cluster, &life("x"), None)), "the certificate names a, the hello \"x\"");
        assert_eq!(
            message(&Hello { protocol_min: 7, protocol_max: 9, version: "3.0.0".into(), ..good.clone() }),
            "a (3.0.0) speaks gossip protocol 7 to 9, this node 1 to 1; upgrade the older one"
        );
        assert_eq!(
            message(&Hello { advertise_address: "0.0.0.0:1".into(), ..good.clone() }),
            "a advertises \"0.0.0.0:1\", which nobody can dial; set advertise_addresses there"
        );
        assert_eq!(negotiate(&cluster, &a, &a, &good), Err(HelloMismatch::Ourselves));
    }
}
