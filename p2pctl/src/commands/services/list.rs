//! `p2pctl services list`

use crate::{
    error::{Exit, Outcome},
    output::{
        Detail, Output,
        table::{Cell, Table, Tone},
    },
    session::Session,
};
use clap::Args;
use p2p_proto::v1::{CircuitState, ServiceInfo, ServiceState};

/// Lists every service that the cluster provides: how it stands, at which nodes, and through which process
///
/// Use it to see who provides a service and whether it takes calls. UPSTREAM, IN-FLIGHT and CIRCUIT are those of the node
/// that is asked: choose another one with --endpoint. CIRCUIT tells for each provider whether that node sends calls
/// there (closed), for how long it does not because they failed (open 12s), or that it tries one (half-open); and in
/// brackets its calls in flight there, and how long they take lately.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl services list
  p2pctl services list -o wide
  p2pctl --endpoint 10.0.0.7:8001 services list -o json | jq '.items[].upstream'")]
pub(crate) struct ListArgs {}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, output: &Output) -> Outcome {
    let connection = session.connect().await?;
    let services = connection.list_services().await.map_err(|error| session.call_failure(&error))?;
    output.list("ServiceList", &services, |detail| table(&services, detail))?;
    if services.is_empty() {
        output.note(
            "No services yet: `p2pctl services register NAME --upstream URL` makes a process beside a node provide one; \
             `p2pctl rpc list` shows what every node has.",
        );
    }
    Ok(Exit::Success)
}

/// How a state is coloured.
pub(crate) fn tone(state: ServiceState) -> Tone {
    match state {
        ServiceState::Serving => Tone::Good,
        ServiceState::Draining | ServiceState::Unspecified => Tone::Warn,
        ServiceState::Disabled => Tone::Dim,
        ServiceState::NotServing => Tone::Bad,
    }
}

pub(super) fn table(services: &[ServiceInfo], detail: Detail) -> Table {
    let mut table = Table::new(match detail {
        Detail::Normal => &["SERVICE", "STATE", "PROVIDERS", "UPSTREAM", "IN-FLIGHT"],
        Detail::Wide => &[
            "SERVICE",
            "STATE",
            "PROVIDERS",
            "UPSTREAM",
            "IN-FLIGHT",
            "LIMIT",
            "HEALTH",
            "CIRCUIT",
            "METHODS",
            "PROBLEM",
        ],
    });
    for service in services {
        let upstream = service.upstream.as_ref();
        let text = |value: Option<String>| Cell::from(value.unwrap_or_default());
        let mut row = vec![
            service.name.as_str().into(),
            Cell::new(service.state().word(), tone(service.state())),
            providers(service).into(),
            text(upstream.map(|upstream| upstream.url.clone())),
            text(upstream.map(|upstream| upstream.in_flight.to_string())),
        ];
        if detail == Detail::Wide {
            let limit = upstream.map(|upstream| upstream.max_concurrent).filter(|most| *most > 0);
            row.push(text(limit.map(|most| most.to_string())));
            row.push(text(upstream.map(|upstream| upstream.health.clone())));
            row.push(circuits(service).into());
            row.push(service.methods.join(",").into());
            row.push(text(upstream.map(|upstream| upstream.problem.clone())));
        }
        table.row(row);
    }
    table
}

/// Node ids; those that do not serve, with how they stand.
fn providers(service: &ServiceInfo) -> String {
    let shown = service.providers.iter().map(|provider| {
        let state = provider.state();
        let serving = state == ServiceState::Serving;
        if serving { provider.node_id.clone() } else { format!("{}({})", provider.node_id, state.word()) }
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The circuits of other nodes that serve it, as the answering node sees them.
fn circuits(service: &ServiceInfo) -> String {
    let shown = service.providers.iter().filter_map(|provider| {
        let circuit = match provider.circuit() {
            CircuitState::Unspecified => return None,
            CircuitState::Closed => "closed".to_owned(),
            CircuitState::Open => format!("open {}s", provider.circuit_open_seconds),
            CircuitState::HalfOpen => "half-open".to_owned(),
        };
        let latency = provider.latency_ms.map(|latency| format!(" {latency:.1}ms")).unwrap_or_default();
        Some(format!("{} {circuit} ({}{latency})", provider.node_id, provider.in_flight))
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::{ServiceProvider, UpstreamInfo};

    #[test]
    fn services_stand_with_their_providers_and_the_process_here() {
        let provider = |node: &str, state: ServiceState| ServiceProvider {
            node_id: node.into(),
            state: state.into(),
            ..ServiceProvider::default()
        };
        let circuit = |node: &str, circuit: CircuitState, circuit_open_seconds: u32| ServiceProvider {
            circuit: circuit.into(),
            circuit_open_seconds,
            in_flight: 3,
            latency_ms: Some(1.25),
            ..provider(node, ServiceState::Serving)
        };
        let services = [
            ServiceInfo {
                name: "shop.Orders".into(),
                state: ServiceState::Serving.into(),
                providers: vec![
                    provider("w1", ServiceState::Draining),
                    provider("w2", ServiceState::Serving),
                    circuit("w3", CircuitState::Open, 12),
                    ServiceProvider { latency_ms: None, ..circuit("w4", CircuitState::HalfOpen, 0) },
                ],
                methods: vec!["Get".into(), "Put".into()],
                upstream: Some(UpstreamInfo {
                    url: "http://127.0.0.1:50051".into(),
                    in_flight: 3,
                    health: "auto".into(),
                    ..UpstreamInfo::default()
                }),
            },
            ServiceInfo {
                name: "shop.Stock".into(),
                state: ServiceState::NotServing.into(),
                upstream: Some(UpstreamInfo {
                    url: "http://127.0.0.1:50052".into(),
                    problem: "http://127.0.0.1:50052 refuses connections; is the process running?".into(),
                    max_concurrent: 8,
                    health: "tcp".into(),
                    ..UpstreamInfo::default()
                }),
                ..ServiceInfo::default()
            },
        ];
        assert_eq!(
            table(&services, Detail::Normal).render(false),
            "\
SERVICE      STATE        PROVIDERS              UPSTREAM                IN-FLIGHT
shop.Orders  serving      w1(draining),w2,w3,w4  http://127.0.0.1:50051  3
shop.Stock   not_serving  -                      http://127.0.0.1:50052  0
"
        );
        let wide = table(&services, Detail::Wide).render(false);
        assert!(wide.contains("w3 open 12s (3 1.2ms), w4 half-open (3)  Get,Put"), "{wide}");
        assert!(wide.contains("http://127.0.0.1:50052 refuses"), "{wide}");
        let json = serde_json::to_value(&services[0]).expect("serializes");
        assert_eq!(
            (&json["state"], &json["providers"][0]["state"], &json["upstream"]["lease_expires_at"]),
            (&"serving".into(), &"draining".into(), &serde_json::Value::Null)
        );
        assert_eq!(
            json["providers"][2],
            serde_json::json!({"node_id": "w3", "state": "serving", "circuit": "open",
                "circuit_open_seconds": 12, "in_flight": 3, "latency_ms": 1.25})
        );
    }
}
