//! The wire messages of P2P Core: package `p2p.v1`, compiled from `proto/p2p/v1/*.proto`.
//!
//! What lives here: the generated types ([`v1`], [`health`]), their descriptor set ([`DESCRIPTORS`]) and the words by
//! which people see their enums in JSON ([`json`]). What does not: any behaviour.
//!
//! By default this is messages only; the feature `transport` adds tonic's clients and servers.

/// Package `p2p.v1`. Field documentation is that of the `.proto` files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_enum_match_arm, clippy::unwrap_used)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/p2p.v1.rs"));
}

/// Package `grpc.health.v1`: the standard health service, with `List`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_enum_match_arm, clippy::unwrap_used)]
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

pub mod json;

/// The encoded `google.protobuf.FileDescriptorSet` of `p2p.v1` and `grpc.health.v1` and all that they import, with
/// comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use prost_types::Timestamp;
