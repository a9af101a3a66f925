//! The new node's side: finds the coordinator that its token names, makes sure that it is the one, and only
//! then sends anything.

use super::source::SourceError;
use crate::{
    config::SeedAddress,
    identity::{
        Enrolled, EnrolledError, IdentityFiles, JoinToken, NotTheCoordinator, PendingCa, PendingKey,
        PinnedCoordinator, RootPin, San, UnixTime,
    },
    peer::{DIAL_TIMEOUT, DialError, dial, resolve},
    revocation::Live,
};
use p2p_core::{ClusterId, NodeId, Role};
use p2p_proto::v1::{EnrollRequest, enrollment_service_client::EnrollmentServiceClient};
use std::{net::SocketAddr, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How long a coordinator that cannot be reached is tried.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for a coordinator's answer; it dials us back within 3 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after the first round of addresses; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a node that joins says of itself.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Its id.
    pub node: NodeId,
    /// What the configuration makes it.
    pub role: Role,
    /// The cluster that the configuration insists on, if it does.
    pub cluster: Option<ClusterId>,
    /// Where its certificate goes.
    pub files: IdentityFiles,
    /// Where others should dial it; it listens there already.
    pub advertise: SocketAddr,
    /// Names for its certificate.
    pub sans: Vec<San>,
}

