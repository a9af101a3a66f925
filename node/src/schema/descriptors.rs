//! Reading a `FileDescriptorSet` that another node or a user's build has made, before a library builds on it.
//!
//! prost-reflect trusts its input: imports that run in a circle end its stack (0.16.5 follows `import public` without end),
//! public imports of public imports are not followed, and a set of two megabytes can describe half a million elements. So
//! the set is looked at first: everything is counted, circles are refused, and each file is given the public imports of
//! its imports as imports of its own, after which none is public.

use super::SchemaError;
use bytes::Bytes;
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};
use std::collections::{BTreeMap, BTreeSet};

/// Most files of one set.
pub const MAX_FILES: usize = 1_024;
/// Most imports of all files of one set, those through public imports included.
pub const MAX_IMPORTS: usize = 16_384;
/// Most messages, fields, enums and their values, services and methods of one set.
pub const MAX_ELEMENTS: usize = 65_536;

/// A `FileDescriptorSet`, its files as they were encoded.
#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The files of an encoded set, each as it was encoded.
pub fn split(encoded: &Bytes) -> Result<Vec<Bytes>, SchemaError> {
    Ok(Encoded::decode(encoded.clone()).map_err(unreadable)?.file)
}

/// The set of encoded files.
pub fn join(file: Vec<Bytes>) -> Bytes {
    Encoded { file }.encode_to_vec().into()
}

fn unreadable(error: prost::DecodeError) -> SchemaError {
    SchemaError::Unreadable(error.to_string())
}

/// What comments of the .proto files are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comments {
    /// People read them.
    Keep,
    /// Nobody does, and they take more room than all else.
    Drop,
}

/// What a set describes, and its files by name, as they were encoded.
pub(super) fn read(
    encoded: &Bytes,
    comments: Comments,
) -> Result<(DescriptorPool, BTreeMap<Box<str>, Bytes>), SchemaError> {
    let files = split(encoded)?;
    if files.len() > MAX_FILES {
        return Err(SchemaError::TooMany { what: "files", limit: MAX_FILES });
    }
    let (mut protos, mut originals) = (Vec::with_capacity(files.len()), BTreeMap::new());
    for file in files {
        let mut proto = FileDescriptorProto::decode(file.clone()).map_err(unreadable)?;
        if comments == Comments::Drop {
            proto.source_code_info = None;
        }
        if originals.insert(proto.name().into(), file).is_some() {
            return Err(SchemaError::Twice(proto.name().to_owned()));
        }
        protos.push(proto);
    }
    if protos.iter().map(elements).sum::<usize>() > MAX_ELEMENTS {
        return Err(SchemaError::TooMany { what: "elements", limit: MAX_ELEMENTS });
    }
    settle_imports(&mut protos)?;
    let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: protos })?;
    Ok((pool, originals))
}

/// Messages, fields, enums and their values, services and methods: in memory each takes some hundred times its least bytes.
pub fn elements(file: &FileDescriptorProto) -> usize {
    let services = file.service.iter().map(|service| 1 + service.method.len()).sum::<usize>();
    services + contents(&file.message_type, &file.enum_type, &file.extension)
}

/// prost refuses messages nested deeper than 100 when it decodes them.
fn contents(
    messages: &[DescriptorProto],
    enums: &[EnumDescriptorProto],
    extensions: &[FieldDescriptorProto],
) -> usize {
    let message = |message: &DescriptorProto| {
        let inside = contents(&message.nested_type, &message.enum_type, &message.extension);
        1 + message.field.len() + message.oneof_decl.len() + inside
    };
    let messages = messages.iter().map(message).sum::<usize>();
    messages + enums.iter().map(|found| 1 + found.value.len()).sum::<usize>() + extensions.len()
}

