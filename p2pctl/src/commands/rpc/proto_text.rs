//! A schema as `.proto` text, with its comments: what somebody who writes a request wants to read.

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    OneofDescriptor, ServiceDescriptor, prost_types::method_options::IdempotencyLevel,
};
use std::collections::BTreeSet;

/// The service with `methods` only, and every message and enum that they reach, except those of
/// `google.protobuf`, which everybody knows.
pub(super) fn service(service: &ServiceDescriptor, methods: &[MethodDescriptor]) -> String {
    let mut printer = Printer { package: service.package_name().to_owned(), ..Printer::default() };
    if !printer.package.is_empty() {
        printer.line(0, &format!("package {};", printer.package.clone()));
        printer.blank();
    }
    printer.service(service, methods);
    for method in methods {
        printer.reach(&Kind::Message(method.input()));
        printer.reach(&Kind::Message(method.output()));
    }
    while let Some(kind) = printer.take() {
        printer.blank();
        match kind {
            Reached::Message(message) => printer.message(&message),
            Reached::Enum(enumeration) => printer.enumeration(&enumeration),
        }
    }
    printer.text
}

/// The comment that stands before (or behind) the element at `path` of its file.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> Option<String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == path)?;
    let text = location.leading_comments.as_deref().or(location.trailing_comments.as_deref())?;
    let lines: Vec<&str> =
        text.trim_end().lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    Some(lines.join("\n"))
}

enum Reached {
    Message(MessageDescriptor),
    Enum(EnumDescriptor),
}

#[derive(Default)]
struct Printer {
    text: String,
    package: String,
    seen: BTreeSet<String>,
    waiting: std::collections::VecDeque<Reached>,
}

impl Printer {
    fn line(&mut self, depth: usize, text: &str) {
        self.text.extend(std::iter::repeat_n("  ", depth));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn comment(&mut self, depth: usize, file: &FileDescriptor, path: &[i32]) {
        for line in comment(file, path).iter().flat_map(|text| text.lines()) {
            self.line(depth, format!("// {line}").trim_end());
        }
    }

    fn service(&mut self, service: &ServiceDescriptor, methods: &[MethodDescriptor]) {
        self.comment(0, &service.parent_file(), service.path());
        self.line(0, &format!("service {} {{", service.name()));
        for method in methods {
            self.method(method);
        }
        self.line(0, "}");
    }

    fn method(&mut self, method: &MethodDescriptor) {
        self.comment(1, &method.parent_file(), method.path());
        let stream = |streams| if streams { "stream " } else { "" };
        let head = format!(
            "rpc {}({}{}) returns ({}{})",
            method.name(),
            stream(method.is_client_streaming()),
            self.short(method.input().full_name()),
            stream(method.is_server_streaming()),
            self.short(method.output().full_name()),
        );
        let options = method.method_descriptor_proto().options.as_ref();
        let level = options.map(|options| options.idempotency_level());
        match level {
            Some(level) if level != IdempotencyLevel::IdempotencyUnknown => {
                self.line(1, &format!("{head} {{"));
                self.line(2, &format!("option idempotency_level = {};", level.as_str_name()));
                self.line(1, "}");
            }
            Some(_) | None => self.line(1, &format!("{head};")),
        }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        self.comment(0, &message.parent_file(), message.path());
        self.line(0, &format!("message {} {{", self.short(message.full_name())));
        let mut printed = BTreeSet::new();
        for field in message.fields() {
            match field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
                None => self.field(1, &field),
                Some(oneof) if printed.insert(oneof.name().to_owned()) => self.oneof(&oneof),
                Some(_) => {}
            }
        }
        self.line(0, "}");
    }

    fn oneof(&mut self, oneof: &OneofDescriptor) {
        self.comment(1, &oneof.parent_file(), oneof.path());
        self.line(1, &format!("oneof {} {{", oneof.name()));
        for field in oneof.fields() {
            self.field(2, &field);
        }
        self.line(1, "}");
    }

    fn field(&mut self, depth: usize, field: &FieldDescriptor) {
        self.comment(depth, &field.parent_file(), field.path());
        let kind = if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            self.reach(&value.kind());
            format!("map<{}, {}>", self.kind(&key.kind()), self.kind(&value.kind()))
        } else {
            self.reach(&field.kind());
            let optional = field.field_descriptor_proto().proto3_optional();
            let label = match field.cardinality() {
                Cardinality::Repeated => "repeated ",
                Cardinality::Required => "required ",
                Cardinality::Optional if optional => "optional ",
                Cardinality::Optional => "",
            };
            format!("{label}{}", self.kind(&field.kind()))
        };
        self.line(depth, &format!("{kind} {} = {};", field.name(), field.number()));
    }

    fn enumeration(&mut self, enumeration: &EnumDescriptor) {
        self.comment(0, &enumeration.parent_file(), enumeration.path());
        self.line(0, &format!("enum {} {{", self.short(enumeration.full_name())));
        for value in enumeration.values() {
            self.comment(1, &enumeration.parent_file(), value.path());
            self.line(1, &format!("{} = {};", value.name(), value.number()));
        }
        self.line(0, "}");
    }

    /// Remembers a message or enum to be printed once, in the order in which they are met.
    fn reach(&mut self, kind: &Kind) {
        let reached = kind.as_message().cloned().map(Reached::Message);
        let Some(reached) = reached.or_else(|| kind.as_enum().cloned().map(Reached::Enum)) else { return };
        let name = match &reached {
            Reached::Message(message) => message.full_name(),
            Reached::Enum(enumeration) => enumeration.full_name(),
        };
        if !name.starts_with("google.protobuf.") && self.seen.insert(name.to_owned()) {
            self.waiting.push_back(reached);
        }
    }

    fn take(&mut self) -> Option<Reached> {
        self.waiting.pop_front()
    }

    fn kind(&self, kind: &Kind) -> String {
        match kind {
            Kind::Message(message) => self.short(message.full_name()),
            Kind::Enum(enumeration) => self.short(enumeration.full_name()),
            Kind::Double
            | Kind::Float
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64
            | Kind::Bool
            | Kind::String
            | Kind::Bytes => format!("{kind:?}").to_lowercase(),
        }
    }

    /// The name without the package that the service is in.
    fn short(&self, full_name: &str) -> String {
        let inside = full_name.strip_prefix(&self.package).and_then(|rest| rest.strip_prefix('.'));
        inside.unwrap_or(full_name).to_owned()
    }
}
