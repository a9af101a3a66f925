//! What is believed of descriptors that a process gives: bounds first, then one set in one order.
//!
//! The set is made of the files' own bytes, so custom options survive, and of nothing that the service does not need.
//! Imports in a circle, and public imports with so many ways through them that a resolver would not come to an end, are
//! refused before a descriptor pool sees them.

use super::problem::Problem;
use crate::schema::Schema;
use bytes::{BufMut as _, Bytes, BytesMut};
use p2p_core::{ServiceName, method::MethodInfo, record::MAX_RECORD_BYTES};
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use std::collections::BTreeMap;

/// Most bytes of all descriptors of one service.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Most files.
pub(super) const MAX_FILES: usize = 256;
/// Most methods of one service.
pub(super) const MAX_METHODS: usize = 512;
/// Most messages, fields, enum values and methods together: in memory each takes some hundred times its least bytes.
const MAX_ELEMENTS: usize = 32_768;
/// Most ways through public imports, from any file.
const MAX_WAYS: usize = 4096;
/// What a record has beside its methods: name, state, digest.
const RECORD_BYTES: usize = 1024;
/// What a method has in a record beside its name.
const METHOD_BYTES: usize = 16;
/// Field 1, length-delimited: `FileDescriptorSet.file`.
const FILE_TAG: u8 = 0x0a;

/// Files by name, each with its bytes, within the bounds.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<String, (FileDescriptorProto, Bytes)>,
    bytes: usize,
    elements: usize,
}

/// The one message that is read here: a descriptor set as its files' bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

impl Files {
    /// The files of an encoded `FileDescriptorSet`.
    pub(super) fn of_set(encoded: &Bytes) -> Result<Self, Problem> {
        if encoded.len() > MAX_BYTES {
            return Err(too_large());
        }
        let set = RawSet::decode(encoded.clone())
            .map_err(|_| Problem::Descriptors("no encoded FileDescriptorSet".to_owned()))?;
        let mut files = Self::default();
        for file in set.file {
            files.add(file)?;
        }
        Ok(files)
    }