/// Refuses circles, and makes what public imports bring each file's own imports.
fn settle_imports(files: &mut [FileDescriptorProto]) -> Result<(), SchemaError> {
    let imports = imports_of(files);
    let order = in_order(&imports, files)?;
    // What whoever imports a file may use: the file itself, and what it imports publicly.
    let mut exports: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); files.len()];
    let mut count = 0;
    for at in order {
        let own: BTreeSet<usize> = imports[at].iter().flat_map(|(to, _)| exports[*to].clone()).collect();
        let public = imports[at].iter().filter(|(_, public)| *public);
        let mut exported: BTreeSet<usize> = public.flat_map(|(to, _)| exports[*to].clone()).collect();
        exported.insert(at);
        count += own.len() + exported.len();
        if count > MAX_IMPORTS {
            return Err(SchemaError::TooMany { what: "imports", limit: MAX_IMPORTS });
        }
        exports[at] = exported;
        let known: BTreeSet<String> = files[at].dependency.iter().cloned().collect();
        let names: Vec<String> = own.iter().map(|to| files[*to].name().to_owned()).collect();
        files[at].dependency.extend(names.into_iter().filter(|name| !known.contains(name)));
        files[at].public_dependency.clear();
    }
    Ok(())
}

/// What each file imports, by its place, and whether publicly. What is missing is left out.
fn imports_of(files: &[FileDescriptorProto]) -> Vec<Vec<(usize, bool)>> {
    let index: BTreeMap<&str, usize> = files.iter().enumerate().map(|(at, file)| (file.name(), at)).collect();
    files
        .iter()
        .map(|file| {
            let public = |at| i32::try_from(at).is_ok_and(|at| file.public_dependency.contains(&at));
            let imports = file.dependency.iter().enumerate();
            imports.filter_map(|(at, name)| Some((*index.get(name.as_str())?, public(at)))).collect()
        })
        .collect()
}

/// The places of `files` so that each comes after those that it imports, else as they are. A circle is refused.
pub fn imports_first(files: &[FileDescriptorProto]) -> Result<Vec<usize>, SchemaError> {
    in_order(&imports_of(files), files)
}

fn in_order(
    imports: &[Vec<(usize, bool)>],
    files: &[FileDescriptorProto],
) -> Result<Vec<usize>, SchemaError> {
    importers_last(imports).map_err(|at| SchemaError::ImportCycle(files[at].name().to_owned()))
}

