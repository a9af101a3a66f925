//! A request in proto3 JSON to start from: every field once, in the order of the schema.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use std::cell::Cell;

/// Messages inside messages are filled in to this depth; recursive ones end there.
const MAX_DEPTH: usize = 4;
/// Most fields of one example; the messages after that stay empty.
const MAX_FIELDS: usize = 1_000;

/// The message as compact JSON.
pub(super) fn request(message: &MessageDescriptor) -> String {
    Example { fields: Cell::new(MAX_FIELDS) }.object(message, 0)
}

/// An example with room for so many fields.
struct Example {
    fields: Cell<usize>,
}

impl Example {
    fn object(&self, message: &MessageDescriptor, depth: usize) -> String {
        if let Some(known) = well_known(message.full_name()) {
            return known.to_owned();
        }
        let shown: Vec<_> = message.fields().filter(is_shown).collect();
        let Some(left) = self.fields.get().checked_sub(shown.len()).filter(|_| depth < MAX_DEPTH) else {
            return "{}".to_owned();
        };
        self.fields.set(left);
        let fields = shown.iter();
        let fields =
            fields.map(|field| format!("{}:{}", quoted(field.json_name()), self.value(field, depth)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }

    fn value(&self, field: &FieldDescriptor, depth: usize) -> String {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let kind = entry.map_entry_key_field().kind();
            let number = self.single(&kind, depth).trim_matches('"').to_owned();
            let key = if kind == Kind::String { "key".to_owned() } else { number };
            return format!(
                "{{{}:{}}}",
                quoted(&key),
                self.single(&entry.map_entry_value_field().kind(), depth)
            );
        }
        let single = self.single(&field.kind(), depth);
        if field.is_list() { format!("[{single}]") } else { single }
    }

    fn single(&self, kind: &Kind, depth: usize) -> String {
        match kind {
            Kind::Message(message) => self.object(message, depth + 1),
            Kind::Enum(enumeration) => {
                // The zero value means "unspecified" by custom; the one after it says more.
                let value = enumeration.values().nth(1).unwrap_or_else(|| enumeration.default_value());
                quoted(value.name())
            }
            Kind::Bool => "false".to_owned(),
            Kind::String | Kind::Bytes => quoted(""),
            // JSON numbers lose digits above 2^53, so 64-bit integers are strings.
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => quoted("0"),
            Kind::Int32
            | Kind::Uint32
            | Kind::Sint32
            | Kind::Fixed32
            | Kind::Sfixed32
            | Kind::Double
            | Kind::Float => "0".to_owned(),
        }
    }
}

/// Of a oneof, only the first field can be set.
fn is_shown(field: &FieldDescriptor) -> bool {
    let oneof = field.containing_oneof();
    oneof.is_none_or(|oneof| oneof.fields().next().is_some_and(|first| first == *field))
}

/// Messages that have a JSON form of their own.
fn well_known(full_name: &str) -> Option<&'static str> {
    Some(match full_name {
        "google.protobuf.Timestamp" => "\"2026-01-01T00:00:00Z\"",
        "google.protobuf.Duration" => "\"1s\"",
        "google.protobuf.FieldMask" => "\"field\"",
        "google.protobuf.Struct" | "google.protobuf.Any" => "{}",
        "google.protobuf.Value" => "null",
        "google.protobuf.ListValue" => "[]",
        "google.protobuf.BoolValue" => "false",
        "google.protobuf.StringValue" | "google.protobuf.BytesValue" => "\"\"",
        "google.protobuf.Int64Value" | "google.protobuf.UInt64Value" => "\"0\"",
        "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue" => "0",
        _ => return None,
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;

    fn example(message: &str) -> String {
        let pool = DescriptorPool::decode(p2p_proto::DESCRIPTORS).expect("our own schema");
        request(&pool.get_message_by_name(message).expect("our own message"))
    }

    #[test]
    fn every_kind_of_field_has_an_example_that_is_json() {
        let text = example("p2p.v1.NodeInfo");
        assert_eq!(
            text,
            r#"{"nodeId":"","role":"","state":"MEMBER_STATE_ALIVE","addresses":[""],"zone":"","labels":{"key":""},"epoch":"0","version":"","services":[""],"rttMs":0,"lastChange":"2026-01-01T00:00:00Z","certExpiresAt":"2026-01-01T00:00:00Z","evicted":false}"#
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn messages_of_many_messages_do_not_grow_without_end() {
        use prost_reflect::prost_types::{
            DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
            field_descriptor_proto::{Label, Type},
        };
        let field = |number: i32| FieldDescriptorProto {
            name: Some(format!("f{number}")),
            number: Some(number),
            r#type: Some(Type::Message.into()),
            type_name: Some(".M".to_owned()),
            label: Some(Label::Optional.into()),
            ..FieldDescriptorProto::default()
        };
        // 200^4 fields, at the depth that is shown.
        let message = DescriptorProto {
            name: Some("M".to_owned()),
            field: (1..=200).map(field).collect(),
            ..DescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("m.proto".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![message],
            ..FileDescriptorProto::default()
        };
        let set = FileDescriptorSet { file: vec![file] };
        let pool = DescriptorPool::from_file_descriptor_set(set).expect("described");
        let text = request(&pool.get_message_by_name("M").expect("described"));
        assert!(text.matches(':').count() <= MAX_FIELDS, "{} bytes", text.len());
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn only_the_first_field_of_a_oneof_is_set() {
        assert_eq!(example("p2p.v1.CallRequest"), r#"{"method":"","node":"","json":""}"#);
        assert_eq!(example("p2p.v1.GetInfoRequest"), "{}");
    }
}