    /// Adds one encoded file. A name that is there already keeps its file.
    pub(super) fn add(&mut self, encoded: Bytes) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(encoded.len());
        if self.bytes > MAX_BYTES {
            return Err(too_large());
        }
        let file = FileDescriptorProto::decode(&*encoded)
            .map_err(|_| Problem::Descriptors("a file is no encoded FileDescriptorProto".to_owned()))?;
        self.elements = self.elements.saturating_add(elements(&file));
        if self.elements > MAX_ELEMENTS {
            return Err(Problem::Bounds(format!(
                "more than {MAX_ELEMENTS} messages, fields, enum values and methods"
            )));
        }
        self.files.entry(file.name().to_owned()).or_insert((file, encoded));
        if self.files.len() > MAX_FILES {
            return Err(Problem::Bounds(format!("more than {MAX_FILES} files")));
        }
        Ok(())
    }

    /// An import that is still missing.
    pub(super) fn missing(&self) -> Option<&str> {
        let imports = self.files.values().flat_map(|(file, _)| &file.dependency);
        imports.map(String::as_str).find(|name| !self.files.contains_key(*name))
    }

    /// The schema of `service`, and its methods.
    pub(super) fn schema(&self, service: &ServiceName) -> Result<(Schema, Vec<MethodInfo>), Problem> {
        if let Some(missing) = self.missing() {
            let shown: String = missing.chars().take(256).collect();
            return Err(Problem::Descriptors(format!(
                "{shown:?} is imported and missing; make the set with all imports (protoc --include_imports)"
            )));
        }
        let mut set = BytesMut::with_capacity(self.bytes + 8 * self.files.len());
        for name in self.ordered()? {
            let encoded = &self.files[name].1;
            set.put_u8(FILE_TAG);
            prost::encoding::encode_varint(encoded.len() as u64, &mut set);
            set.put_slice(encoded);
        }
        let schema = Schema::decode(set.freeze())?;
        let methods = schema.methods(service)?;
        let record: usize = methods.iter().map(|method| method.path.method().len() + METHOD_BYTES).sum();
        if methods.len() > MAX_METHODS || record + RECORD_BYTES > MAX_RECORD_BYTES {
            return Err(Problem::Bounds(format!(
                "more than {MAX_METHODS} methods, or names too long for a record"
            )));
        }
        if methods.is_empty() {
            return Err(Problem::Bounds(format!("{service} has no methods")));
        }
        Ok((schema, methods))
    }

    /// The names of all files, imports before those who import them, else by name: the same files make the same set,
    /// whatever order they came in.
    fn ordered(&self) -> Result<Vec<&str>, Problem> {
        let mut ordered: Vec<&str> = Vec::with_capacity(self.files.len());
        let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
        while ordered.len() < self.files.len() {
            let before = ordered.len();
            for (name, (file, _)) in &self.files {
                let placed = |import: &String| ways.contains_key(import.as_str());
                if ways.contains_key(name.as_str()) || !file.dependency.iter().all(placed) {
                    continue;
                }
                let public = file.public_dependency.iter().filter_map(|index| {
                    file.dependency
                        .get(usize::try_from(*index).ok()?)
                        .and_then(|import| ways.get(import.as_str()))
                });
                let through = public.fold(1_usize, |sum, ways| sum.saturating_add(*ways));
                if through > MAX_WAYS {
                    return Err(Problem::Bounds("its public imports are tangled".to_owned()));
                }
                ways.insert(name, through);
                ordered.push(name);
            }
            if ordered.len() == before {
                return Err(Problem::Bounds("its files import each other in a circle".to_owned()));
            }
        }
        Ok(ordered)
    }
}

fn elements(file: &FileDescriptorProto) -> usize {
    let methods: usize = file.service.iter().map(|service| service.method.len() + 1).sum();
    methods + file.extension.len() + in_messages(&file.message_type) + in_enums(&file.enum_type)
}

/// As deep as they may be nested: decoding bounds that.
fn in_messages(messages: &[DescriptorProto]) -> usize {
    let inside = |message: &DescriptorProto| {
        let own = message.field.len() + message.extension.len() + message.oneof_decl.len();
        own + in_messages(&message.nested_type) + in_enums(&message.enum_type)
    };
    messages.iter().map(|message| 1 + inside(message)).sum()
}

fn in_enums(enums: &[EnumDescriptorProto]) -> usize {
    enums.iter().map(|one| 1 + one.value.len()).sum()
}

