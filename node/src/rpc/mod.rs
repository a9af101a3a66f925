//! The gRPC services that every node has: thin translations between messages and the parts that do the work.
//!
//! | service | who may call | file |
//! |---|---|---|
//! | `p2p.v1.GossipService` | nodes | `gossip` |
//! | `p2p.v1.PeerService` | nodes | `peer` |
//! | `p2p.v1.ClusterService` | nodes, admins; admins: Evict, Readmit | `cluster` `events` `evict` |
//! | `p2p.v1.RegistryService` | nodes, admins; admins: RegisterService, DeregisterService, SetServiceState | `registry` `services` |
//! | `p2p.v1.RpcService` | nodes, admins | `call` `broadcast` |
//! | `p2p.v1.SystemService` | nodes, admins; admins: Examine, GetConfig, Reload | `system` `settings` |
//! | `p2p.v1.EnrollmentService` | admins; nodes: Renew; anybody with a join token or an old key: Enroll, Recover | `enrollment` |
//! | `p2p.v1.AuthService` | admins, and tokens that name IssueToken; anybody: VerifyToken | `auth` |
//! | `grpc.health.v1.Health` | anybody; nodes, admins: List | `health` |
//! | `grpc.reflection.v1`, `v1alpha` | nodes, admins | `reflection` |

pub mod cluster;

mod auth;
mod broadcast;
mod call;
mod enrollment;
mod events;
mod evict;
mod gossip;
mod health;
mod peer;
mod reflection;
mod registry;
mod revoke;
mod services;
mod settings;
mod system;

pub use system::NodeFacts;

use crate::{
    audit::{Act, Audit, Note},
    auth::{Caller, audit_entry, is_audited, not_coordinator},
    config::Running,
    enrol::{Enrolment, Rotation},
    error::{Fault, Reason},
    gossip::Gossip,
    limit::Limits,
    peer::{Streams, stream::FRAME_MAX},
    registry::{LocalService, ServiceError},
    revocation::Revocations,
    router::Router,
    schema::Schema,
    shutdown::ShutdownWatch,
    token::Issuer,
    upstream::Upstreams,
};
use p2p_core::{NodeId, Role, SpiffeId, wire::MAX_FRAME};
use p2p_proto::{
    health::health_server::HealthServer,
    v1::{
        auth_service_server::AuthServiceServer, cluster_service_server::ClusterServiceServer,
        enrollment_service_server::EnrollmentServiceServer, gossip_service_server::GossipServiceServer,
        peer_service_server::PeerServiceServer, registry_service_server::RegistryServiceServer,
        rpc_service_server::RpcServiceServer, system_service_server::SystemServiceServer,
    },
};
use std::sync::Arc;
use tonic::{Extensions, Status};
use tonic_reflection::pb::{v1, v1alpha};

/// Largest request of EnrollmentService, in bytes: a signing request, or a grant, with names.
const MAX_ENROLMENT_BYTES: usize = 64 * 1024;

/// Largest request of AuthService, in bytes: a token, or a scope.
const MAX_AUTH_BYTES: usize = 32 * 1024;

/// Largest request of RegistryService, in bytes: descriptors and a CA.
const MAX_REGISTRATION_BYTES: usize = 2 * 1024 * 1024;

/// What the built-in services work with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Facts that do not change while the node runs.
    pub facts: Arc<NodeFacts>,
    /// Gossip.
    pub gossip: Gossip,
    /// Joining.
    pub enrolment: Arc<Enrolment>,
    /// What is revoked.
    pub revocations: Arc<Revocations>,
    /// Signing of access tokens.
    pub issuer: Arc<Issuer>,
    /// Rotating the CA.
    pub rotation: Arc<Rotation>,
    /// Routing and the registry.
    pub router: Arc<Router>,
    /// What generic calls are charged to, beside what they are charged as.
    pub limits: Arc<Limits>,
    /// Who did what.
    pub audit: Arc<Audit>,
    /// Processes behind this node.
    pub upstreams: Arc<Upstreams>,
    /// Peer streams.
    pub streams: Arc<Streams>,
    /// The stop signal.
    pub shutdown: ShutdownWatch,
    /// Largest message of a generic call.
    pub max_message_bytes: usize,
    /// The configuration in force, and asking for another.
    pub running: Running,
}

