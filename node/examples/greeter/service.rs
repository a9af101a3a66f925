//! The service: any tonic service will do.

use crate::proto::{HelloReply, HelloRequest, RepeatRequest, greeter_server::Greeter};
use std::{pin::Pin, time::Duration};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Greets in the name of a node.
#[derive(Clone, Debug)]
pub(crate) struct Greetings {
    /// The node's id.
    pub(crate) node: String,
}

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

/// Most greetings of one call.
const MOST: usize = 100_000;

impl Greetings {
    fn reply(&self, name: &str, caller: &str) -> HelloReply {
        HelloReply { message: format!("Hello, {name}!"), node: self.node.clone(), caller: caller.to_owned() }
    }
}

/// The node proves who calls and says so in this header.
fn caller(metadata: &MetadataMap) -> String {
    metadata.get("p2p-principal").and_then(|value| value.to_str().ok()).unwrap_or("unknown").to_owned()
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let caller = caller(request.metadata());
        let echo = request.metadata().get("x-demo").cloned();
        let name = request.into_inner().name;
        if name.is_empty() {
            let details = ErrorDetails::with_bad_request_violation("name", "must not be empty");
            let text = "name is empty; whom shall I greet?";
            let mut status = Status::with_error_details(Code::InvalidArgument, text, details);
            status
                .metadata_mut()
                .insert("x-demo-trailer", tonic::metadata::MetadataValue::from_static("sent"));
            return Err(status);
        }
        let mut response = Response::new(self.reply(&name, &caller));
        if let Some(echo) = echo {
            response.metadata_mut().insert("x-demo", echo);
        }
        Ok(response)
    }

    type RepeatStream = Replies;

    async fn repeat(&self, request: Request<RepeatRequest>) -> Result<Response<Replies>, Status> {
        let caller = caller(request.metadata());
        let RepeatRequest { name, count, pause_ms } = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let reply = self.reply(&name, &caller);
        tokio::spawn(async move {
            for _ in 0..(count as usize).min(MOST) {
                if pause_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(pause_ms.into())).await;
                }
                // The caller may turn away at any time.
                if sender.send(Ok(reply.clone())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn gather(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let caller = caller(request.metadata());
        let mut requests = request.into_inner();
        let mut names = Vec::new();
        while let Some(request) = requests.message().await? {
            if names.len() == MOST {
                return Err(Status::resource_exhausted("too many names"));
            }
            names.push(request.name);
        }
        Ok(Response::new(self.reply(&names.join(" and "), &caller)))
    }

    type ChatStream = Replies;

    async fn chat(&self, request: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        let caller = caller(request.metadata());
        let greetings = self.clone();
        let replies = request.into_inner().map(move |request| Ok(greetings.reply(&request?.name, &caller)));
        Ok(Response::new(Box::pin(replies)))
    }
}