/// The files so that each comes after those that it imports; a file of a circle, if there is one.
fn importers_last(imports: &[Vec<(usize, bool)>]) -> Result<Vec<usize>, usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        Open,
        Done,
    }
    let mut seen = vec![Seen::Not; imports.len()];
    let mut order = Vec::with_capacity(imports.len());
    for start in 0..imports.len() {
        // Not by recursion: a chain may be as long as there are files.
        let mut path = vec![(start, 0)];
        while let Some((at, next)) = path.pop() {
            if next == 0 {
                if seen[at] == Seen::Done {
                    continue;
                }
                seen[at] = Seen::Open;
            }
            match imports[at].get(next) {
                None => {
                    seen[at] = Seen::Done;
                    order.push(at);
                }
                Some((to, _)) => {
                    path.push((at, next + 1));
                    match seen[*to] {
                        Seen::Open => return Err(*to),
                        Seen::Not => path.push((*to, 0)),
                        Seen::Done => {}
                    }
                }
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{MethodDescriptorProto, ServiceDescriptorProto};

    fn file(name: &str, imports: &[&str], public: &[i32]) -> FileDescriptorProto {
        let named =
            |name: &str| DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
        FileDescriptorProto {
            name: Some(format!("{name}.proto")),
            package: Some(name.to_owned()),
            syntax: Some("proto3".to_owned()),
            dependency: imports.iter().map(|import| format!("{import}.proto")).collect(),
            public_dependency: public.to_vec(),
            message_type: vec![named("M")],
            ..FileDescriptorProto::default()
        }
    }

    fn read_files(file: Vec<FileDescriptorProto>) -> Result<DescriptorPool, SchemaError> {
        let encoded = FileDescriptorSet { file }.encode_to_vec().into();
        read(&encoded, Comments::Drop).map(|(pool, _)| pool)
    }

    #[test]
    fn imports_in_a_circle_are_refused_before_the_library_follows_them() {
        for circle in [
            vec![file("a", &["b"], &[]), file("b", &["b"], &[0])],
            vec![file("a", &["b"], &[0]), file("b", &["c"], &[0]), file("c", &["a"], &[0])],
            vec![file("a", &["a"], &[])],
        ] {
            let error = read_files(circle).expect_err("a circle");
            assert!(error.to_string().contains("imports itself"), "{error}");
        }
    }

    #[test]
    fn public_imports_are_followed_however_deep_and_often_they_are() {
        let mut user = file("user", &["p0"], &[]);
        let method = MethodDescriptorProto {
            name: Some("Get".to_owned()),
            input_type: Some(".p40.M".to_owned()),
            output_type: Some(".p1.M".to_owned()),
            ..MethodDescriptorProto::default()
        };
        user.service = vec![ServiceDescriptorProto {
            name: Some("S".to_owned()),
            method: vec![method],
            ..ServiceDescriptorProto::default()
        }];
        let mut files = vec![user, file("p40", &[], &[])];
        for at in 0..40 {
            let next = format!("p{}", at + 1);
            // Twice: 2^40 ways lead to the last.
            files.push(file(&format!("p{at}"), &[&next, &next], &[0, 1]));
        }
        let pool = read_files(files).expect("valid");
        let service = pool.get_service_by_name("user.S").expect("described");
        assert_eq!(service.methods().next().expect("one").input().full_name(), "p40.M");
    }

    #[test]
    fn a_set_that_would_not_fit_into_memory_is_refused_by_its_counts() {
        let many = (0..=MAX_FILES).map(|at| file(&format!("f{at}"), &[], &[])).collect();
        assert!(read_files(many).expect_err("files").to_string().contains("more than 1024 files"));
        let mut large = file("large", &[], &[]);
        large.message_type[0].field = vec![FieldDescriptorProto::default(); MAX_ELEMENTS];
        assert!(read_files(vec![large]).expect_err("fields").to_string().contains("65536 elements"));
        // Each imports all before it, publicly: half a million imports.
        let names: Vec<String> = (0..1_000).map(|at| format!("f{at}")).collect();
        let chain = (0..1_000).map(|at| {
            let before: Vec<&str> = names[..at].iter().map(String::as_str).collect();
            file(&names[at], &before, &(0..i32::try_from(at).expect("fits")).collect::<Vec<_>>())
        });
        assert!(read_files(chain.collect()).expect_err("imports").to_string().contains("16384 imports"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_largest_set_that_is_taken_fits_into_memory() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
            let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
            pages.expect("a number") * 4_096
        };
        let fields = (1..MAX_ELEMENTS - 10).map(|number| prost_types::FieldDescriptorProto {
            name: Some(format!("f{number}")),
            number: Some(i32::try_from(number).expect("fits") + 20_000),
            r#type: Some(prost_types::field_descriptor_proto::Type::Bool.into()),
            label: Some(prost_types::field_descriptor_proto::Label::Optional.into()),
            ..prost_types::FieldDescriptorProto::default()
        });
        let mut large = file("large", &[], &[]);
        large.message_type[0].field = fields.collect();
        let before = resident();
        let pool = read_files(vec![large]).expect("just small enough");
        let grown = resident().saturating_sub(before);
        println!("{MAX_ELEMENTS} elements take {} MiB", grown >> 20);
        assert!(grown < 256 << 20, "{grown}");
        drop(pool);
    }

    #[test]
    fn what_is_no_set_of_files_is_an_error() {
        let twice = vec![file("a", &[], &[]), file("a", &[], &[])];
        assert!(read_files(twice).expect_err("twice").to_string().contains("twice"));
        assert!(
            read_files(vec![file("a", &["gone"], &[])]).expect_err("gone").to_string().contains("gone.proto")
        );
        assert!(read(&Bytes::from_static(b"\x0a\xff"), Comments::Keep).is_err());
    }
}