/// Every built-in service.
///
/// # Errors
///
/// When our own descriptors do not describe our own services: a defect.
pub fn built_in(parts: &Parts) -> Result<Vec<LocalService>, ServiceError> {
    let ours = Arc::new(Schema::decode(p2p_proto::DESCRIPTORS)?);
    let reflect_v1 = Arc::new(Schema::decode(v1::FILE_DESCRIPTOR_SET)?);
    let reflect_alpha = Arc::new(Schema::decode(v1alpha::FILE_DESCRIPTOR_SET)?);
    let limit = parts.max_message_bytes;
    // A frame around the largest message.
    let call = RpcServiceServer::new(call::CallService(parts.clone()))
        .max_decoding_message_size(limit.saturating_add(4096))
        .max_encoding_message_size(limit.saturating_add(4096));
    let gossip = GossipServiceServer::new(gossip::GossipFrames(parts.gossip.clone()))
        .max_decoding_message_size(MAX_FRAME);
    let peers =
        PeerServiceServer::new(peer::PeerCalls(parts.streams.clone())).max_decoding_message_size(FRAME_MAX);
    let cluster = ClusterServiceServer::new(cluster::Cluster(parts.clone()));
    let registry = RegistryServiceServer::new(registry::Methods(parts.clone()))
        .max_decoding_message_size(MAX_REGISTRATION_BYTES);
    let system = SystemServiceServer::new(system::System::new(parts.clone()));
    let enrollment =
        EnrollmentServiceServer::new(enrollment::Enrollment(parts.enrolment.clone(), parts.rotation.clone()))
            .max_decoding_message_size(MAX_ENROLMENT_BYTES);
    let auth =
        AuthServiceServer::new(auth::AccessTokens(parts.clone())).max_decoding_message_size(MAX_AUTH_BYTES);
    let reflection = reflection::Reflection(parts.router.clone());
    Ok(vec![
        LocalService::new(gossip, ours.clone())?,
        LocalService::new(peers, ours.clone())?,
        LocalService::new(cluster, ours.clone())?,
        LocalService::new(registry, ours.clone())?,
        LocalService::new(call, ours.clone())?,
        LocalService::new(auth, ours.clone())?,
        LocalService::new(enrollment, ours.clone())?,
        LocalService::new(system, ours.clone())?,
        LocalService::new(HealthServer::new(health::Health(parts.clone())), ours)?,
        LocalService::new(
            v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()),
            reflect_v1,
        )?,
        LocalService::new(
            v1alpha::server_reflection_server::ServerReflectionServer::new(reflection),
            reflect_alpha,
        )?,
    ])
}

/// Refuses what only coordinators do, and says where they are.
fn coordinator_only(parts: &Parts) -> Result<(), Fault> {
    let facts = &parts.facts;
    if parts.revocations.is_evicted(&facts.node) {
        return Err(Fault::new(
            Reason::Precondition,
            format!("{} is evicted: nobody heeds what it says; ask another coordinator", facts.node),
        ));
    }
    if facts.role == Role::Coordinator {
        return Ok(());
    }
    let own = SpiffeId::new(parts.gossip.cluster().clone(), facts.role, facts.node.clone());
    Err(not_coordinator(&own, "", &parts.gossip.view().borrow()))
}

/// The act, for the audit log, that `caller` makes a generic call of the method `path`. Begin it before the call: its caller
/// may not wait for the end. Of calls that are not generic the stack tells.
pub(crate) fn generic_act(parts: &Parts, path: &str, caller: &Caller) -> Option<Act> {
    let audited = parts.audit.is_on() && is_audited(path);
    audited.then(|| {
        let entry = audit_entry(path, &caller.connection, caller.address, Some(caller));
        Act::begin(&parts.audit, entry, None)
    })
}

/// Notes for the audit log what an act concerns; never a secret.
fn note(extensions: &Extensions, text: impl FnOnce() -> String) {
    if let Some(note) = extensions.get::<Note>() {
        note.set(text());
    }
}

/// Who calls, as the stack left it in the request.
fn caller(extensions: &Extensions) -> Result<Arc<Caller>, Status> {
    extensions
        .get::<Arc<Caller>>()
        .cloned()
        .ok_or_else(|| Fault::internal("a request without its caller reached a service").to_status())
}

/// The node that calls over a connection of its own. What another node forwards for it does not count: that node could
/// then be spoken for.
fn calling_node(extensions: &Extensions) -> Result<(NodeId, Arc<Caller>), Status> {
    let caller = caller(extensions)?;
    let node = caller.connection.peer().filter(|_| caller.forwarded_by.is_none()).cloned();
    let node =
        node.ok_or_else(|| Status::permission_denied("this takes a node's own certificate and connection"))?;
    Ok((node, caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_system_has_its_row_in_the_table_of_access() {
        let ours = Schema::decode(p2p_proto::DESCRIPTORS).expect("our own");
        for service in ["Auth", "Cluster", "Enrollment", "Gossip", "Peer", "Registry", "Rpc", "System"] {
            let name = format!("p2p.v1.{service}Service").parse().expect("a name");
            for method in ours.methods(&name).expect("its methods") {
                let path = method.path.as_str();
                assert!(crate::auth::policy::is_listed(path), "{path} is missing from the table");
            }
        }
    }
}