/// Why the node did not join. It has no certificate; the same token can be tried again unless the variant
/// says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is no token to read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The token's role is not this node's.
    #[error(
        "the join token is for a {token}, and this node is a {own} (coordinator_mode: {}); make one with --role {own}",
        *own == Role::Coordinator
    )]
    Role {
        /// The token's.
        token: Role,
        /// Ours.
        own: Role,
    },
    /// The token is another node's.
    #[error("the join token is for node {bound}, and node_id is {own}; make one with --node {own}")]
    OtherNode {
        /// Whom it is for.
        bound: NodeId,
        /// Who we are.
        own: NodeId,
    },
    /// The token is of another cluster.
    #[error("the join token is for cluster {token}, and cluster_id is {own}")]
    OtherCluster {
        /// The token's.
        token: ClusterId,
        /// Ours.
        own: ClusterId,
    },
    /// Its time is over.
    #[error(
        "the join token has expired, or this host's clock is ahead; make a new one with `p2pctl cluster join-token \
         create`"
    )]
    Expired,
    /// Keys and files.
    #[error(transparent)]
    Files(#[from] EnrolledError),
    /// Nobody who answers is the coordinator. Nothing was sent.
    #[error("{address} is not the coordinator that the join token is for: {why}. Nothing was sent")]
    Untrusted {
        /// Who answered.
        address: SocketAddr,
        /// Why it is not.
        why: Box<NotTheCoordinator>,
    },
    /// The coordinator refuses.
    #[error("the coordinator at {address} refused: {message}")]
    Refused {
        /// Which.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// Time is up.
    #[error("no coordinator could be joined within {} s; the last try: {last}", DEADLINE.as_secs())]
    GaveUp {
        /// What went wrong last.
        last: String,
    },
    /// A part of it was cut off.
    #[error("joining was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// TLS cannot be set up: a defect.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// How one try at one address ended.
enum Failed {
    /// Another try may succeed, this one not before the pause.
    Later(String, Option<Duration>),
    /// Somebody else is there.
    Untrusted(NotTheCoordinator),
    /// No other try can succeed.
    Never(String),
}

/// Joins the cluster of `token`: afterwards certificate, key and CA certificate are in their files.
///
/// Coordinators that cannot be reached are tried for 60 s; a refusal ends it at once.
///
/// # Errors
///
/// Each says what to do; no certificate file was touched.
pub async fn join(token: &JoinToken, joining: Joining) -> Result<(), JoinError> {
    check(token, &joining)?;
    let (preparing, pins) = (joining.clone(), token.pins.clone());
    let key = tokio::task::spawn_blocking(move || prepare(&preparing, &pins)).await??;
    tracing::info!(cluster = %token.cluster, token.id = %token.id, node = %joining.node, "joining with a token");
    let request = EnrollRequest {
        token_id: token.id.as_bytes().to_vec().into(),
        secret: token.secret.expose().to_vec().into(),
        csr: key.csr().to_vec().into(),
        ca_csr: key.ca_csr().to_vec().into(),
        node_id: joining.node.to_string(),
        advertise_address: joining.advertise.to_string(),
        sans: joining.sans.iter().map(ToString::to_string).collect(),
    };
    let enrolled = ask(token, &request).await?;
    let (token, node, files) = (token.clone(), joining.node.clone(), joining.files);
    let install = move || key.install(&files, &token, &node, &enrolled, UnixTime::now());
    tokio::task::spawn_blocking(install).await??;
    tracing::info!(node = %joining.node, "joined; certificate, key and CA certificate are written");
    Ok(())
}

/// The keys that wait for their certificates: the node's, and a coordinator's own CA's.
fn prepare(joining: &Joining, pins: &[RootPin]) -> Result<PendingKey, EnrolledError> {
    let key = PendingKey::prepare(&joining.files, &joining.node, pins)?;
    match joining.role {
        Role::Coordinator => Ok(key.with_ca(PendingCa::prepare(&joining.files, &joining.node)?)),
        Role::Worker | Role::Admin | Role::TokenSigner => Ok(key),
    }
}

/// What can be told without a coordinator.
fn check(token: &JoinToken, joining: &Joining) -> Result<(), JoinError> {
    if token.role != joining.role {
        return Err(JoinError::Role { token: token.role, own: joining.role });
    }
    if let Some(bound) = token.node.as_ref().filter(|bound| **bound != joining.node) {
        return Err(JoinError::OtherNode { bound: bound.clone(), own: joining.node.clone() });
    }
    if let Some(own) = joining.cluster.as_ref().filter(|own| **own != token.cluster) {
        return Err(JoinError::OtherCluster { token: token.cluster.clone(), own: own.clone() });
    }
    if UnixTime::now() > token.expires { Err(JoinError::Expired) } else { Ok(()) }
}

/// Asks the token's coordinators in turn until one answers.
async fn ask(token: &JoinToken, request: &EnrollRequest) -> Result<Enrolled, JoinError> {
    let give_up = Instant::now() + DEADLINE;
    let mut pause = PAUSE_MIN;
    loop {
        let round = tokio::time::timeout_at(give_up, ask_each(token, request)).await;
        let (last, least) = match round {
            Ok(Ok(enrolled)) => return Ok(enrolled),
            Ok(Err(Round::Over(error))) => return Err(error),
            Ok(Err(Round::Again(last, least))) => (last, least),
            Err(_elapsed) => return Err(JoinError::GaveUp { last: "no answer".to_owned() }),
        };
        let jitter = rand::random_range(0.75..1.25);
        let wait = pause.mul_f64(jitter).max(least);
        if Instant::now() + wait >= give_up {
            return Err(JoinError::GaveUp { last });
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How a round of all addresses ended without an answer.
enum Round {
    Again(String, Duration),
    Over(JoinError),
}

async fn ask_each(token: &JoinToken, request: &EnrollRequest) -> Result<Enrolled, Round> {
    let mut last = ("no name of a coordinator resolves".to_owned(), Duration::ZERO);
    let (mut untrusted, mut others) = (None, token.coordinators.is_empty());
    for seed in &token.coordinators {
        let addresses = resolve(seed).await;
        others |= addresses.is_empty();
        for address in addresses {
            match ask_one(token, seed, address, request).await {
                Ok(enrolled) => return Ok(enrolled),
                Err(Failed::Never(message)) => {
                    return Err(Round::Over(JoinError::Refused { address, message }));
                }
                Err(Failed::Untrusted(why)) => {
                    tracing::error!(%address, error = %why, "not the coordinator of the join token; nothing was sent");
                    untrusted = Some(JoinError::Untrusted { address, why: Box::new(why) });
                }
                Err(Failed::Later(why, least)) => {
                    tracing::warn!(%address, error = why, "coordinator not joined yet; trying again");
                    others = true;
                    last = (why, least.unwrap_or_default().max(last.1));
                }
            }
        }
    }
    match untrusted {
        Some(error) if !others => Err(Round::Over(error)),
        Some(error) => Err(Round::Again(format!("{}; {error}", last.0), last.1)),
        None => Err(Round::Again(last.0, last.1)),
    }
}

async fn ask_one(
    token: &JoinToken,
    seed: &SeedAddress,
    address: SocketAddr,
    request: &EnrollRequest,
) -> Result<Enrolled, Failed> {
    let later = |why: String| Failed::Later(why, None);
    let verifier = PinnedCoordinator::new(token);
    let config = verifier.client_config().map_err(|error| Failed::Never(error.to_string()))?;
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, dial(address, config, &Live::default())).await;
    let dialled = dialled.unwrap_or(Err(DialError::Timeout { address }));
    let connection = match (dialled, verifier.take_refusal()) {
        (Ok(connection), _) => connection,
        (Err(_), Some(refused)) => return Err(Failed::Untrusted(refused)),
        (Err(error), None) => return Err(later(error.to_string())),
    };
    let origin = http::Uri::builder().scheme("https").authority(seed.to_string()).path_and_query("/").build();
    let origin = origin.map_err(|error| Failed::Never(error.to_string()))?;
    let mut client = EnrollmentServiceClient::with_origin(connection, origin);
    let call = client.enroll(request.clone());
    let answer = match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|status| failed(&status))?.into_inner(),
        Err(_elapsed) => return Err(later(format!("{address} did not answer in time"))),
    };
    let bytes = |list: Vec<bytes::Bytes>| list.into_iter().map(Vec::from).collect();
    Ok(Enrolled {
        chain: bytes(answer.certificate_chain),
        roots: bytes(answer.roots),
        ca_chain: bytes(answer.ca_certificate_chain),
    })
}

/// Whether a status means that another try may succeed. Repeating is safe: the same key gets the same
/// certificate.
fn failed(status: &Status) -> Failed {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Cancelled => {
            let pause = status.get_details_retry_info().and_then(|info| info.retry_delay);
            Failed::Later(message, pause)
        }
        // What hyper says of a connection that broke.
        Code::Unknown if std::error::Error::source(status).is_some() => Failed::Later(message, None),
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Failed::Never(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{TokenId, TokenSecret};

    fn token(address: SocketAddr) -> JoinToken {
        JoinToken {
            id: TokenId::new([1; 16]),
            secret: TokenSecret::new([2; 32]),
            pins: vec![[3; 32]],
            cluster: "shop".parse().unwrap(),
            coordinators: vec![address.to_string().parse().unwrap()],
            role: Role::Worker,
            node: None,
            expires: UnixTime::since_unix_epoch(Duration::from_secs(u32::MAX.into())),
        }
    }

    fn joining(directory: &std::path::Path) -> Joining {
        let at = |name: &str| directory.join(name);
        Joining {
            node: "w".parse().unwrap(),
            role: Role::Worker,
            cluster: Some("shop".parse().unwrap()),
            files: IdentityFiles {
                cert: at("cert"),
                key: at("key"),
                ca_cert: at("ca"),
                ca_key: at("ca_key"),
            },
            advertise: ([127, 0, 0, 1], 1).into(),
            sans: vec![],
        }
    }

    /// Where nobody listens.
    fn nowhere() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_is_away_is_tried_for_a_minute() {
        let (directory, address, since) = (tempfile::tempdir().unwrap(), nowhere(), Instant::now());
        let error = join(&token(address), joining(directory.path())).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "no coordinator could be joined within 60 s; the last try: {address} refuses connections; is the node \
                 running there?"
            )
        );
        let tried = since.elapsed();
        assert!(tried > DEADLINE - PAUSE_MAX.mul_f64(1.5) && tried <= DEADLINE, "{tried:?}");
    }

    #[tokio::test]
    async fn what_cannot_work_is_not_even_tried() {
        let (directory, good) = (tempfile::tempdir().unwrap(), token(nowhere()));
        for (token, says) in [
            (
                JoinToken { role: Role::Coordinator, ..good.clone() },
                "the join token is for a coordinator, and this node is a worker (coordinator_mode: false)",
            ),
            (JoinToken { node: Some("x".parse().unwrap()), ..good.clone() }, "for node x, and node_id is w"),
            (
                JoinToken { cluster: "other".parse().unwrap(), ..good.clone() },
                "for cluster other, and cluster_id is shop",
            ),
            (
                JoinToken { expires: UnixTime::since_unix_epoch(DEADLINE), ..good.clone() },
                "the join token has expired",
            ),
        ] {
            let error = join(&token, joining(directory.path())).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
