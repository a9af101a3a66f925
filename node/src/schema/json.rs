//! Translation between proto3 JSON and encoded messages.

use crate::error::{Fault, Reason};
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use std::io;

/// Messages inside messages of an answer, those inside `google.protobuf.Any` included. prost counts anew in each `Any`, and
/// the serializer calls itself for each level.
const MAX_DEPTH: usize = 100;

/// Encodes the proto3 JSON of a request. Unknown fields are refused: they are typing errors. A refusal names the field, in
/// its text and as the fact `field`.
pub fn encode_json(message: &MessageDescriptor, json: &str) -> Result<Bytes, Fault> {
    let mut track = serde_path_to_error::Track::new();
    let mut reader = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let decoded = DynamicMessage::deserialize_with_options(message.clone(), tracked, &options);
    let decoded = decoded.map_err(|error| misfit(message, field_of(&track.path(), &error), &error))?;
    reader.end().map_err(|error| misfit(message, None, &error))?;
    Ok(decoded.encode_to_vec().into())
}

/// Where in the JSON `error` lies, as in `lines[2].amount`; `None` for the message as a whole.
fn field_of(path: &serde_path_to_error::Path, error: &serde_json::Error) -> Option<String> {
    let path = path.to_string();
    // What follows a question mark could not be told.
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('.');
    let inside = (!path.is_empty() && path != ".").then(|| path.to_owned());
    // prost-reflect says which field it does not know; the path ends before it.
    let text = error.to_string();
    let unknown = text.split_once("unrecognized field name '").and_then(|(_, rest)| rest.split_once('\''));
    match (inside, unknown) {
        (Some(path), Some((name, _))) if path.rsplit('.').next() != Some(name) => {
            Some(format!("{path}.{name}"))
        }
        (None, Some((name, _))) => Some(name.to_owned()),
        (path, _) => path,
    }
}

fn misfit(message: &MessageDescriptor, field: Option<String>, error: &serde_json::Error) -> Fault {
    let name = message.full_name();
    let at = field.as_ref().map(|field| format!("field {field}: ")).unwrap_or_default();
    let mut fault =
        Fault::new(Reason::InvalidArgument, format!("the JSON is no valid {name} message: {at}{error}"));
    fault.metadata = field.map(|field| Box::new(("field", field)));
    fault
}

/// The proto3 JSON of an answer, with default values spelled out; `None` if it takes more than `limit` bytes: a message of
/// two bytes can have a thousand fields.
pub fn decode_json(message: &MessageDescriptor, bytes: Bytes, limit: usize) -> Result<Option<String>, Fault> {
    let decoded = DynamicMessage::decode(message.clone(), bytes).map_err(|error| {
        let name = message.full_name();
        Fault::new(
            Reason::ProviderGarbled,
            format!("the answer is no {name} message as its descriptors say: {error}"),
        )
    })?;
    if nests_deeper(&decoded, MAX_DEPTH) {
        let name = message.full_name();
        let text = format!("the {name} message of the answer is nested deeper than {MAX_DEPTH} messages");
        return Err(Fault::new(Reason::ProviderGarbled, text));
    }
    let mut json = Bounded { text: Vec::new(), limit, full: false };
    let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(true);
    let written = decoded.serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options);
    match written {
        Ok(()) => String::from_utf8(json.text).map(Some).map_err(Fault::internal),
        Err(_) if json.full => Ok(None),
        Err(error) => {
            let name = message.full_name();
            Err(Fault::new(
                Reason::ProviderGarbled,
                format!("the {name} message of the answer has no JSON form: {error}"),
            ))
        }
    }
}

/// Whether there are more than `levels` messages inside each other, also in encoded ones.
fn nests_deeper(message: &DynamicMessage, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return true };
    if message.descriptor().full_name() == "google.protobuf.Any" {
        // What does not read is told by the serializer.
        return packed(message).is_some_and(|inside| nests_deeper(&inside, levels));
    }
    message.fields().any(|(_, value)| holds_deeper(value, levels))
}

fn holds_deeper(value: &Value, levels: usize) -> bool {
    let one = value.as_message().is_some_and(|message| nests_deeper(message, levels));
    let mut list = value.as_list().into_iter().flatten();
    let mut map = value.as_map().into_iter().flat_map(|map| map.values());
    one || list.any(|value| holds_deeper(value, levels)) || map.any(|value| holds_deeper(value, levels))
}

/// The message in an `Any`.
fn packed(any: &DynamicMessage) -> Option<DynamicMessage> {
    let packed: prost_types::Any = any.transcode_to().ok()?;
    let name = packed.type_url.rsplit_once('/')?.1;
    let descriptor = any.descriptor().parent_pool().get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, packed.value.as_slice()).ok()
}

