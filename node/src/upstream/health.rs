//! Whether an upstream can take calls.

use super::{channel::Channel, problem::Problem, spec::Spec};
use crate::config::HealthCheck;
use p2p_proto::health::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use std::time::Duration;
use tonic::Code;

/// Longest wait for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer, in bytes.
const ANSWER_MAX: usize = 4096;

/// Asks once, in the way that was chosen.
pub(super) async fn check(spec: &Spec, channel: &Channel) -> Result<(), Problem> {
    let asked = async {
        match spec.health {
            HealthCheck::None => Ok(()),
            HealthCheck::Tcp => Ok(channel.knock().await?),
            HealthCheck::Grpc => ask(spec, channel).await,
            // Whoever does not know the question has answered it, too.
            HealthCheck::Auto => match ask(spec, channel).await {
                Err(Problem::NoHealth) => Ok(()),
                asked => asked,
            },
        }
    };
    let timeout = |_elapsed| Err(Problem::Timeout("its health check"));
    tokio::time::timeout(CHECK_TIMEOUT, asked).await.unwrap_or_else(timeout)
}

/// `Check` for the service, or for the whole process where the service has no state of its own.
async fn ask(spec: &Spec, channel: &Channel) -> Result<(), Problem> {
    match ask_for(spec.name.as_str(), channel).await {
        Err(status) if status.code() == Code::NotFound => {
            ask_for("", channel).await.unwrap_or_else(|status| Err(refused(&status)))
        }
        Err(status) => Err(refused(&status)),
        Ok(answer) => answer,
    }
}

fn refused(status: &tonic::Status) -> Problem {
    let code = status.code();
    if code == Code::Unimplemented {
        return Problem::NoHealth;
    }
    Problem::Unhealthy(format!("{}: {}", crate::registry::code_word(code), short(status.message())))
}

async fn ask_for(service: &str, channel: &Channel) -> Result<Result<(), Problem>, tonic::Status> {
    let connection = match channel.get().await {
        Ok(connection) => connection,
        Err(error) => return Ok(Err(error.into())),
    };
    let mut client = HealthClient::new(connection.clone()).max_decoding_message_size(ANSWER_MAX);
    let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    request.set_timeout(CHECK_TIMEOUT);
    match client.check(request).await {
        Ok(answer) => {
            let status = answer.into_inner().status();
            let serving = status == ServingStatus::Serving;
            Ok(if serving { Ok(()) } else { Err(Problem::Unhealthy(status.as_str_name().to_owned())) })
        }
        Err(status) => match broken(&status, connection.foreign()) {
            Some(problem) => Ok(Err(problem)),
            None => Err(status),
        },
    }
}

/// Whether a status was made here, because the connection broke or something else than gRPC answered.
pub(super) fn broken(status: &tonic::Status, foreign: Option<&'static str>) -> Option<Problem> {
    use std::error::Error as _;
    match (foreign, status.source()) {
        (Some(what), _) => Some(Problem::Broken(format!("the connection: {what}"))),
        (None, Some(error)) => {
            Some(Problem::Broken(format!("the connection: {}", crate::peer::error_chain(error))))
        }
        (None, None) => None,
    }
}

/// What a process says, short enough for a line.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
