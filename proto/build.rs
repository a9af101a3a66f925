//! Compiles proto/p2p/v1 with protox, in pure Rust: no protoc to install.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

const FILES: [&str; 9] =
    ["gossip", "cluster", "registry", "rpc", "system", "enrollment", "auth", "revocation", "peer"];
/// Standard services that no library has whole.
const STANDARD: [&str; 1] = ["grpc/health/v1/health.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = FILES.iter().map(|name| format!("p2p/v1/{name}.proto"));
    let files: Vec<String> = own.chain(STANDARD.map(str::to_owned)).collect();
    println!("cargo:rerun-if-changed=p2p");
    println!("cargo:rerun-if-changed=grpc");
    let descriptors = protox::compile(&files, ["."])?;

    // With comments and imports: reflection and `p2pctl rpc describe` show them.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let transport = env::var_os("CARGO_FEATURE_TRANSPORT").is_some();
    let json = "#[derive(serde::Serialize)]";
    tonic_prost_build::configure()
        .build_client(transport)
        .build_server(transport)
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .type_attribute("p2p.v1.NodeInfo", json)
        .field_attribute("p2p.v1.NodeInfo.state", "#[serde(with = \"crate::json::member_state\")]")
        .field_attribute("p2p.v1.NodeInfo.last_change", "#[serde(with = \"crate::json::timestamp\")]")
        .field_attribute("p2p.v1.NodeInfo.cert_expires_at", "#[serde(with = \"crate::json::timestamp\")]")
        .field_attribute("p2p.v1.NodeInfo.evicted", "#[serde(skip_serializing_if = \"std::ops::Not::not\")]")
        .type_attribute("p2p.v1.ClusterStatus", json)
        .type_attribute("p2p.v1.WhyResponse", json)
        .field_attribute("p2p.v1.WhyResponse.state", "#[serde(with = \"crate::json::member_state\")]")
        .field_attribute("p2p.v1.WhyResponse.since", "#[serde(with = \"crate::json::timestamp\")]")
        .type_attribute("p2p.v1.Evidence", json)
        .field_attribute("p2p.v1.Evidence.at", "#[serde(with = \"crate::json::timestamp\")]")
        .field_attribute("p2p.v1.Evidence.from", "#[serde(with = \"crate::json::member_state\")]")
        .field_attribute("p2p.v1.Evidence.to", "#[serde(with = \"crate::json::member_state\")]")
        .type_attribute("p2p.v1.RevocationInfo", json)
        .field_attribute("p2p.v1.RevocationInfo.before", "#[serde(with = \"crate::json::timestamp\")]")
        .field_attribute("p2p.v1.RevocationInfo.expires_at", "#[serde(with = \"crate::json::timestamp\")]")
        .type_attribute("p2p.v1.MethodInfo", json)
        .field_attribute("p2p.v1.MethodInfo.streaming", "#[serde(with = \"crate::json::streaming_kind\")]")
        .field_attribute("p2p.v1.MethodInfo.idempotency", "#[serde(with = \"crate::json::idempotency\")]")
        .type_attribute("p2p.v1.ServiceInfo", json)
        .field_attribute("p2p.v1.ServiceInfo.state", "#[serde(with = \"crate::json::service_state\")]")
        .type_attribute("p2p.v1.ServiceProvider", json)
        .field_attribute("p2p.v1.ServiceProvider.state", "#[serde(with = \"crate::json::service_state\")]")
        .field_attribute("p2p.v1.ServiceProvider.circuit", "#[serde(with = \"crate::json::circuit_state\")]")
        .type_attribute("p2p.v1.UpstreamInfo", json)
        .field_attribute("p2p.v1.UpstreamInfo.state", "#[serde(with = \"crate::json::service_state\")]")
        .field_attribute(
            "p2p.v1.UpstreamInfo.lease_expires_at",
            "#[serde(with = \"crate::json::timestamp\")]",
        )
        .type_attribute("p2p.v1.JoinTokenInfo", json)
        .field_attribute("p2p.v1.JoinTokenInfo.state", "#[serde(with = \"crate::json::join_token_state\")]")
        .field_attribute("p2p.v1.JoinTokenInfo.expires_at", "#[serde(with = \"crate::json::timestamp\")]")
        .field_attribute("p2p.v1.JoinTokenInfo.created_at", "#[serde(with = \"crate::json::timestamp\")]")
        .type_attribute("p2p.v1.AccessTokenInfo", json)
        .field_attribute("p2p.v1.AccessTokenInfo.issued_at", "#[serde(with = \"crate::json::timestamp\")]")
        .field_attribute("p2p.v1.AccessTokenInfo.expires_at", "#[serde(with = \"crate::json::timestamp\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