/// Text up to a limit.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len().saturating_add(bytes.len()) > self.limit {
            self.full = true;
            return Err(io::Error::other("full"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn message(name: &str) -> MessageDescriptor {
        let schema = Schema::decode(p2p_proto::DESCRIPTORS).expect("our own descriptors");
        schema.pool().get_message_by_name(name).expect("our own message")
    }

    #[test]
    fn json_goes_there_and_back() {
        let echo = message("p2p.v1.EchoRequest");
        let bytes = encode_json(&echo, r#"{"message":"hé"}"#).expect("valid");
        assert_eq!(decode_json(&echo, bytes, 100).expect("valid").as_deref(), Some(r#"{"message":"hé"}"#));
        let empty = decode_json(&echo, Bytes::new(), 100).expect("valid");
        assert_eq!(empty.as_deref(), Some(r#"{"message":""}"#));
    }

    #[test]
    fn json_that_does_not_fit_names_the_field() {
        for (name, bad, field) in [
            ("p2p.v1.EchoRequest", r#"{"massage":"x"}"#, Some("massage")),
            ("p2p.v1.EchoRequest", r#"{"message":3}"#, Some("message")),
            ("p2p.v1.EchoRequest", r#"[]"#, None),
            ("p2p.v1.EchoRequest", "{", None),
            ("p2p.v1.EchoRequest", "{} x", None),
            ("p2p.v1.ListNodesResponse", r#"{"nodes":[{},{"epoch":-1}]}"#, Some("nodes[1].epoch")),
            ("p2p.v1.ListNodesResponse", r#"{"nodes":[{"epok":1}]}"#, Some("nodes[0].epok")),
            ("p2p.v1.ListNodesResponse", r#"{"nodes":[{"labels":{"a":7}}]}"#, Some("nodes[0].labels.a")),
        ] {
            let fault = encode_json(&message(name), bad).expect_err(bad);
            assert_eq!(fault.reason, Reason::InvalidArgument);
            let named = fault.metadata.as_ref().map(|fact| (fact.0, fact.1.as_str()));
            assert_eq!(named, field.map(|field| ("field", field)), "{bad}: {}", fault.message);
            assert!(field.is_none_or(|field| fault.message.contains(field)), "{}", fault.message);
        }
    }

    #[test]
    fn json_nested_without_end_is_refused() {
        let deep = format!("{{\"nodes\":{}", "[".repeat(1_000_000));
        assert!(encode_json(&message("p2p.v1.ListNodesResponse"), &deep).is_err());
    }

    /// `google.protobuf.Any` alone.
    fn any() -> MessageDescriptor {
        use prost_types::{
            DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
            field_descriptor_proto::{Label, Type},
        };
        let field = |name: &str, number, kind: Type| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            r#type: Some(kind.into()),
            label: Some(Label::Optional.into()),
            ..FieldDescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("google/protobuf/any.proto".to_owned()),
            package: Some("google.protobuf".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("Any".to_owned()),
                field: vec![field("type_url", 1, Type::String), field("value", 2, Type::Bytes)],
                ..DescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let schema = Schema::decode(set).expect("a schema");
        schema.pool().get_message_by_name("google.protobuf.Any").expect("described")
    }

    fn any_in_any(levels: usize) -> Bytes {
        let mut value = Vec::new();
        for _ in 0..levels {
            let type_url = "x/google.protobuf.Any".to_owned();
            value = prost_types::Any { type_url, value }.encode_to_vec();
        }
        value.into()
    }

    #[test]
    fn messages_packed_in_each_other_do_not_end_the_stack() {
        let any = any();
        let fault = decode_json(&any, any_in_any(20_000), 1 << 20).expect_err("too deep");
        assert!(fault.message.contains("deeper than 100 messages"), "{}", fault.message);
        // The innermost is empty, which no Any may be; what is as deep as may be is read to its end.
        let fault = decode_json(&any, any_in_any(MAX_DEPTH - 1), 1 << 20).expect_err("an empty Any");
        assert!(fault.message.contains("no JSON form"), "{}", fault.message);
    }

    #[test]
    fn an_answer_that_grows_in_json_is_cut_off_at_the_limit() {
        let list = message("p2p.v1.ListNodesResponse");
        // Each node takes two bytes, and 190 as JSON.
        let bytes = Bytes::from([0x0a, 0].repeat(10_000));
        assert_eq!(decode_json(&list, bytes, 100_000).expect("decoded"), None);
        let fault = decode_json(&list, Bytes::from_static(b"\x0a\xff"), 100).expect_err("no message");
        assert_eq!(fault.reason, Reason::ProviderGarbled);
    }
}
