//! Start-up, in order.

use super::{
    advertise, certificate,
    error::StartError,
    node::{Node, NodeParts},
    publish::Publisher,
    reload::{Live, LiveParts},
    state::{is_incomplete, prepare, remembered, seeds},
};
use crate::{
    audit::Audit,
    auth::Auth,
    config::{Config, ReloadSource, Running},
    enrol::{CaKeeper, Enrolment, IssuePolicy, Issuing, JoinSource, RenewalMetrics, Renewer, Rotation},
    gateway::Gateway,
    gossip::{self, GossipSetup, Memory, Revoking},
    identity::{Anchors, IdentityStore, UnixTime},
    limit::Limits,
    peer::{self, PeerPool},
    registry::{LocalService, Registry, ServiceError},
    revocation::Revocations,
    router::Router,
    rpc::{self, NodeFacts, Parts},
    schema::Schema,
    server::{LocalSocket, Security, Server, ServerLimits, Stack},
    shutdown::Shutdown,
    telemetry::Metrics,
    token::{AccessToken, Issuer, Signers, TokenRefusal, Verifier},
    upstream::Upstreams,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use p2p_core::{ClusterId, Principal, Role, SpiffeId, Subject, gossip::IntervalSettings, membership::Life};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{body::Body, server::NamedService};
use tower::Service;

/// Builds a node: a configuration, and the services that it implements itself.
#[derive(Debug)]
pub struct NodeBuilder {
    config: Config,
    services: Vec<LocalService>,
    join: Option<JoinSource>,
    accept_state_loss: bool,
    reload_source: Option<ReloadSource>,
}

impl NodeBuilder {
    /// A node with the built-in services.
    pub fn new(config: Config) -> Self {
        Self { config, services: Vec::new(), join: None, accept_state_loss: false, reload_source: None }
    }

    /// The configuration that it is built from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where a join token is, for a node that has no certificate yet; without one, `join_token_file` says.
    pub fn join_with(mut self, source: Option<JoinSource>) -> Self {
        self.join = source;
        self
    }

    /// Accepts tokens although revocations on disk were lost, and no other node has told them again.
    pub fn accept_state_loss(mut self, accept: bool) -> Self {
        self.accept_state_loss = accept;
        self
    }

    /// Lets admins have the configuration read anew; whoever takes the requests does it.
    pub(super) fn reload_from(mut self, source: ReloadSource) -> Self {
        self.reload_source = Some(source);
        self
    }

    /// Adds a tonic service, described by an encoded `FileDescriptorSet` with all its imports. Every node of
    /// the cluster routes calls of it here; who proved to belong to the cluster may call it.
    ///
    /// # Errors
    ///
    /// When the descriptors do not contain the service, or its name is reserved.
    pub fn add_service<S, B>(mut self, service: S, descriptors: &[u8]) -> Result<Self, ServiceError>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let schema = Arc::new(Schema::decode(Bytes::copy_from_slice(descriptors))?);
        let service = LocalService::new(service, schema)?;
        if service.name.is_reserved() {
            return Err(ServiceError::Reserved(service.name));
        }
        self.services.push(service);
        Ok(self)
    }

    /// Starts the node. It serves when this returns; finding the others goes on in the background.
    ///
    /// # Errors
    ///
    /// Each says what to do; nothing keeps running.
    pub async fn start(self) -> Result<Node, StartError> {
        let Self { mut config, mut services, join, accept_state_loss, reload_source } = self;
        let (started, started_at) = (SystemTime::now(), Instant::now());

        // 1. State directory, lock, epoch. All blocking.
        let prepare_config = config.clone();
        let mut prepared = tokio::task::spawn_blocking(move || prepare(&prepare_config)).await??;
        prepared.kept.incomplete = is_incomplete(&prepared.kept, accept_state_loss);

        // 2. The port, so that the address to advertise is known, and a coordinator finds us when we join.
        let listener = listen(SocketAddr::new(config.bind_address, config.port)).await?;
        let listening = listener.local_addr().map_err(|error| StartError::Listen {
            address: SocketAddr::new(config.bind_address, config.port),
            error,
        })?;

        let local = config.listen_socket.as_deref().map(listen_locally).transpose()?;

        // 3. Certificates, by joining if there are none and a token is given.
        let source = join.or_else(|| config.join_token_file.clone().map(JoinSource::File));
        let metrics = Arc::new(Metrics::default());
        let audit = Audit::open(config.audit_log.as_ref(), &metrics)?;
        let renewals = metrics.register(RenewalMetrics::register);
        let identity =
            certificate::obtain(&config, source, listening, &mut prepared.tokens, &renewals).await?;
        let identity = Arc::new(identity);
        let anchors = Anchors::new(prepared.anchors, identity.clone());
        let present = identity.current();
        let (own_id, cluster) = (present.spiffe().clone(), present.cluster_id().clone());
        let alone = present.stands_alone() || !config.https_enabled;
        let (in_force, running) = watch::channel(config.clone());
        config.coordinator_addresses = seeds(&config, &prepared.tokens);
        let advertised = advertise::addresses(&config, listening);

        // 4. Connections to others, the registry, routing.
        let peers_max = config.peer_connections_max.get() as usize;
        let revocations = Revocations::new(&metrics);
        let pool = Arc::new(PeerPool::new(identity.clone(), revocations.clone(), peers_max, &metrics));
        let registry = Arc::new(Registry::new(own_id.name.clone(), &metrics));
        let revoked = revocations.clone();
        let objection = move |token: &AccessToken| {
            let lost = revoked.is_incomplete().then_some(TokenRefusal::StateLost);
            let taken_back = || revoked.is_revoked(&token.holder, token.issued_at, &token.signer);
            lost.or_else(|| taken_back().then_some(TokenRefusal::Revoked))
        };
        let verifier = Arc::new(Verifier::new(Signers::default(), Box::new(objection), &metrics));
        let (signer_file, known_signers) = prepared.signers;
        verifier.signers().restore(&known_signers, &present.trust(), UnixTime::now());
        let auth = Arc::new(Auth::new(verifier.clone(), revocations.clone(), &metrics));
        auth.reconfigure(config.access.clone(), config.trusted_proxies.clone());
        let max_message_bytes = config.rpc_max_message_bytes as usize;
        let router = Arc::new(Router::new(
            registry.clone(),
            pool.clone(),
            auth.clone(),
            config.rpc_default_timeout,
            max_message_bytes,
            &metrics,
        ));

        // 5. Gossip. It knows nobody yet; a node that stands alone never will.
        let gossip_file = Arc::new(prepared.gossip_file);
        let epoch = gossip_file.epoch();
        let own = Life {
            node: own_id.name.clone(),
            epoch,
            generation: 0,
            instance: rand::random(),
            address: advertised.first().copied().unwrap_or(listening),
        };
        let seeds = if alone { Vec::new() } else { config.coordinator_addresses.clone() };
        let facts = Arc::new(NodeFacts {
            node: own_id.name.clone(),
            cluster: cluster.clone(),
            role: own_id.role,
            epoch,
            started,
            started_at,
            seeds: seeds.len(),
        });
        let keeper_ended = prepared.keeper.end();
        let setup = GossipSetup {
            cluster: cluster.clone(),
            own: own.into(),
            identity: identity.clone(),
            anchors: anchors.clone(),
            pool: pool.clone(),
            seeds,
            interval: IntervalSettings::new(
                config.gossip_interval_min,
                config.gossip_interval_current,
                config.gossip_interval_max,
            ),
            compression: config
                .gossip_compression_enabled
                .then_some(usize::try_from(config.gossip_compression_threshold).unwrap_or(usize::MAX)),
            links_max: peers_max,
            remembered: if alone { Vec::new() } else { remembered(&gossip_file) },
            file: gossip_file.clone(),
            revoking: Revoking {
                table: revocations.clone(),
                keeper: prepared.keeper,
                kept: prepared.kept,
                autosave: config.state_autosave_interval,
            },
        };
        let (gossip, gossip_task) = gossip::spawn(setup, &metrics);

        // 6. Services, the gateway, the stack, the server.
        let (shutdown, watch) = Shutdown::new();
        let issuing = Issuing {
            identity: identity.clone(),
            store: prepared.tokens,
            view: gossip.view(),
            advertised: advertised.clone(),
            revocations: revocations.clone(),
            policy: IssuePolicy {
                ttl: config.enrolled_certificate_ttl,
                recover_window: config.recover_window,
            },
        };
        let enrolment = Enrolment::new(issuing, &metrics);
        // What is revoked is not known yet: revocation hands its answer in here.
        let revoked = revocations.clone();
        let revoked_before = move |subject: &Subject| revoked.subject_before(subject.as_str());
        let issuer =
            Issuer::new(identity.clone(), enrolment.clone(), verifier.clone(), Box::new(revoked_before));
        let issuer = Arc::new(issuer);
        let remote = config.register_remote_upstreams;
        let upstreams =
            Upstreams::new(registry.clone(), identity.clone(), prepared.services, remote, &metrics);
        let limits = Arc::new(Limits::new(&config, &metrics));
        let parts = Parts {
            facts,
            limits: limits.clone(),
            audit: audit.clone(),
            gossip: gossip.clone(),
            enrolment,
            issuer: issuer.clone(),
            rotation: Rotation::new(prepared.rotation, identity.clone(), anchors.clone(), gossip.view()),
            router: router.clone(),
            upstreams: upstreams.clone(),
            revocations: revocations.clone(),
            streams: pool.streams().clone(),
            shutdown: watch.clone(),
            max_message_bytes,
            running: Running::new(running, reload_source),
        };
        services.extend(rpc::built_in(&parts)?);
        registry.install(services)?;
        upstreams.configure(prepared.upstreams).await;
        let gateway = Gateway::new(parts, metrics.clone(), config.metrics_require_auth);
        let stack = Arc::new(Stack::new(
            router,
            gateway,
            limits.clone(),
            audit.clone(),
            config.rpc_stream_idle_timeout,
            watch.clone(),
            &metrics,
        ));
        if config.peer_stream_enabled && !alone {
            let address = advertised.first().copied().unwrap_or(listening);
            pool.streams().switch_on(calls_of_peers(stack.clone()), address, watch.clone());
        }
        let security = security(&config, &identity, &cluster);
        let server_limits = ServerLimits::from(&config);
        let server =
            Server::new(stack.clone(), security, revocations.clone(), server_limits, gossip.view(), &metrics);
        let server_task = tokio::spawn(server.clone().run(listener, local, watch));

        let ca_keeper = CaKeeper {
            identity: identity.clone(),
            anchors: anchors.clone(),
            pool: pool.clone(),
            view: gossip.view(),
        };

        // 7. Tell the cluster.
        let renewer = Renewer {
            identity: identity.clone(),
            pool: pool.clone(),
            view: gossip.view(),
            seeds: config.coordinator_addresses.clone(),
            names: certificate::names(&config, &advertised),
            ttl: config.enrolled_certificate_ttl,
        };
        let spoken_of = (config.zone.clone(), config.labels.clone());
        let publisher = Publisher::new(
            (identity, issuer.clone(), anchors.clone()),
            gossip.clone(),
            registry.clone(),
            advertised,
            spoken_of,
            &metrics,
        );
        let publisher = Arc::new(publisher);
        let live = Live::new(
            in_force,
            LiveParts {
                limits: limits.clone(),
                auth,
                upstreams: upstreams.clone(),
                stack,
                server,
                publisher: publisher.clone(),
            },
            &metrics,
        );
        let mut node = Node::start(NodeParts {
            live,
            publisher,
            renewer: Some((renewer, renewals)).filter(|_| !alone),
            ca_keeper,
            memory: (!alone).then(|| Memory::new(gossip_file, own_id.name.clone(), gossip.view())),
            gossip,
            gossip_task,
            keeper_ended,
            registry,
            upstreams,
            pool,
            limits,
            audit,
            metrics,
            shutdown,
            server_task,
            listening,
        })
        .await?;
        node.follow_signers(verifier, signer_file);
        node.rotate_signers().await?;
        tracing::info!(
            node = %own_id.name,
            cluster = %cluster,
            role = %own_id.role,
            address = %listening,
            advertised = %node.advertised(),
            "listening"
        );
        Ok(node)
    }
}

/// What answers the calls that come over peer streams: the same stack.
fn calls_of_peers(stack: Arc<Stack>) -> peer::stream::Service {
    Arc::new(move |connection, request| {
        let stack = stack.clone();
        Box::pin(async move { stack.answer(connection, request).await.map(Body::new) })
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            StartError::PortInUse { address }
        } else {
            StartError::Listen { address, error }
        }
    })
}

fn listen_locally(path: &Path) -> Result<LocalSocket, StartError> {
    let socket =
        LocalSocket::bind(path).map_err(|error| StartError::Socket { path: path.to_owned(), error })?;
    tracing::info!(socket = %path.display(), "the local socket is open");
    Ok(socket)
}

fn security(config: &Config, identity: &Arc<IdentityStore>, cluster: &ClusterId) -> Security {
    if config.https_enabled {
        return Security::Tls(identity.clone());
    }
    tracing::warn!(
        "https_enabled is off: plain HTTP on loopback, no cluster, and every local user counts as an admin of this node"
    );
    let name = config.node_id.clone();
    Security::Plain(Principal::Certificate(SpiffeId::new(cluster.clone(), Role::Admin, name)))
}
