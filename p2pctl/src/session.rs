//! From the global flags to a connection, and from its errors to advice.

use crate::{
    cli::GlobalOptions,
    error::Failure,
    output::{Output, progress::waiting},
};
use anyhow::Context as _;
use p2p_client::{CallError, ConnectError, ConnectOptions, Connection, ErrorKind, Identity, Token};
use std::{cell::OnceCell, fs, path::Path};

mod token;

pub(crate) use token::TokenSource;

/// What to do when the node does not accept who calls.
const ADMIN_ADVICE: &str = "Pass --cert FILE --key FILE of an admin (or set P2PCTL_CERT and P2PCTL_KEY); \
     `p2pctl certs generate` makes admin_cert.pem";

/// One run of p2pctl against one node.
pub(crate) struct Session<'a> {
    global: &'a GlobalOptions,
    /// Read once: standard input gives it only once.
    token: OnceCell<Option<Token>>,
}

/// How many coordinators are tried when a node names them.
const COORDINATORS_TRIED: usize = 3;

impl<'a> Session<'a> {
    /// A session with the node that the flags name; nothing is opened yet.
    pub(crate) fn new(global: &'a GlobalOptions) -> Self {
        Self { global, token: OnceCell::new() }
    }

    /// The flags of this run.
    pub(crate) fn global(&self) -> &GlobalOptions {
        self.global
    }

