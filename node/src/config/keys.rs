//! The one table of every key. Its documentation is what the CLI shows, so it says how to choose a value.
//!
//! To add a key: add its entry here and, commented, to both files in `config/`; a test holds them together. `at reload`
//! says that a running node takes a new value over (`app/reload.rs` does it), `at start` that it needs a restart.

use super::{
    access::AccessRules,
    address::{AdvertiseAddress, SeedAddress},
    audit::AuditTarget,
    limit::{LimitRules, Network},
    name::{FileName, Labels, LogFormat},
    service::Services,
    table::{Derived, settings},
};
use p2p_core::{ClusterId, NodeId};
use std::{
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

settings! {
    /// The name of this node, unique in its cluster: 1 to 63 of a-z, 0-9, '-', '_' and '.'. It must be the
    /// one that the node's certificate carries. Default: the host's name, lower-cased. Choose a name that
    /// outlives the machine's address; a new node never takes the name of one that still runs.
    node_id: NodeId = "" or host_node_id, at start;

    /// The cluster this node belongs to. Nodes of another cluster are refused whatever certificate they
    /// show. Default: the cluster that the node's certificate names, else p2p-core. Set it only to have a
    /// wrong certificate refused at start.
    cluster_id: Option<ClusterId> = "", at start;

    /// The one TCP port for everything: nodes, clients, metrics. Open it between all nodes. 0 lets the
    /// system choose, which suits tests.
    port: u16 = "8001", at start;

    /// The local address to listen on. 0.0.0.0 is every IPv4 address of the host, :: every address. Name
    /// one to keep the node off the others.
    bind_address: IpAddr = "0.0.0.0", at start;

    /// A Unix socket on which users of this host speak to the node without certificates, such as
    /// /run/p2p/node.sock, where p2pctl finds it by itself. The system says who calls: root, and the user that
    /// the node runs as, count as an admin on coordinators, and elsewhere as the node itself, which may also
    /// register services; others count as nobody, unless access lists them as uid:N. Its group may open it
    /// (0660). Empty for none.
    listen_socket: Option<PathBuf> = "", at start;

    /// Whether this node also holds CA authority: it enrols nodes, issues access tokens and signs
    /// revocations. One or two per cluster, on hosts that few can log in to; without them the cluster keeps
    /// serving and only those three acts wait.
    coordinator_mode: bool = "false", at start;

    /// Where to find the cluster: "IP:port" (an IPv6 address in brackets) or "host:port" of any nodes, best
    /// of two or three that are rarely down. Names are resolved anew at each try. Empty on the first node
    /// of a cluster, which then waits to be found; at most 64.
    coordinator_addresses: Vec<SeedAddress> = "[]", at start;

    /// A file with a join token, as `p2pctl cluster join-token create` prints it: a node without certificate
    /// joins with it, as with --join. Once there is a certificate the file is not read and may be removed.
    /// Keep it readable by the node's user only.
    join_token_file: Option<PathBuf> = "", at start;

    /// The addresses at which other nodes should dial this one: "IP", which means our own port, or
    /// "IP:port". Set it behind NAT or where a host has several networks. Empty: the address that leads
    /// towards the other nodes is found; at most 16.
    advertise_addresses: Vec<AdvertiseAddress> = "[]", at start;

    /// Where this node stands: a rack, data centre or cloud zone. Shown in the cluster
    /// view; calls that enter here go to providers of the same zone while there are any. Name what is near
    /// by one name, or leave it empty everywhere. At most 63 bytes.
    zone: String = "\"\"", at reload;

    /// What others may select this node by, such as {disk: ssd, team: search}. At most 32, names up to 63
    /// letters, digits, '.', '_', '-' and '/', values up to 255 bytes. Every node learns them: keep them
    /// few and free of secrets.
    labels: Labels = "{}", at reload;

    /// Lower bound of the gossip interval: what it moves towards, a fifth at most each minute, while less
    /// than one gossip frame a second arrives, probes not counted.
    gossip_interval_min: Duration = "5s", at start;

    /// Upper bound of the gossip interval: what it moves towards while more than five gossip frames a second
    /// arrive. The longest that a lost change may take to be repaired, times a few.
    gossip_interval_max: Duration = "30s", at start;

    /// How often this node compares records with a peer at its start, to repair what the immediate push of
    /// changes missed; from then on it adapts to the load. It does not delay changes or the detection of
    /// failures. Longer saves traffic on large clusters, shorter repairs sooner on lossy networks.
    gossip_interval_current: Duration = "10s", at start;

    /// Whether large gossip messages are compressed with LZ4, for peers that read that. What others
    /// compress is read anyway. Off only to look at the traffic.
    gossip_compression_enabled: bool = "true", at start;

    /// Gossip messages of more bytes than this are compressed. Below some hundred bytes it saves little:
    /// keys, signatures and hashes do not shrink.
    gossip_compression_threshold: u32 = "1024", at start;

    /// How many connections to other nodes are kept open; beyond it the least recently used is closed. Each
    /// costs some tens of KiB. Above the number of nodes it never matters; below 16 it costs handshakes.
    peer_connections_max: NonZeroU32 = "256", at start;

    /// Whether small unary calls to another node share one stream, which takes less processor time than a stream each.
    /// Nodes that do not, and older ones, are called as before. Off only to look at single calls on the wire.
    peer_stream_enabled: bool = "true", at start;

    /// Whether requests are limited per client. Off only where every client is trusted not to overload the
    /// node.
    rate_limit_enabled: bool = "true", at reload;

    /// Generic calls (POST /rpc and RpcService) per minute and client; 0 for no limit. Raise it for clients
    /// that have no generated code and call often.
    rate_limit_rpc_requests: u32 = "100", at reload;

    /// How many generic calls a client may make at once before the rate counts.
    rate_limit_rpc_burst: u32 = "20", at reload;

    /// Health checks per minute and client; 0 for no limit. Load balancers that check every second need 60
    /// each.
    rate_limit_health_requests: u32 = "300", at reload;

    /// How many health checks a client may make at once before the rate counts.
    rate_limit_health_burst: u32 = "50", at reload;

    /// Scrapes of /metrics per minute and client; 0 for no limit.
    rate_limit_metrics_requests: u32 = "300", at reload;

    /// How many scrapes a client may make at once before the rate counts.
    rate_limit_metrics_burst: u32 = "50", at reload;

    /// Calls of user services per minute and client. 0, the default, for no limit to callers that prove who
    /// they are: what a service can bear is for the service to say, and calls_per_client_max bounds how many
    /// run at a time. Anonymous callers then have the default limit. Set it to protect slow services.
    rate_limit_grpc_requests: u32 = "0", at reload;

    /// How many calls of user services a client may make at once before the rate counts, where
    /// rate_limit_grpc_requests sets one.
    rate_limit_grpc_burst: u32 = "20", at reload;

    /// All other requests per minute and client; 0 for no limit.
    rate_limit_default_requests: u32 = "200", at reload;

    /// How many other requests a client may make at once before the rate counts.
    rate_limit_default_burst: u32 = "30", at reload;

    /// Limits of their own for certain methods or clients, instead of the class's: a list of rules such as
    /// {methods: [shop.Search/*], clients: [ci-bot], requests: 600, burst: 50}. The first rule that means the
    /// call decides. Without methods it means all, without clients everybody; both are written as in access, an
    /// HTTP endpoint counts as the method that shows the same. requests: 0 is no limit. With shared: true
    /// all whom the rule means share one budget, charged after each one's own, so that nobody uses it up
    /// alone. At most 64 rules.
    rate_limit_overrides: LimitRules = "[]", at reload;

    /// How often a minute one address may show evidence that does not hold, a token or a certificate; beyond
    /// that, tokens from there that are not known yet, and new connections except from this host, are refused
    /// without a look. It bounds the work of verifying. 0 for no limit.
    authentication_failures_max: u32 = "60", at reload;

    /// Proxies whose X-Forwarded-For is believed: addresses or networks such as 10.0.0.0/8. Callers without
    /// evidence are then told apart by the address that the proxy saw. Of anybody else the header means
    /// nothing. At most 64.
    trusted_proxies: Vec<Network> = "[]", at reload;

    /// How many calls this node has under way at a time, streams included; more are refused as UNAVAILABLE, which
    /// sends them to another node. Health checks and what nodes tell each other are never refused. Raise it
    /// where many streams stay open; a call takes some KiB, and up to twice rpc_max_message_bytes.
    calls_max: NonZeroU32 = "16384", at reload;

    /// How many calls one client may have under way at a time, streams included, so that a single client
    /// cannot take all of calls_max. Nodes are not bound by it.
    calls_per_client_max: NonZeroU32 = "1024", at reload;

    /// Whether the port speaks TLS. Without it the node serves plain HTTP on loopback only and joins no
    /// cluster: for trying things out, or behind a proxy on the same host.
    https_enabled: bool = "true", at start;

    /// Whether peers' certificates are checked. With false, and no certificate of its own, a node makes a
    /// self-signed one; it then serves local clients, but never joins a cluster. Keep true outside of
    /// tests.
    ssl_verify: bool = "true", at start;

    /// The node's certificate (PEM, leaf first), as `p2pctl certs generate` or enrolment writes it.
    /// Relative paths start at the working directory, here and below.
    ssl_cert_file: PathBuf = "node_cert.pem", at start;

    /// The private key of that certificate (PEM), readable by the node's user only.
    ssl_key_file: PathBuf = "node_key.pem", at start;

    /// The certificates of the CAs that this cluster trusts (PEM). The node rewrites it when the root is
    /// rotated. Default: ca_cert.pem beside ssl_cert_file.
    ssl_ca_cert_file: PathBuf = "" or ca_cert_beside, at start;

    /// The CA's private key (PEM). Read on coordinators only, and it should lie on no other host. A
    /// coordinator that joined has a CA of its own, whose certificate lies beside the key:
    /// ca_issuer_cert.pem for ca_key.pem. Default: ca_key.pem beside ssl_cert_file.
    ssl_ca_key_file: PathBuf = "" or ca_key_beside, at start;

    /// How long the certificates live that this coordinator issues to nodes; they renew themselves after two
    /// thirds of it. At least 10s. Shorter limits what a stolen key is worth, and how long a coordinator may be
    /// away: a third of it.
    enrolled_certificate_ttl: Duration = "30d", at start;

    /// How long after its end a node's certificate still gets it a new one from this coordinator, without a
    /// join token: longer than nodes are switched off. 0 never.
    recover_window: Duration = "30d", at start;

    /// Where the node keeps what must survive a restart. A directory of its own for each node, on a local
    /// disk; it is created if missing, for the node's user only.
    state_directory: PathBuf = "data", at start;

    /// The file in state_directory that keeps what is revoked: access tokens, subjects and evicted nodes. Beside it,
    /// with .journal behind its name, lies what has come since it was written.
    jwt_blacklist_file: FileName = "jwt_blacklist.json", at start;

    /// The file in state_directory that keeps the node's epoch, the number that tells one start from the
    /// next, and where the other members were.
    gossip_state_file: FileName = "gossip_state.json", at start;

    /// The file in state_directory that keeps registered services, and which services are drained or disabled.
    service_state_file: FileName = "service_state.json", at start;

    /// How often changed state is written to disk. Revocations, the epoch and registered services never wait
    /// for it. Longer spares flash.
    state_autosave_interval: Duration = "30s", at start;

    /// How long a unary call may take when its caller set no deadline. Choose it above the slowest method
    /// that is called without one.
    rpc_default_timeout: Duration = "30s", at start;

    /// How long a stream may be without a message either way before it ends with DEADLINE_EXCEEDED. Choose it above the
    /// longest silence that is meant; 0 lets streams be silent for ever. Streams of the node itself are exempt.
    rpc_stream_idle_timeout: Duration = "1h", at start;

    /// The largest unary message, in bytes, that the node holds in memory to route or decode it; at least
    /// 1024. A call in flight may need twice as much: raise it with the host's memory in mind.
    rpc_max_message_bytes: u32 = "4194304", at start;

    /// How long calls in flight may take to finish after a stop signal. Keep it below the service manager's
    /// own patience (systemd 90s, Kubernetes 30s). 0 ends them at once.
    shutdown_grace: Duration = "10s", at reload;

    /// How many connections the port has open at a time. Beyond it a stranger's that has been idle longest makes
    /// room; where there is none, the newcomer is refused. An idle one costs up to 40 KiB. Keep the process's
    /// limit of open files above twice this number.
    connections_max: NonZeroU32 = "10000", at reload;

    /// The same for one address, an IPv6 one counted by its first 64 bits. Connections from this host, from
    /// trusted_proxies, and of whoever shows a certificate of the cluster do not count.
    connections_per_address_max: NonZeroU32 = "1024", at reload;

    /// How many connections may not have got as far as HTTP: in their TLS handshake, or silent. Beyond it the
    /// oldest makes room. Above the number of nodes and clients that dial at the same moment.
    handshakes_max: NonZeroU32 = "1024", at reload;

    /// How many calls one connection may have under way; a client's library waits, or opens another, beyond it.
    streams_per_connection_max: NonZeroU32 = "1024", at reload;

    /// How long a client's connection may have nothing to do before it is closed, which well-behaved clients
    /// do not notice: they dial anew with the next call. 0 for ever. Connections of nodes are kept as
    /// peer_connections_max says.
    connection_idle_timeout: Duration = "10m", at reload;

    /// How long a new connection may take for its TLS handshake. Shorter frees slots from clients that
    /// stall, longer suits slow links.
    tls_handshake_timeout: Duration = "10s", at reload;

    /// How long a connection may take, once open, to say whether it speaks HTTP/1 or HTTP/2.
    http_preface_timeout: Duration = "10s", at reload;

    /// Whether /metrics asks for a certificate or token. Off by default, as scrapers expect; turn it on
    /// where the port is open to strangers: metrics name nodes and methods.
    metrics_require_auth: bool = "false", at reload;

    /// Who may call which methods, before the built-in table: a list of rules such as {methods:
    /// [p2p.v1.ClusterService/ListNodes], allow: ["anonymous"]}. The first rule that means a method decides,
    /// alone: who is not listed is refused. Methods are globs (shop.Orders/Get, shop.Orders/*, shop.*, *);
    /// allow lists anonymous, authenticated, admin, node, token, SPIFFE ids (spiffe://CLUSTER/worker/*) and
    /// subjects of tokens, which never reach beyond their scope, and uid:N, users of this host over
    /// listen_socket. Gossip and acts of admins cannot be opened.
    /// At most 64 rules; give every node the same.
    access: AccessRules = "[]", at reload;

    /// Processes that provide services through this node, in any language: a list of mappings such as
    /// {name: shop.Orders, upstream: "http://127.0.0.1:50051"}. The methods are learned by gRPC reflection, or
    /// from the file `descriptors` (a FileDescriptorSet with all imports). `health` is auto (grpc.health.v1
    /// where the process has it), grpc, tcp or none, asked every `health_interval` (5s). `max_concurrent` bounds
    /// the calls at a time. https:// means TLS, and needs `tls_ca`, the CA to check it against. At most 128;
    /// `p2pctl services register` adds others while the node runs.
    services: Services = "[]", at reload;

    /// Whether `p2pctl services register` may name a process on another host. Off by default: a registration
    /// lasts, and could make this node a relay to any address that it reaches. What `services` lists is not
    /// asked about.
    register_remote_upstreams: bool = "false", at reload;

    /// Where it is written who did which act that changes who may do what (evict, issue, revoke, enrol,
    /// register), from where and with what result: a file, to which JSON lines are appended, or stderr.
    /// Never holds tokens. A file that is moved away is followed by a new one. Empty for nowhere.
    audit_log: Option<AuditTarget> = "", at start;

    /// What is logged: error, warn, info, debug or trace, or a filter such as info,p2p_node::gossip=debug
    /// (tracing's env-filter syntax).
    log_level: String = "info", at reload;

    /// How log lines look: pretty for people, json for collectors.
    log_format: LogFormat = "pretty", at start;
}

fn host_node_id(_: &Parsed, host_name: &str) -> Derived<NodeId> {
    let name = host_name.to_lowercase();
    name.parse().map(Some).map_err(|why| {
        format!("not set, and the host's name {name:?} cannot stand in for it ({why}); set node_id")
    })
}

fn ca_cert_beside(parsed: &Parsed, _: &str) -> Derived<PathBuf> {
    Ok(beside_certificate(parsed, "ca_cert.pem"))
}

fn ca_key_beside(parsed: &Parsed, _: &str) -> Derived<PathBuf> {
    Ok(beside_certificate(parsed, "ca_key.pem"))
}

fn beside_certificate(parsed: &Parsed, name: &str) -> Option<PathBuf> {
    let certificate = parsed.ssl_cert_file.as_deref()?;
    Some(certificate.parent().unwrap_or(Path::new("")).join(name))
}
