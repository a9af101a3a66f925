//! `p2pctl services register`

use super::list;
use crate::{
    error::{Exit, Failure, Outcome},
    output::{Detail, Output},
    session::Session,
};
use anyhow::Context as _;
use clap::Args;
use p2p_core::ServiceName;
use p2p_node::config::{HealthCheck, UpstreamUrl};
use p2p_proto::v1::{RegisterServiceRequest, ServiceInfo, ServiceState};
use std::{
    fs::File,
    io::Read as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

/// Largest file that is sent along, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Makes a process a provider of a service, through the node that is asked
///
/// The node connects to the process, learns its methods by gRPC reflection, and publishes the service: every node of
/// the cluster routes its calls from then on. Use it for a service in any language that runs beside a node; what
/// should always be there, list under `services:` in the node's configuration instead. The registration survives
/// restarts of the node. Registering a name again replaces what was registered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl services register shop.Orders --upstream http://127.0.0.1:50051
  p2pctl services register shop.Orders --upstream http://127.0.0.1:50051 \\
      --descriptors shop.bin --health tcp
  p2pctl services register shop.Search --upstream https://localhost:8443 \\
      --tls-ca search_ca.pem --max-concurrent 64")]
pub(crate) struct RegisterArgs {
    /// Full name of the service: package.Service
    #[arg(value_parser = super::name)]
    name: ServiceName,
    /// Where the process listens, as the node reaches it: http://HOST:PORT, or https:// for TLS
    #[arg(long, value_name = "URL")]
    upstream: UpstreamUrl,
    /// Descriptors of a process without reflection: a FileDescriptorSet, as
    /// `protoc --include_imports --descriptor_set_out FILE` writes it
    #[arg(long, value_name = "FILE")]
    descriptors: Option<PathBuf>,
    /// How the node checks it: auto (grpc.health.v1 where the process has it), grpc, tcp or none
    #[arg(long, value_name = "HOW", default_value = "auto")]
    health: HealthCheck,
    /// Pause between health checks
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = p2p_node::config::parse_duration)]
    health_interval: Duration,
    /// Most calls at a time; more are refused, or served elsewhere
    #[arg(long, value_name = "N")]
    max_concurrent: Option<NonZeroU32>,
    /// CA certificate (PEM) that an https upstream is checked against
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// How long the registration outlives the last health check that passed; 0 for ever
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = p2p_node::config::parse_duration)]
    lease: Duration,
}

/// Runs the verb.
pub(crate) async fn run(args: &RegisterArgs, session: &Session<'_>, output: &Output) -> Outcome {
    let request = request(args)?;
    let connection = session.connect().await?;
    let registered = connection.register_service(request).await;
    let service = registered.map_err(|error| session.call_failure(&error))?;
    output.object("Service", &service, |_| told(&service))?;
    output.note(&hint(&service));
    Ok(Exit::Success)
}

fn request(args: &RegisterArgs) -> Result<RegisterServiceRequest, Failure> {
    let lease_seconds = match args.lease {
        lease if lease.is_zero() => 0,
        // At least one: 0 would mean for ever.
        lease => lease.as_secs().max(1),
    };
    Ok(RegisterServiceRequest {
        name: args.name.to_string(),
        upstream: args.upstream.to_string(),
        file_descriptor_set: args.descriptors.as_deref().map(read).transpose()?.unwrap_or_default().into(),
        health: args.health.word().to_owned(),
        health_interval_ms: u64::try_from(args.health_interval.as_millis()).unwrap_or(u64::MAX),
        max_concurrent: args.max_concurrent.map_or(0, NonZeroU32::get),
        ca_pem: args.tls_ca.as_deref().map(read).transpose()?.unwrap_or_default().into(),
        lease_seconds,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(|error| Failure::usage(format!("{error:#}")))?;
    match bytes.len() as u64 {
        0 => Err(Failure::usage(format!("{} is empty", path.display()))),
        1..=MAX_FILE_BYTES => Ok(bytes),
        _ => Err(Failure::usage(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display()))),
    }
}

fn told(service: &ServiceInfo) -> String {
    list::table(std::slice::from_ref(service), Detail::Normal).render(false)
}

fn hint(service: &ServiceInfo) -> String {
    match service.state() {
        ServiceState::Serving => {
            let method = service.methods.first().map(String::as_str).unwrap_or_default();
            format!("Call it from any node: p2pctl rpc call {}/{method}", service.name)
        }
        ServiceState::Unspecified
        | ServiceState::Draining
        | ServiceState::Disabled
        | ServiceState::NotServing => {
            let problem = service.upstream.as_ref().map(|upstream| upstream.problem.as_str());
            format!(
                "It is registered, and serves once its health check passes: {}",
                problem.unwrap_or_default()
            )
        }
    }
}