    /// Connects to the node.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        self.dial(&self.connect_options()?).await.map_err(|error| self.connect_failure(&error))
    }

    /// Connects with the certificate alone, for verbs that judge a token instead of showing it.
    pub(crate) async fn connect_without_token(&self) -> Result<Connection, Failure> {
        self.dial(&self.options_without_token()?).await.map_err(|error| self.connect_failure(&error))
    }

    async fn dial(&self, options: &ConnectOptions) -> Result<Connection, ConnectError> {
        waiting(&format!("connecting to {}", options.endpoint), Connection::connect(options)).await
    }

    /// Does what only coordinators do: at the session's node, and if that is none, at a coordinator that it
    /// names.
    pub(crate) async fn at_coordinator<T>(
        &self,
        output: &Output,
        act: impl AsyncFn(&Connection) -> Result<T, CallError>,
    ) -> Result<T, Failure> {
        self.at_coordinator_as(self.connect_options()?, output, act).await
    }

    /// The same with the certificate alone, for acts that take one, and for verbs whose token is what they act on.
    pub(crate) async fn at_coordinator_without_token<T>(
        &self,
        output: &Output,
        act: impl AsyncFn(&Connection) -> Result<T, CallError>,
    ) -> Result<T, Failure> {
        self.at_coordinator_as(self.options_without_token()?, output, act).await
    }

    async fn at_coordinator_as<T>(
        &self,
        as_whom: ConnectOptions,
        output: &Output,
        act: impl AsyncFn(&Connection) -> Result<T, CallError>,
    ) -> Result<T, Failure> {
        let connection = self.dial(&as_whom).await.map_err(|error| self.connect_failure(&error))?;
        let error = match waiting("waiting for the answer", act(&connection)).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        for endpoint in error.coordinators().into_iter().take(COORDINATORS_TRIED) {
            output.note(&format!("{} is no coordinator; asking {endpoint}", self.global.endpoint));
            let options = ConnectOptions { endpoint, ..as_whom.clone() };
            match self.dial(&options).await {
                Ok(coordinator) => {
                    let done = waiting("waiting for the answer", act(&coordinator)).await;
                    return done.map_err(|error| self.call_failure(&error));
                }
                Err(error) => output.note(&error.to_string()),
            }
        }
        Err(self.call_failure(&error))
    }

    /// The flags with the files they name read.
    pub(crate) fn connect_options(&self) -> Result<ConnectOptions, Failure> {
        if self.token.get().is_none() {
            let token = self.global.token.as_ref().map(TokenSource::token).transpose()?;
            // A second reader would be told the same.
            self.token.get_or_init(|| token);
        }
        let token = self.token.get().cloned().flatten();
        Ok(ConnectOptions { token, ..self.options_without_token()? })
    }

    fn options_without_token(&self) -> Result<ConnectOptions, Failure> {
        let mut options = ConnectOptions::new(self.global.endpoint.clone());
        options.timeout = self.global.timeout;
        options.ca_pem = self.global.ca.as_deref().map(read).transpose()?;
        options.identity = match (&self.global.cert, &self.global.key) {
            (Some(cert), Some(key)) => Some(Identity { cert_pem: read(cert)?, key_pem: read(key)? }),
            (None, None) => None,
            (Some(_), None) => return Err(Failure::usage("--cert needs --key, its private key")),
            (None, Some(_)) => return Err(Failure::usage("--key needs --cert, its certificate")),
        };
        Ok(options)
    }

    /// What a failed connection means, and what to do about it.
    pub(crate) fn connect_failure(&self, error: &ConnectError) -> Failure {
        let message = error.to_string();
        match error {
            ConnectError::NoCa => Failure::usage(format!(
                "no CA certificate to check the node at {} against. Pass --ca FILE (or set P2PCTL_CA): \
                 the ca_cert.pem of its cluster, or choose a context (`p2pctl context list`)",
                self.global.endpoint
            )),
            ConnectError::Files { .. } => Failure::usage(message).hint(&format!("Check {}", self.files())),
            ConnectError::Unreachable { endpoint, .. } if endpoint.socket().is_some() => {
                Failure::unreachable(message).hint(
                    "Does the node run with this listen_socket, and may your user open it (its group may)?",
                )
            }
            ConnectError::Unreachable { endpoint, .. } if endpoint.is_plain() => {
                Failure::unreachable(message).hint("Does the node use TLS? Then leave out http://")
            }
            ConnectError::Unreachable { .. } => Failure::unreachable(message).hint(&match &self.global.endpoint_of {
                Some(context) => format!(
                    "Is the node of context {context} running there? Name another one with --endpoint HOST:PORT, or \
                     another context with --context NAME"
                ),
                None => "Is the node running there? Name another one with --endpoint HOST:PORT, \
                         or start a local cluster with `p2pctl dev`"
                    .to_owned(),
            }),
            ConnectError::TimedOut { .. } => Failure::timed_out(message)
                .hint("Is it a P2P node, and is it overloaded? --timeout allows more"),
            ConnectError::Tls { refused_by_node: true, .. } => {
                let shown = match &self.global.cert {
                    Some(cert) => format!("You showed {}. ", cert.display()),
                    None => String::new(),
                };
                Failure::untrusted(message).hint(&format!("{shown}{ADMIN_ADVICE}"))
            }
            ConnectError::Tls { refused_by_node: false, .. } => {
                let ca = self.global.ca.as_deref().map(Path::display);
                let ca = ca.map(|path| path.to_string()).unwrap_or_default();
                Failure::untrusted(message).hint(&format!(
                    "You trust {ca}; pass --ca with the ca_cert.pem of that node's cluster, and name \
                     the node as its certificate does. `p2pctl certs inspect FILE` shows both"
                ))
            }
        }
    }

    /// What a failed call means, and what to do about it.
    pub(crate) fn call_failure(&self, error: &CallError) -> Failure {
        let status = match error {
            CallError::Connection(error) => return self.connect_failure(error),
            CallError::DeadlineExceeded { .. } => {
                return Failure::timed_out(error.to_string()).hint("--timeout allows more");
            }
            CallError::Status(status) => status,
        };
        let message = error.to_string();
        match error.kind() {
            ErrorKind::Unauthenticated | ErrorKind::Denied if self.global.token.is_some() => {
                let denied = error.kind() == ErrorKind::Denied;
                let failure =
                    if denied { Failure::denied(message) } else { Failure::unauthenticated(message) };
                failure.hint("`p2pctl token inspect` shows what your token says and why a node refuses it")
            }
            ErrorKind::Unauthenticated | ErrorKind::Tls => {
                Failure::unauthenticated(message).hint(ADMIN_ADVICE)
            }
            ErrorKind::Denied if self.global.cert.is_none() => Failure::denied(message).hint(ADMIN_ADVICE),
            // Only where it is who calls that is refused does another certificate help.
            ErrorKind::Denied if error.refuses_principal() => {
                Failure::denied(message).hint("`p2pctl certs inspect` shows the role of your certificate")
            }
            ErrorKind::Denied => Failure::denied(message),
            ErrorKind::NotFound => Failure::not_found(message),
            ErrorKind::Unreachable => {
                Failure::unreachable(message).hint("`p2pctl cluster nodes` shows which nodes are alive")
            }
            ErrorKind::DeadlineExceeded => Failure::timed_out(message).hint("--timeout allows more"),
            ErrorKind::Other => {
                let mut failure = Failure::other(message);
                failure.code = crate::error::code_word(status.code());
                failure
            }
        }
    }

    fn files(&self) -> String {
        let named = [("--ca", &self.global.ca), ("--cert", &self.global.cert), ("--key", &self.global.key)];
        let named =
            named.iter().filter_map(|(flag, file)| Some(format!("{flag} {}", file.as_ref()?.display())));
        named.collect::<Vec<_>>().join(", ")
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    content.map_err(|error| Failure::usage(format!("{error:#}")))
}

#[cfg(test)]
mod tests;
