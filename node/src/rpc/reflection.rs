//! `grpc.reflection.v1` and `v1alpha` (some clients still speak only the latter), read from the registry.

use crate::{registry::Registry, schema::Schema};
use prost_reflect::FileDescriptor;
use std::{collections::BTreeSet, pin::Pin, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};

#[derive(Clone, Debug)]
pub(super) struct Reflection(pub(super) Arc<Registry>);

impl Reflection {
    fn schemas(&self) -> impl Iterator<Item = Arc<Schema>> {
        let schemas: Vec<_> = self.0.local().values().map(|service| service.schema.clone()).collect();
        schemas.into_iter()
    }

    fn services(&self) -> Vec<String> {
        self.0.local().keys().map(ToString::to_string).collect()
    }

    fn file(&self, name: &str) -> Result<Vec<Vec<u8>>, Status> {
        let found = self.schemas().find_map(|schema| schema.pool().get_file_by_name(name));
        found.map(with_imports).ok_or_else(|| Status::not_found(format!("no file {name:?}")))
    }

    fn file_of_symbol(&self, symbol: &str) -> Result<Vec<Vec<u8>>, Status> {
        let found = self.schemas().find_map(|schema| file_of_symbol(&schema, symbol));
        found.map(with_imports).ok_or_else(|| Status::not_found(format!("no symbol {symbol:?}")))
    }

    fn file_of_extension(&self, message: &str, number: i32) -> Result<Vec<Vec<u8>>, Status> {
        let found = self.schemas().find_map(|schema| {
            let message = schema.pool().get_message_by_name(message)?;
            Some(message.get_extension(u32::try_from(number).ok()?)?.parent_file())
        });
        found
            .map(with_imports)
            .ok_or_else(|| Status::not_found(format!("no extension {number} of {message:?}")))
    }

    fn extension_numbers(&self, message: &str) -> Result<Vec<i32>, Status> {
        let found = self.schemas().find_map(|schema| schema.pool().get_message_by_name(message));
        let message = found.ok_or_else(|| Status::not_found(format!("no message {message:?}")))?;
        Ok(message.extensions().filter_map(|extension| i32::try_from(extension.number()).ok()).collect())
    }
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

/// The file and all that it imports, encoded; most clients ask for imports one by one otherwise.
fn with_imports(file: FileDescriptor) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let mut queue = vec![file];
    let mut encoded = Vec::new();
    while let Some(file) = queue.pop() {
        if seen.insert(file.name().to_owned()) {
            queue.extend(file.dependencies());
            encoded.push(file.encode_to_vec());
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

            fn answer(reflection: &Reflection, request: ServerReflectionRequest) -> ServerReflectionResponse {
                let files = |file_descriptor_proto| {
                    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
                };
                let result = match &request.message_request {
                    Some(MessageRequest::FileByFilename(name)) => reflection.file(name).map(files),
                    Some(MessageRequest::FileContainingSymbol(symbol)) => {
                        reflection.file_of_symbol(symbol).map(files)
                    }
                    Some(MessageRequest::FileContainingExtension(extension)) => reflection
                        .file_of_extension(&extension.containing_type, extension.extension_number)
                        .map(files),
                    Some(MessageRequest::AllExtensionNumbersOfType(message)) => {
                        reflection.extension_numbers(message).map(|extension_number| {
                            MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                base_type_name: message.clone(),
                                extension_number,
                            })
                        })
                    }
                    Some(MessageRequest::ListServices(_)) => {
                        let service =
                            reflection.services().into_iter().map(|name| ServiceResponse { name }).collect();
                        Ok(MessageResponse::ListServicesResponse(ListServiceResponse { service }))
                    }
                    None => Err(Status::new(Code::InvalidArgument, "an empty reflection request")),
                };
                let message = result.unwrap_or_else(|status| {
                    MessageResponse::ErrorResponse(ErrorResponse {
                        error_code: status.code().into(),
                        error_message: status.message().to_owned(),
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
                            if sender.send(Ok(answer(&reflection, request))).await.is_err() {
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
