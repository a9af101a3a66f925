//! What build.rs makes of greeter.proto.

#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/demo.v1.rs"));

/// The encoded `FileDescriptorSet` of package `demo.v1`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/greeter.bin"));
