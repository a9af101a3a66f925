//! The methods of an upstream: from the descriptors that came with it, else by gRPC reflection, v1 and where that is
//! unknown v1alpha.

use super::{
    channel::Channel,
    descriptors::{Files, MAX_BYTES},
    health::{broken, short},
    problem::Problem,
    spec::Spec,
};
use crate::schema::Schema;
use p2p_core::{ServiceName, method::MethodInfo, suggest};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// Longest that all questions together may take.
const LEARN_TIMEOUT: Duration = Duration::from_secs(3);
/// Most names of services that are looked at for a hint.
const LISTED_MAX: usize = 64;

/// What is known of a service.
#[derive(Clone, Debug)]
pub(super) struct Learned {
    pub(super) schema: Arc<Schema>,
    pub(super) methods: Vec<MethodInfo>,
    /// The connection that was asked: over another one, another process may answer.
    pub(super) dialled: u64,
}

/// Learns the methods of `spec`'s service.
pub(super) async fn learn(spec: &Spec, channel: &Channel) -> Result<Learned, Problem> {
    let files = match &spec.descriptors {
        Some(encoded) => Files::of_set(encoded)?,
        None => {
            let timeout = |_elapsed| Err(Problem::Timeout("its reflection"));
            tokio::time::timeout(LEARN_TIMEOUT, reflect(&spec.name, channel)).await.unwrap_or_else(timeout)?
        }
    };
    let dialled = channel.dialled();
    let name = spec.name.clone();
    // Up to a megabyte of descriptors: not among the calls.
    let built = tokio::task::spawn_blocking(move || files.schema(&name)).await;
    let (schema, methods) = built.map_err(|_| Problem::Descriptors("reading them failed".to_owned()))??;
    Ok(Learned { schema: Arc::new(schema), methods, dialled })
}

async fn reflect(service: &ServiceName, channel: &Channel) -> Result<Files, Problem> {
    match v1::reflect(service, channel).await {
        Err(Problem::NoReflection) => v1alpha::reflect(service, channel).await,
        reflected => reflected,
    }
}

/// What the upstream implements, as a hint for who misspelt a name.
fn listed(service: &ServiceName, mut names: Vec<String>) -> String {
    names.retain(|name| name.parse::<ServiceName>().is_ok_and(|name| !name.is_reserved()));
    names.truncate(LISTED_MAX);
    match suggest::nearest(service.as_str(), names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "it lists no services of users".to_owned(),
        None => format!("it lists {}", short(&names.join(", "))),
    }
}

fn unknown(listed: String) -> Problem {
    Problem::NoService { listed }
}

fn is_unknown(problem: &Problem) -> bool {
    matches!(problem, Problem::NoService { .. })
}

macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use super::*;
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest as Ask,
                server_reflection_response::MessageResponse as Answer,
            };

            /// One stream of questions: each is sent when the one before was answered.
            struct Conversation {
                asking: mpsc::Sender<ServerReflectionRequest>,
                answers: tonic::Streaming<tonic_reflection::pb::$version::ServerReflectionResponse>,
                foreign: super::super::channel::Connection,
            }

            impl Conversation {
                async fn begin(channel: &Channel, first: Ask) -> Result<Self, Problem> {
                    let connection = channel.get().await?;
                    let (asking, questions) = mpsc::channel(1);
                    let foreign = connection.clone();
                    let mut client =
                        ServerReflectionClient::new(connection).max_decoding_message_size(MAX_BYTES);
                    // Some servers answer only once they were asked, with their headers too.
                    if asking.send(question(first)).await.is_err() {
                        return Err(Problem::Reflection("the stream ended".to_owned()));
                    }
                    let answers = client.server_reflection_info(ReceiverStream::new(questions)).await;
                    let answers = answers.map_err(|status| failed(&status, foreign.foreign()))?.into_inner();
                    Ok(Self { asking, answers, foreign })
                }

                async fn ask(&mut self, ask: Ask) -> Result<Answer, Problem> {
                    if self.asking.send(question(ask)).await.is_err() {
                        return Err(Problem::Reflection("the stream ended early".to_owned()));
                    }
                    self.answer().await
                }

                async fn answer(&mut self) -> Result<Answer, Problem> {
                    let answer = self.answers.message().await;
                    let answer = answer.map_err(|status| failed(&status, self.foreign.foreign()))?;
                    let answer = answer.and_then(|answer| answer.message_response);
                    answer.ok_or_else(|| Problem::Reflection("it ends without an answer".to_owned()))
                }
            }

            fn question(ask: Ask) -> ServerReflectionRequest {
                ServerReflectionRequest { host: String::new(), message_request: Some(ask) }
            }

            fn failed(status: &tonic::Status, foreign: Option<&'static str>) -> Problem {
                if let Some(problem) = broken(status, foreign) {
                    return problem;
                }
                let code = status.code();
                if code == Code::Unimplemented {
                    Problem::NoReflection
                } else if code == Code::NotFound {
                    unknown(String::new())
                } else if code == Code::OutOfRange {
                    Problem::Bounds(format!("more than {MAX_BYTES} bytes"))
                } else {
                    let word = crate::registry::code_word(code);
                    Problem::Reflection(format!("{word}: {}", short(status.message())))
                }
            }

            fn add(files: &mut Files, answer: Answer, wanted: &str) -> Result<(), Problem> {
                match answer {
                    Answer::FileDescriptorResponse(found) => {
                        found.file_descriptor_proto.into_iter().try_for_each(|file| files.add(file.into()))
                    }
                    Answer::ErrorResponse(error) => Err(Problem::Reflection(format!(
                        "asked for {:?}: {}",
                        short(wanted),
                        short(&error.error_message)
                    ))),
                    Answer::AllExtensionNumbersResponse(_) | Answer::ListServicesResponse(_) => {
                        Err(Problem::Reflection("another answer than was asked for".to_owned()))
                    }
                }
            }

            /// What the upstream says that it implements.
            async fn list(channel: &Channel) -> Result<Vec<String>, Problem> {
                let mut talk = Conversation::begin(channel, Ask::ListServices(String::new())).await?;
                match talk.answer().await? {
                    Answer::ListServicesResponse(list) => {
                        Ok(list.service.into_iter().map(|service| service.name).collect())
                    }
                    Answer::FileDescriptorResponse(_)
                    | Answer::AllExtensionNumbersResponse(_)
                    | Answer::ErrorResponse(_) => Ok(Vec::new()),
                }
            }

            pub(super) async fn reflect(service: &ServiceName, channel: &Channel) -> Result<Files, Problem> {
                let begun = async {
                    let first = Ask::FileContainingSymbol(service.to_string());
                    let mut talk = Conversation::begin(channel, first).await?;
                    let answer = talk.answer().await?;
                    Ok((talk, answer))
                };
                let not_found = i32::from(Code::NotFound);
                // Some answer that there is none, some end the stream with it.
                let (mut talk, answer) = match begun.await {
                    Ok((_, Answer::ErrorResponse(error))) if error.error_code == not_found => {
                        return Err(unknown(listed(service, list(channel).await?)));
                    }
                    Err(problem) if is_unknown(&problem) => {
                        return Err(unknown(listed(service, list(channel).await?)));
                    }
                    begun => begun?,
                };
                let mut files = Files::default();
                add(&mut files, answer, service.as_str())?;
                while let Some(missing) = files.missing().map(str::to_owned) {
                    let none = || Problem::Reflection(format!("it gives no {:?}", short(&missing)));
                    let answer = talk.ask(Ask::FileByFilename(missing.clone())).await;
                    let answer = answer.map_err(|why| if is_unknown(&why) { none() } else { why })?;
                    add(&mut files, answer, &missing)?;
                    if files.missing() == Some(missing.as_str()) {
                        return Err(none());
                    }
                }
                Ok(files)
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);
