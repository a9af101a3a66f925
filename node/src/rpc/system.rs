//! `p2p.v1.SystemService`: facts about this node, and its settings.

use super::{Parts, note, settings};
use crate::{
    error::Fault,
    examine::{Examined, examine},
};
use p2p_core::{ClusterId, Epoch, NodeId, Role};
use p2p_proto::{
    Timestamp,
    v1::{
        EchoRequest, EchoResponse, ExamineRequest, ExamineResponse, GetConfigRequest, GetConfigResponse,
        GetInfoRequest, GetInfoResponse, GetMetricsRequest, GetMetricsResponse, NodeTraffic, ReloadRequest,
        ReloadResponse, system_service_server::SystemService,
    },
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate};
use tonic::{Request, Response, Status};

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The role that its certificate grants.
    pub role: Role,
    /// This start.
    pub epoch: Epoch,
    /// When it started.
    pub started: SystemTime,
    /// The same, on the monotonic clock.
    pub started_at: Instant,
    /// How many addresses to look for others it was given.
    pub seeds: usize,
}

/// Readings younger than this are given again: CPU use needs an interval, and reading costs.
const MIN_READING_AGE: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Readings {
    /// Made at the first reading.
    system: Option<sysinfo::System>,
    taken: Option<Instant>,
}

pub(super) struct System {
    parts: Parts,
    readings: Arc<Mutex<Readings>>,
}

impl System {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, readings: Arc::default() }
    }

    fn traffic(&self) -> NodeTraffic {
        let (calls, gossip) = (self.parts.router.registry().calls(), self.parts.gossip.cost());
        NodeTraffic {
            calls: calls.ended,
            calls_failed: calls.failed,
            unary_durations: calls.durations,
            gossip_interval_seconds: gossip.interval.as_secs_f64(),
            gossip_sent_bytes: gossip.sent,
            gossip_received_bytes: gossip.received,
        }
    }
}

#[tonic::async_trait]
impl SystemService for System {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let message = request.into_inner().message;
        Ok(Response::new(EchoResponse { message, node_id: self.parts.facts.node.to_string() }))
    }

    async fn get_info(&self, _request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let facts = &self.parts.facts;
        Ok(Response::new(GetInfoResponse {
            node_id: facts.node.to_string(),
            cluster_id: facts.cluster.to_string(),
            role: facts.role.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: facts.epoch.0,
            started_at: Some(Timestamp::from(facts.started)),
            hostname: sysinfo::System::host_name().unwrap_or_default(),
            os: sysinfo::System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            arch: std::env::consts::ARCH.to_owned(),
            pid: std::process::id(),
            now: Some(Timestamp::from(SystemTime::now())),
        }))
    }

    async fn get_metrics(
        &self,
        _request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let (readings, started) = (self.readings.clone(), self.parts.facts.started_at);
        // Reads /proc.
        let read = tokio::task::spawn_blocking(move || read(&readings, started)).await;
        let answer = read.map_err(Fault::internal).and_then(|answer| answer.map_err(Fault::internal));
        let answer = answer.map_err(|fault| fault.to_status())?;
        Ok(Response::new(GetMetricsResponse { traffic: Some(self.traffic()), ..answer }))
    }

    async fn examine(&self, _request: Request<ExamineRequest>) -> Result<Response<ExamineResponse>, Status> {
        let parts = &self.parts;
        let examined = Examined {
            node: &parts.facts.node,
            role: parts.facts.role,
            running: &parts.running,
            gossip: &parts.gossip,
            revocations: &parts.revocations,
        };
        Ok(Response::new(examine(examined).await))
    }

    async fn get_config(
        &self,
        _request: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        settings::in_force(&self.parts).map(Response::new).map_err(|fault| fault.to_status())
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ReloadResponse>, Status> {
        let dry_run = request.get_ref().dry_run;
        let answer = settings::reload(&self.parts, dry_run).await.map_err(|fault| fault.to_status())?;
        note(request.extensions(), || settings::outcome(&answer, dry_run));
        Ok(Response::new(answer))
    }
}

fn read(readings: &Mutex<Readings>, started: Instant) -> Result<GetMetricsResponse, sysinfo::Error> {
    let mut readings = readings.lock().unwrap_or_else(PoisonError::into_inner);
    let Readings { system, taken } = &mut *readings;
    let first = system.is_none();
    let system = match system {
        Some(system) => system,
        None => system.insert(sysinfo::System::new()?),
    };
    if taken.is_none_or(|taken| taken.elapsed() >= MIN_READING_AGE) {
        system.refresh_cpu_usage();
        if first {
            // The first CPU reading has nothing to compare with.
            std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
            system.refresh_cpu_usage();
        }
        system.refresh_memory();
        *taken = Some(Instant::now());
    }
    let mut answer = GetMetricsResponse {
        cpu_usage_ratio: f64::from(system.global_cpu_usage()) / 100.0,
        cpu_count: u32::try_from(system.cpus().len()).unwrap_or(u32::MAX),
        memory_total_bytes: system.total_memory(),
        memory_available_bytes: system.available_memory(),
        load_average_1m: sysinfo::System::load_average()?.one,
        uptime_seconds: started.elapsed().as_secs(),
        ..GetMetricsResponse::default()
    };
    let pid = sysinfo::Pid::from_u32(std::process::id());
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    if let Some(process) = system.process(pid) {
        answer.process_cpu_seconds = Duration::from_millis(process.accumulated_cpu_time()).as_secs_f64();
        answer.process_resident_memory_bytes = process.memory();
    }
    Ok(answer)
}
