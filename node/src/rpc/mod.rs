//! The gRPC services that every node has: thin translations between messages and the parts that do the work.
//!
//! | service | who may call | file |
//! |---|---|---|
//! | `p2p.v1.GossipService` | nodes | `gossip` |
//! | `p2p.v1.ClusterService` | nodes, admins | `cluster` |
//! | `p2p.v1.RegistryService` | nodes, admins | `registry` |
//! | `p2p.v1.RpcService` | nodes, admins | `call` |
//! | `p2p.v1.SystemService` | nodes, admins | `system` |
//! | `p2p.v1.EnrollmentService` | admins; anybody with a join token: Enroll | `enrollment` |
//! | `grpc.health.v1.Health` | anybody | `health` |
//! | `grpc.reflection.v1`, `v1alpha` | nodes, admins | `reflection` |

pub mod cluster;

mod call;
mod enrollment;
mod gossip;
mod health;
mod reflection;
mod registry;
mod system;

pub use system::NodeFacts;

use crate::{
    auth::{Access, Caller},
    enrol::{Enrolment, Rotation},
    error::Fault,
    gossip::Gossip,
    registry::{LocalService, ServiceError},
    router::Router,
    schema::Schema,
    shutdown::ShutdownWatch,
};
use p2p_proto::v1::{
    cluster_service_server::ClusterServiceServer, enrollment_service_server::EnrollmentServiceServer,
    gossip_service_server::GossipServiceServer, registry_service_server::RegistryServiceServer,
    rpc_service_server::RpcServiceServer, system_service_server::SystemServiceServer,
};
use std::sync::Arc;
use tonic::{Extensions, Status};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::{v1, v1alpha};

/// Largest request of EnrollmentService, in bytes: a signing request, or a grant, with names.
const MAX_ENROLMENT_BYTES: usize = 64 * 1024;

/// What the built-in services work with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Facts that do not change while the node runs.
    pub facts: Arc<NodeFacts>,
    /// Gossip.
    pub gossip: Gossip,
    /// Joining.
    pub enrolment: Arc<Enrolment>,
    /// Rotating the CA.
    pub rotation: Arc<Rotation>,
    /// Routing and the registry.
    pub router: Arc<Router>,
    /// The stop signal.
    pub shutdown: ShutdownWatch,
    /// Largest message of a generic call.
    pub max_message_bytes: usize,
}

/// Every built-in service.
///
/// # Errors
///
/// When our own descriptors do not describe our own services: a defect.
pub fn built_in(parts: &Parts) -> Result<Vec<LocalService>, ServiceError> {
    let ours = Arc::new(Schema::decode(p2p_proto::DESCRIPTORS)?);
    let health = Arc::new(Schema::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)?);
    let reflect_v1 = Arc::new(Schema::decode(v1::FILE_DESCRIPTOR_SET)?);
    let reflect_alpha = Arc::new(Schema::decode(v1alpha::FILE_DESCRIPTOR_SET)?);
    let limit = parts.max_message_bytes;
    // A frame around the largest message.
    let call = RpcServiceServer::new(call::CallService(parts.clone()))
        .max_decoding_message_size(limit.saturating_add(4096))
        .max_encoding_message_size(limit.saturating_add(4096));
    let gossip = GossipServiceServer::new(gossip::GossipFrames(parts.gossip.clone()));
    let cluster = ClusterServiceServer::new(cluster::Cluster(parts.clone()));
    let registry = RegistryServiceServer::new(registry::Methods(parts.router.clone()));
    let system = SystemServiceServer::new(system::System::new(parts.facts.clone()));
    let enrollment =
        EnrollmentServiceServer::new(enrollment::Enrollment(parts.enrolment.clone(), parts.rotation.clone()))
            .max_decoding_message_size(MAX_ENROLMENT_BYTES);
    let reflection = reflection::Reflection(parts.router.registry().clone());
    Ok(vec![
        LocalService::new(gossip, ours.clone(), Access::Node)?,
        LocalService::new(cluster, ours.clone(), Access::Member)?,
        LocalService::new(registry, ours.clone(), Access::Member)?,
        LocalService::new(call, ours.clone(), Access::Member)?,
        LocalService::new(enrollment, ours.clone(), Access::Admin)?
            .except("Enroll", Access::Public)
            .except("ReissueCa", Access::Node),
        LocalService::new(system, ours, Access::Member)?,
        LocalService::new(HealthServer::new(health::Health(parts.clone())), health, Access::Public)?,
        LocalService::new(
            v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()),
            reflect_v1,
            Access::Member,
        )?,
        LocalService::new(
            v1alpha::server_reflection_server::ServerReflectionServer::new(reflection),
            reflect_alpha,
            Access::Member,
        )?,
    ])
}

/// Who calls, as the stack left it in the request.
fn caller(extensions: &Extensions) -> Result<Arc<Caller>, Status> {
    extensions
        .get::<Arc<Caller>>()
        .cloned()
        .ok_or_else(|| Fault::internal("a request without its caller reached a service").to_status())
}