fn too_large() -> Problem {
    Problem::Bounds(format!("more than {MAX_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{MethodDescriptorProto, ServiceDescriptorProto};

    fn file(name: &str, imports: &[&str], public: &[i32]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.to_owned()),
            package: Some("t".to_owned()),
            syntax: Some("proto3".to_owned()),
            dependency: imports.iter().map(|&import| import.to_owned()).collect(),
            public_dependency: public.to_vec(),
            ..FileDescriptorProto::default()
        }
    }

    fn service(methods: usize) -> FileDescriptorProto {
        let message = DescriptorProto { name: Some("M".to_owned()), ..DescriptorProto::default() };
        let method = |number| MethodDescriptorProto {
            name: Some(format!("Do{number}")),
            input_type: Some(".t.M".to_owned()),
            output_type: Some(".t.M".to_owned()),
            ..MethodDescriptorProto::default()
        };
        let service = ServiceDescriptorProto {
            name: Some("S".to_owned()),
            method: (0..methods).map(method).collect(),
            ..ServiceDescriptorProto::default()
        };
        FileDescriptorProto {
            message_type: vec![message],
            service: vec![service],
            ..file("s.proto", &[], &[])
        }
    }

    fn files(all: &[FileDescriptorProto]) -> Files {
        let mut files = Files::default();
        for file in all {
            files.add(file.encode_to_vec().into()).expect("within the bounds");
        }
        files
    }

    fn schema(all: &[FileDescriptorProto]) -> Result<(Schema, Vec<MethodInfo>), Problem> {
        files(all).schema(&"t.S".parse().expect("a name"))
    }

    #[test]
    fn the_same_files_make_the_same_set_in_whatever_order_they_come() {
        let (a, b) = (file("a.proto", &["b.proto"], &[]), file("b.proto", &[], &[]));
        let (first, methods) = schema(&[service(2), a.clone(), b.clone()]).expect("fine");
        let (second, _) = schema(&[b, service(2), a]).expect("fine");
        assert_eq!((first.digest(), methods.len()), (second.digest(), 2));
        // As a descriptor file, it reads back.
        let again = Files::of_set(first.encoded()).expect("reads").schema(&"t.S".parse().expect("a name"));
        assert_eq!(again.expect("fine").0.digest(), first.digest());
    }

    #[test]
    fn circles_tangles_and_bombs_are_refused_before_a_pool_sees_them() {
        let circle = [service(1), file("a.proto", &["b.proto"], &[0]), file("b.proto", &["a.proto"], &[0])];
        let why = schema(&circle).expect_err("refused");
        assert_eq!((why.word(), why.to_string().contains("circle")), ("descriptor_bounds", true));

        // Each layer imports both files of the one below, publicly: 2^30 ways through it.
        let mut tangle = vec![service(1), file("l0a", &[], &[]), file("l0b", &[], &[])];
        for layer in 1..30 {
            let below = [format!("l{}a", layer - 1), format!("l{}b", layer - 1)];
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            for side in ["a", "b"] {
                tangle.push(file(&format!("l{layer}{side}"), &below, &[0, 1]));
            }
        }
        assert!(schema(&tangle).expect_err("refused").to_string().contains("tangled"));

        assert!(schema(&[service(MAX_METHODS)]).is_ok());
        assert_eq!(schema(&[service(MAX_METHODS + 1)]).expect_err("refused").word(), "descriptor_bounds");
        assert_eq!(schema(&[service(0)]).expect_err("refused").word(), "descriptor_bounds");

        let mut many = Files::default();
        let added: Result<Vec<()>, Problem> = (0..=MAX_FILES)
            .map(|number| many.add(file(&format!("{number}"), &[], &[]).encode_to_vec().into()))
            .collect();
        assert_eq!(added.expect_err("refused").word(), "descriptor_bounds");
        let field = prost_types::FieldDescriptorProto::default();
        let message = DescriptorProto { field: vec![field; MAX_ELEMENTS], ..DescriptorProto::default() };
        let bomb = FileDescriptorProto { message_type: vec![message], ..file("bomb", &[], &[]) };
        let why = Files::default().add(bomb.encode_to_vec().into()).expect_err("refused");
        assert!(why.to_string().contains("fields"), "{why}");
        let huge = Bytes::from(vec![0_u8; MAX_BYTES + 1]);
        assert_eq!(Files::of_set(&huge).expect_err("refused").word(), "descriptor_bounds");
    }

    #[test]
    fn a_set_without_its_imports_says_how_to_make_one() {
        let why = schema(&[service(1), file("a.proto", &["google/protobuf/any.proto"], &[])]);
        assert!(why.expect_err("refused").to_string().contains("--include_imports"));
        for garbage in [&b"\xff\xff"[..], b"\x0a\x02\xff\xff"] {
            let bytes = Bytes::from_static(garbage);
            assert_eq!(Files::of_set(&bytes).expect_err("refused").word(), "descriptors");
        }
        let why = schema(&[file("a.proto", &[], &[])]).expect_err("refused");
        assert!(why.to_string().contains("no service t.S"), "{why}");
    }
}
