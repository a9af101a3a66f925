//! Descriptors and JSON: what the messages of a service look like, and translation of JSON to them.
//!
//! | file | what it holds |
//! |---|---|
//! | [`descriptors`] | reading a set of descriptors that somebody else has made |
//! | [`json`] | proto3 JSON to encoded messages and back |
//! | [`cache`] | schemas of other nodes |
//!
//! Not here: fetching (`router/descriptors.rs`).

pub mod cache;
pub mod descriptors;
pub mod json;

pub use cache::SchemaCache;
pub use descriptors::Comments;
pub use json::{decode_json, encode_json};

use bytes::Bytes;
use p2p_core::method::{Idempotency, MethodInfo, MethodPath, ServiceName, StreamingKind};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use prost_types::method_options::IdempotencyLevel;
use std::collections::BTreeMap;

/// Largest descriptor set taken from another node, in bytes.
pub const MAX_DESCRIPTOR_BYTES: usize = 2 * 1024 * 1024;

/// Why a descriptor set was refused.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not a `FileDescriptorSet`.
    #[error("the descriptor set does not read: {0}")]
    Unreadable(String),
    /// Its files do not fit together.
    #[error("the descriptor set is unusable: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// A file that imports itself, through others or not.
    #[error("the descriptor set is unusable: {0} imports itself")]
    ImportCycle(String),
    /// Two files of one name.
    #[error("the descriptor set is unusable: {0} is in it twice")]
    Twice(String),
    /// It describes more than a node takes.
    #[error("the descriptor set is too large: it has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Most of it.
        limit: usize,
    },
    /// The service is not in it.
    #[error("the descriptor set has no service {0}")]
    NoService(ServiceName),
    /// A method's name cannot be called.
    #[error("service {0} has a method with an invalid name")]
    Method(ServiceName),
}

/// The descriptors of one or more services, as their owner registered them.
#[derive(Clone, Debug)]
pub struct Schema {
    pool: DescriptorPool,
    files: BTreeMap<Box<str>, Bytes>,
    encoded: Bytes,
    digest: [u8; 32],
}

impl Schema {
    /// Reads an encoded `google.protobuf.FileDescriptorSet` with all its imports.
    pub fn decode(encoded: impl Into<Bytes>) -> Result<Self, SchemaError> {
        Self::decode_with(encoded, Comments::Drop)
    }

    /// The same, with the comments of the .proto files or without.
    pub fn decode_with(encoded: impl Into<Bytes>, comments: Comments) -> Result<Self, SchemaError> {
        let encoded = encoded.into();
        let (pool, files) = descriptors::read(&encoded, comments)?;
        let digest = sha256(&encoded);
        Ok(Self { pool, files, encoded, digest })
    }

    /// The file `name` as its maker encoded it.
    pub fn file(&self, name: &str) -> Option<&Bytes> {
        self.files.get(name)
    }

    /// The bytes that it was read from.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// SHA-256 of [`Self::encoded`].
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The descriptors.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The methods of a service.
    pub fn methods(&self, service: &ServiceName) -> Result<Vec<MethodInfo>, SchemaError> {
        let descriptor = self
            .pool
            .get_service_by_name(service.as_str())
            .ok_or_else(|| SchemaError::NoService(service.clone()))?;
        descriptor
            .methods()
            .map(|method| {
                let path = MethodPath::new(service, method.name())
                    .map_err(|_| SchemaError::Method(service.clone()))?;
                Ok(MethodInfo { path, streaming: streaming(&method), idempotency: idempotency(&method) })
            })
            .collect()
    }

    /// The descriptor of a method.
    pub fn method(&self, path: &MethodPath) -> Option<MethodDescriptor> {
        let service = self.pool.get_service_by_name(path.service())?;
        service.methods().find(|method| method.name() == path.method())
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

fn streaming(method: &MethodDescriptor) -> StreamingKind {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => StreamingKind::Unary,
        (false, true) => StreamingKind::Server,
        (true, false) => StreamingKind::Client,
        (true, true) => StreamingKind::Bidi,
    }
}

fn idempotency(method: &MethodDescriptor) -> Idempotency {
    let options = method.method_descriptor_proto().options.as_ref();
    match options.map(prost_types::MethodOptions::idempotency_level) {
        Some(IdempotencyLevel::NoSideEffects) => Idempotency::NoSideEffects,
        Some(IdempotencyLevel::Idempotent) => Idempotency::Idempotent,
        Some(IdempotencyLevel::IdempotencyUnknown) | None => Idempotency::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::decode(p2p_proto::DESCRIPTORS).expect("our own descriptors")
    }

    #[test]
    fn methods_know_their_kind_and_idempotency() {
        let methods = schema().methods(&"p2p.v1.SystemService".parse().expect("a name")).expect("known");
        let echo = methods.iter().find(|method| method.path.method() == "Echo").expect("Echo");
        assert_eq!((echo.streaming, echo.idempotency), (StreamingKind::Unary, Idempotency::NoSideEffects));
        let gossip = schema().methods(&"p2p.v1.GossipService".parse().expect("a name")).expect("known");
        assert_eq!(gossip[0].streaming, StreamingKind::Bidi);
    }
}
