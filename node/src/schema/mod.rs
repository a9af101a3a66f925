//! Descriptors and JSON: what the messages of a service look like, and translation of JSON to them.

use crate::error::{Fault, Reason};
use bytes::Bytes;
use p2p_core::method::{Idempotency, MethodInfo, MethodPath, ServiceName, StreamingKind};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use prost_types::method_options::IdempotencyLevel;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// Most schemas of other nodes kept.
const CACHE_LIMIT: usize = 256;
/// Largest descriptor set taken from another node, in bytes.
pub const MAX_DESCRIPTOR_BYTES: usize = 2 * 1024 * 1024;

/// Why a descriptor set was refused.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not a usable `FileDescriptorSet`.
    #[error("the descriptor set is unusable: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
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
    encoded: Bytes,
    digest: [u8; 32],
}

impl Schema {
    /// Reads an encoded `google.protobuf.FileDescriptorSet` with all its imports.
    pub fn decode(encoded: impl Into<Bytes>) -> Result<Self, SchemaError> {
        let encoded = encoded.into();
        let pool = DescriptorPool::decode(&*encoded)?;
        let digest = sha256(&encoded);
        Ok(Self { pool, encoded, digest })
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

/// Encodes the proto3 JSON of a request. Unknown fields are refused: they are typing errors. A refusal names
/// the field.
pub fn encode_json(message: &MessageDescriptor, json: &str) -> Result<Bytes, Fault> {
    let invalid = |field: &str, error: serde_json::Error| {
        let name = message.full_name();
        Fault::new(Reason::InvalidArgument, format!("the params are no valid {name} message: {field}{error}"))
    };
    let mut track = serde_path_to_error::Track::new();
    let mut reader = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let decoded = DynamicMessage::deserialize_with_options(message.clone(), tracked, &options);
    let decoded = decoded.map_err(|error| {
        let path = track.path();
        let inside = path.iter().next().is_some();
        invalid(&if inside { format!("field {path}: ") } else { String::new() }, error)
    })?;
    reader.end().map_err(|error| invalid("", error))?;
    Ok(decoded.encode_to_vec().into())
}

/// The proto3 JSON of an answer, with default values spelled out.
pub fn decode_json(message: &MessageDescriptor, bytes: Bytes) -> Result<String, Fault> {
    let decoded = DynamicMessage::decode(message.clone(), bytes).map_err(Fault::internal)?;
    let mut json = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut json);
    let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(true);
    decoded.serialize_with_options(&mut writer, &options).map_err(Fault::internal)?;
    String::from_utf8(json).map_err(Fault::internal)
}

/// Schemas fetched from other nodes, by digest. The oldest leave first.
#[derive(Debug, Default)]
pub struct SchemaCache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    schemas: HashMap<[u8; 32], Arc<Schema>>,
    order: VecDeque<[u8; 32]>,
}

impl SchemaCache {
    /// The schema with `digest`, if it was fetched before.
    pub fn get(&self, digest: &[u8]) -> Option<Arc<Schema>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.schemas.get(digest).cloned()
    }

    /// Keeps a schema.
    pub fn insert(&self, schema: Arc<Schema>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.schemas.insert(schema.digest(), schema.clone()).is_none() {
            state.order.push_back(schema.digest());
            if state.order.len() > CACHE_LIMIT
                && let Some(oldest) = state.order.pop_front()
            {
                state.schemas.remove(&oldest);
            }
        }
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

    #[test]
    fn json_goes_there_and_back_and_a_wrong_field_is_named() {
        let method = schema().method(&"p2p.v1.SystemService/Echo".parse().expect("a path")).expect("known");
        let bytes = encode_json(&method.input(), r#"{"message":"hé"}"#).expect("valid");
        assert_eq!(decode_json(&method.input(), bytes).expect("valid"), r#"{"message":"hé"}"#);
        assert_eq!(decode_json(&method.input(), Bytes::new()).expect("valid"), r#"{"message":""}"#);
        for (bad, named) in [
            (r#"{"massage":"x"}"#, "massage"),
            (r#"{"message":3}"#, "message"),
            ("{", "EOF"),
            ("{} x", "trailing"),
        ] {
            let fault = encode_json(&method.input(), bad).expect_err(bad);
            assert_eq!(fault.reason, Reason::InvalidArgument);
            assert!(fault.message.contains(named) || named == "message", "{}", fault.message);
        }
    }
}
