//! `grpc.reflection.v1` and `v1alpha` (some clients still speak only the latter), of every service in the cluster.
//!
//! What other nodes provide is described by the descriptors that the router fetches and keeps. Where two providers publish
//! different files of one name, every node gives the same one: that of the services of the system, else that of the service
//! which comes first by name.

use crate::{
    error::{Fault, Reason},
    registry::Method,
    router::{Router, within},
    schema::Schema,
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use p2p_core::ServiceName;
use prost::Message as _;
use prost_reflect::FileDescriptor;
use prost_types::FileDescriptorProto;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Longest that one question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors waited for at a time, of one question.
const AT_ONCE: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Reflection(pub(super) Arc<Router>);

/// Services in the order in which their files are looked through: those of the system, then by name.
type Services = BTreeMap<(bool, Box<str>), Arc<Method>>;

impl Reflection {
    /// Every service that can be called now, with one of its methods.
    fn services(&self) -> Services {
        let table = self.0.registry().table();
        let mut services = Services::new();
        for method in table.methods.values() {
            if method.local.is_none() && method.providers.is_empty() {
                continue;
            }
            let service = method.info.path.service();
            let own = service.parse::<ServiceName>().is_ok_and(|name| name.is_reserved());
            let known = services.entry((!own, service.into())).or_insert_with(|| method.clone());
            // Always the same one, since methods may have different first providers.
            if method.info.path < known.info.path {
                *known = method.clone();
            }
        }
        services
    }

    fn names(&self) -> Vec<String> {
        self.services().into_keys().map(|(_, name)| name.into_string()).collect()
    }

    /// The schemas of all services, in order, and why others are missing.
    async fn schemas(&self) -> (Vec<Arc<Schema>>, Option<Fault>) {
        let asked = stream::iter(self.services().into_values());
        let fetched = asked.map(|method| async move { self.0.schema(&method).await }).buffered(AT_ONCE);
        let (mut schemas, mut seen, mut missing) = (Vec::<Arc<Schema>>::new(), BTreeSet::new(), None);
        let mut fetched = std::pin::pin!(fetched);
        while let Some(schema) = fetched.next().await {
            match schema {
                Ok(schema) if seen.insert(schema.digest()) => schemas.push(schema),
                Ok(_) => {}
                // Services without descriptors are no failure.
                Err(fault) if fault.reason == Reason::NotFound => {}
                Err(fault) => missing = Some(fault),
            }
        }
        (schemas, missing)
    }

    /// What `find` finds first.
    async fn first<T>(&self, what: String, find: impl Fn(&Schema) -> Option<T>) -> Result<T, Fault> {
        let (schemas, missing) = self.schemas().await;
        let found = schemas.iter().find_map(|schema| find(schema));
        found.ok_or_else(|| missing.unwrap_or_else(|| Fault::new(Reason::NotFound, format!("no {what}"))))
    }

    async fn file(&self, name: &str) -> Result<Vec<Bytes>, Fault> {
        let (schemas, missing) = self.schemas().await;
        let mut having = schemas.iter().filter_map(|schema| Some((schema, schema.file(name)?)));
        let Some((schema, file)) = having.next() else {
            return Err(missing.unwrap_or_else(|| Fault::new(Reason::NotFound, format!("no file {name:?}"))));
        };
        if having.any(|(_, other)| differ(file, other)) {
            self.0.count_conflict();
        }
        schema.pool().get_file_by_name(name).map(|file| with_imports(schema, file)).ok_or_else(no_pool)
    }

    async fn file_of_symbol(&self, symbol: &str) -> Result<Vec<Bytes>, Fault> {
        let services = self.services();
        // A service, or a method of one, asks for the descriptors of that service only.
        let parent = symbol.rsplit_once('.').map_or(symbol, |(parent, _)| parent);
        for name in [symbol, parent] {
            let found = services.iter().find(|((_, service), _)| **service == *name);
            if let Some((_, method)) = found {
                let schema = self.0.schema(method).await?;
                if let Some(file) = file_of_symbol(&schema, symbol) {
                    return Ok(with_imports(&schema, file));
                }
            }
        }
        let find = |schema: &Schema| file_of_symbol(schema, symbol).map(|file| with_imports(schema, file));
        self.first(format!("symbol {symbol:?}"), find).await
    }

    async fn file_of_extension(&self, message: &str, number: i32) -> Result<Vec<Bytes>, Fault> {
        let find = |schema: &Schema| {
            let extended = schema.pool().get_message_by_name(message)?;
            let extension = extended.get_extension(u32::try_from(number).ok()?)?;
            Some(with_imports(schema, extension.parent_file()))
        };
        self.first(format!("extension {number} of {message:?}"), find).await
    }

    async fn extension_numbers(&self, message: &str) -> Result<Vec<i32>, Fault> {
        let find = |schema: &Schema| {
            let extended = schema.pool().get_message_by_name(message)?;
            let numbers = extended.extensions().map(|extension| extension.number());
            Some(numbers.filter_map(|number| i32::try_from(number).ok()).collect())
        };
        self.first(format!("message {message:?}"), find).await
    }
}

fn no_pool() -> Fault {
    Fault::internal("a file of a schema is not in its pool")
}

/// Whether two files say different things; where their comments stand is not one.
fn differ(one: &Bytes, other: &Bytes) -> bool {
    let read = |file: &Bytes| {
        let mut file = FileDescriptorProto::decode(file.clone()).ok()?;
        file.source_code_info = None;
        Some(file)
    };
    one != other && read(one) != read(other)
}

fn file_of_symbol(schema: &Schema, symbol: &str) -> Option<FileDescriptor> {
    let pool = schema.pool();
    if let Some(service) = pool.get_service_by_name(symbol) {
        return Some(service.parent_file());
    }
    if let Some(message) = pool.get_message_by_name(symbol) {
        return Some(message.parent_file());
    }
    if let Some(enumeration) = pool.get_enum_by_name(symbol) {
        return Some(enumeration.parent_file());
    }
    if let Some(extension) = pool.get_extension_by_name(symbol) {
        return Some(extension.parent_file());
    }
    // A method or field belongs to the symbol before its last dot.
    let (parent, member) = symbol.rsplit_once('.')?;
    let method = pool.get_service_by_name(parent).filter(|s| s.methods().any(|m| m.name() == member));
    let field = pool.get_message_by_name(parent).filter(|m| m.get_field_by_name(member).is_some());
    method.map(|s| s.parent_file()).or_else(|| field.map(|m| m.parent_file()))
}

/// The file and all that it imports, as they were encoded; most clients ask for imports one by one otherwise.
fn with_imports(schema: &Schema, file: FileDescriptor) -> Vec<Bytes> {
    let mut seen = BTreeSet::new();
    let mut queue = vec![file];
    let mut encoded = Vec::new();
    while let Some(file) = queue.pop() {
        if seen.insert(file.name().to_owned()) {
            queue.extend(file.dependencies());
            encoded.extend(schema.file(file.name()).cloned());
        }
    }
    encoded
}

macro_rules! serve {
    ($version:ident) => {
        mod $version {
            use super::*;
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
                server_reflection_server::ServerReflection,
            };

            async fn message(
                reflection: &Reflection,
                request: &ServerReflectionRequest,
            ) -> Result<MessageResponse, Fault> {
                let files = |files: Vec<Bytes>| {
                    let file_descriptor_proto = files.iter().map(|file| file.to_vec()).collect();
                    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
                };
                match &request.message_request {
                    Some(MessageRequest::FileByFilename(name)) => reflection.file(name).await.map(files),
                    Some(MessageRequest::FileContainingSymbol(symbol)) => {
                        reflection.file_of_symbol(symbol).await.map(files)
                    }
                    Some(MessageRequest::FileContainingExtension(extension)) => reflection
                        .file_of_extension(&extension.containing_type, extension.extension_number)
                        .await
                        .map(files),
                    Some(MessageRequest::AllExtensionNumbersOfType(message)) => {
                        reflection.extension_numbers(message).await.map(|extension_number| {
                            MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                base_type_name: message.clone(),
                                extension_number,
                            })
                        })
                    }
                    Some(MessageRequest::ListServices(_)) => {
                        let service =
                            reflection.names().into_iter().map(|name| ServiceResponse { name }).collect();
                        Ok(MessageResponse::ListServicesResponse(ListServiceResponse { service }))
                    }
                    None => Err(Fault::new(Reason::InvalidArgument, "an empty reflection request")),
                }
            }

            async fn answer(
                reflection: &Reflection,
                request: ServerReflectionRequest,
            ) -> ServerReflectionResponse {
                let deadline = Instant::now() + ANSWER_TIMEOUT;
                let result = within(Some(deadline), message(reflection, &request)).await;
                let message = result.and_then(|result| result).unwrap_or_else(|fault| {
                    MessageResponse::ErrorResponse(ErrorResponse {
                        error_code: fault.reason.row().code.into(),
                        error_message: fault.message,
                    })
                });
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(message),
                }
            }

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let mut requests = request.into_inner();
                    let reflection = self.clone();
                    let (sender, receiver) = mpsc::channel(4);
                    tokio::spawn(async move {
                        while let Ok(Some(request)) = requests.message().await {
                            if sender.send(Ok(answer(&reflection, request).await)).await.is_err() {
                                return;
                            }
                        }
                    });
                    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
                }
            }
        }
    };
}

serve!(v1);
serve!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_differ_by_what_they_say_and_not_by_where_they_say_it() {
        let file = |package: &str, comments: bool| -> Bytes {
            let source_code_info = comments.then(prost_types::SourceCodeInfo::default);
            let package = Some(package.to_owned());
            FileDescriptorProto { package, source_code_info, ..FileDescriptorProto::default() }
                .encode_to_vec()
                .into()
        };
        assert!(!differ(&file("a", true), &file("a", false)));
        assert!(differ(&file("a", true), &file("b", true)));
    }
}
