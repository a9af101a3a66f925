//! Translation between proto3 JSON and encoded messages.

use crate::error::{Fault, Reason};
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use std::io;

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
