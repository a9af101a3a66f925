//! `p2p.v1.ClusterService`: the cluster as this node sees it. The gateway shows the same.

use super::{Parts, caller, events, evict, note};
use p2p_core::{
    NodeId, Role,
    gossip::{MemberView, View},
};
use p2p_proto::{
    Timestamp,
    v1::{
        ClusterStatus, EventsRequest, EvictRequest, EvictResponse, GetStatusRequest, ListNodesRequest,
        ListNodesResponse, MemberState, NodeInfo, ReadmitRequest, ReadmitResponse, WhyRequest, WhyResponse,
        cluster_service_server::ClusterService,
    },
};
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

#[derive(Debug)]
pub(super) struct Cluster(pub(super) Parts);

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        Ok(Response::new(ListNodesResponse { nodes: nodes(&self.0.gossip.view().borrow()) }))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<ClusterStatus>, Status> {
        Ok(Response::new(status(&self.0)))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let why = events::why(&self.0, &request.into_inner().node_id).await;
        why.map(Response::new).map_err(|fault| fault.to_status())
    }

    type EventsStream = events::Events;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<events::Events>, Status> {
        let events = events::events(&self.0, request.into_inner().follow).await;
        events.map(Response::new).map_err(|fault| fault.to_status())
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictResponse>, Status> {
        let by = caller(request.extensions())?.principal.clone();
        note(request.extensions(), || format!("node {}", request.get_ref().node_id));
        let evicted = evict::evict(&self.0, request.into_inner(), &by).await;
        evicted.map(Response::new).map_err(|fault| fault.to_status())
    }

    async fn readmit(&self, request: Request<ReadmitRequest>) -> Result<Response<ReadmitResponse>, Status> {
        let by = caller(request.extensions())?.principal.clone();
        note(request.extensions(), || format!("node {}", request.get_ref().node_id));
        let readmitted = evict::readmit(&self.0, request.into_inner(), &by).await;
        readmitted.map(Response::new).map_err(|fault| fault.to_status())
    }
}

/// All members, sorted by node id.
pub fn nodes(view: &View) -> Vec<NodeInfo> {
    view.members.iter().map(|(node, member)| node_info(node, member)).collect()
}

fn node_info(node: &NodeId, member: &MemberView) -> NodeInfo {
    let record = &member.records.node;
    NodeInfo {
        node_id: node.to_string(),
        role: member.role().to_string(),
        state: member.state.into(),
        addresses: record.addresses.clone(),
        zone: record.zone.clone(),
        labels: record.labels.clone(),
        epoch: member.epoch.0,
        version: record.version.clone(),
        services: member.records.services.keys().map(ToString::to_string).collect(),
        rtt_ms: member.rtt.get().map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3),
        last_change: Some(timestamp_ms(member.since_unix_ms)),
        cert_expires_at: Some(Timestamp { seconds: member.records.signer.expires_at, nanos: 0 }),
        evicted: member.evicted,
    }
}

pub(super) fn timestamp_ms(unix_ms: u64) -> Timestamp {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(unix_ms % 1000 * 1_000_000).unwrap_or(0);
    Timestamp { seconds, nanos }
}

/// The cluster in numbers, and what is wrong with it.
pub fn status(parts: &Parts) -> ClusterStatus {
    let view = parts.gossip.view().borrow().clone();
    let count = |state| u32::try_from(view.count(state)).unwrap_or(u32::MAX);
    let alive = view.members.values().filter(|member| member.state == MemberState::Alive);
    let coordinators = alive.clone().filter(|member| member.role() == Role::Coordinator).count();
    let services: BTreeSet<_> = alive.flat_map(|member| member.records.services.keys()).collect();
    ClusterStatus {
        cluster_id: parts.gossip.cluster().to_string(),
        node_id: parts.facts.node.to_string(),
        alive: count(MemberState::Alive),
        suspect: count(MemberState::Suspect),
        down: count(MemberState::Down),
        left: count(MemberState::Left),
        coordinators: u32::try_from(coordinators).unwrap_or(u32::MAX),
        services: u32::try_from(services.len()).unwrap_or(u32::MAX),
        problems: problems(parts, &view),
    }
}

fn problems(parts: &Parts, view: &View) -> Vec<String> {
    let mut problems = Vec::new();
    if parts.facts.seeds > 0 && view.members.len() <= 1 {
        problems.push(
            "this node has reached none of its coordinator_addresses; see its log for each address"
                .to_owned(),
        );
    }
    if parts.revocations.is_incomplete() {
        problems.push(
            "revocations were lost and no other node has told them again: no access token is accepted here"
                .to_owned(),
        );
    }
    for (node, member) in &view.members {
        match member.state {
            MemberState::Suspect => problems.push(format!("{node} is suspect: it does not answer probes")),
            // Whoever evicted it knows.
            MemberState::Down if member.evicted => {}
            MemberState::Down => problems.push(format!("{node} is down")),
            MemberState::Alive | MemberState::Left | MemberState::Unspecified => {}
        }
    }
    problems
}
