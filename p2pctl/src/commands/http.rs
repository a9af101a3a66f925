//! One GET to the node's HTTP side, with the trust and identity of the session.

use crate::{error::Failure, session::Session};
use p2p_client::{
    ConnectError, ConnectOptions,
    error::{connect_error, files_error},
    refusal::refusal,
};
use reqwest::{Certificate, Client, Response, StatusCode};

/// Largest body that is read, in bytes: 10,000 series of metrics take about 2 MB.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Status and text of an answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// Gets `path` from the session's node.
pub(crate) async fn get(session: &Session<'_>, path: &str) -> Result<Answer, Failure> {
    let options = session.connect_options()?;
    let client = client(&options, session)?;
    let uri = options.endpoint.uri(path);
    let mut request = client.get(uri);
    if let Some(token) = &options.token {
        request = request.header("authorization", token.header().clone());
    }
    let response = request.send().await;
    let response = match response {
        Ok(response) => response,
        Err(error) => return Err(failure(&error, &options, session).await),
    };
    let status = response.status();
    let body = read(response, &options, session).await?;
    Ok(Answer { status, body })
}

impl Answer {
    /// The failure that a status outside 2xx means; what `path` was for stands in `what`.
    pub(crate) fn failure(&self, what: &str, session: &Session<'_>) -> Failure {
        let endpoint = &session.global().endpoint;
        let reason = self.problem().unwrap_or_else(|| self.status.to_string());
        let message = format!("{endpoint} did not answer with {what}: {reason}");
        if self.status == StatusCode::UNAUTHORIZED {
            return Failure::unauthenticated(message).hint("Pass --cert FILE --key FILE of an admin");
        }
        if self.status == StatusCode::FORBIDDEN {
            return Failure::denied(message).hint("Pass --cert FILE --key FILE of an admin");
        }
        if self.status == StatusCode::NOT_FOUND {
            return Failure::not_found(message).hint("Is it a P2P node?");
        }
        Failure::other(message)
    }

    /// What an RFC 9457 problem document says.
    fn problem(&self) -> Option<String> {
        let problem: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        let text = problem.get("detail").or_else(|| problem.get("title"))?;
        Some(text.as_str()?.to_owned())
    }
}

fn client(options: &ConnectOptions, session: &Session<'_>) -> Result<Client, Failure> {
    let files = |error: reqwest::Error| session.connect_failure(&files_error(&error));
    // Like the gRPC side: straight to the node, never through a proxy from the environment.
    let mut builder = Client::builder().no_proxy().timeout(options.timeout).connect_timeout(options.timeout);
    if let Some(path) = options.endpoint.socket() {
        builder = builder.unix_socket(path);
    }
    if !options.endpoint.is_plain() {
        let no_ca = || session.connect_failure(&ConnectError::NoCa);
        let ca_pem = options.ca_pem.as_deref().ok_or_else(no_ca)?;
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca_pem).map_err(files)?);
        if let Some(identity) = &options.identity {
            let pem = [identity.cert_pem.as_slice(), b"\n", &identity.key_pem].concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(files)?);
        }
    }
    builder.build().map_err(files)
}

async fn read(
    mut response: Response,
    options: &ConnectOptions,
    session: &Session<'_>,
) -> Result<String, Failure> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY_BYTES => body.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                return Err(Failure::other(format!("the answer is larger than {MAX_BODY_BYTES} bytes")));
            }
            Ok(None) => return Ok(String::from_utf8_lossy(&body).into_owned()),
            Err(error) => return Err(failure(&error, options, session).await),
        }
    }
}

async fn failure(error: &reqwest::Error, options: &ConnectOptions, session: &Session<'_>) -> Failure {
    let endpoint = &options.endpoint;
    if error.is_timeout() && !error.is_connect() {
        return Failure::timed_out(format!("{endpoint} did not answer within {:?}", options.timeout))
            .hint("--timeout allows more");
    }
    let error = connect_error(error, endpoint);
    let refused = match error {
        ConnectError::Unreachable { .. } => refusal(options).await,
        ConnectError::NoCa
        | ConnectError::Files { .. }
        | ConnectError::Tls { .. }
        | ConnectError::TimedOut { .. } => None,
    };
    session.connect_failure(&refused.unwrap_or(error))
}
