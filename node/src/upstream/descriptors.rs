//! What is believed of descriptors that a process gives: bounds first, then one set in one order.
//!
//! The set is made of the files' own bytes, so custom options survive, and of nothing that the service does not need.
//! What it then is checked for is what descriptors of other nodes are, too (`schema/descriptors.rs`); the bounds here are
//! below those there, because what this node publishes must be taken everywhere.

use super::problem::Problem;
use crate::schema::{
    Schema,
    descriptors::{elements, imports_first, join, split},
};
use bytes::Bytes;
use p2p_core::{ServiceName, method::MethodInfo, record::MAX_RECORD_BYTES};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use std::collections::BTreeMap;

/// Most bytes of all descriptors of one service.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Most files.
pub(super) const MAX_FILES: usize = 256;
/// Most methods of one service.
pub(super) const MAX_METHODS: usize = 512;
/// Most messages, fields, enum values and methods together.
const MAX_ELEMENTS: usize = 32_768;
/// What a record has beside its methods: name, state, digest.
const RECORD_BYTES: usize = 1024;
/// What a method has in a record beside its name.
const METHOD_BYTES: usize = 16;

/// Files by name, each with its bytes, within the bounds.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<String, (FileDescriptorProto, Bytes)>,
    bytes: usize,
    elements: usize,
}

impl Files {
    /// The files of an encoded `FileDescriptorSet`.
    pub(super) fn of_set(encoded: &Bytes) -> Result<Self, Problem> {
        if encoded.len() > MAX_BYTES {
            return Err(too_large());
        }
        let mut files = Self::default();
        for file in split(encoded)? {
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
        // Imports first, else by name: the same files make the same set, whatever order they came in.
        let (files, encoded): (Vec<_>, Vec<_>) = self.files.values().cloned().unzip();
        let set = join(imports_first(&files)?.into_iter().map(|at| encoded[at].clone()).collect());
        let schema = Schema::decode(set)?;
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
}

fn too_large() -> Problem {
    Problem::Bounds(format!("more than {MAX_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{DescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

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
    fn circles_and_bombs_are_refused_before_a_pool_sees_them() {
        let circle = [service(1), file("a.proto", &["b.proto"], &[0]), file("b.proto", &["a.proto"], &[0])];
        let why = schema(&circle).expect_err("refused");
        assert_eq!((why.word(), why.to_string().contains("imports itself")), ("descriptor_bounds", true));

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
