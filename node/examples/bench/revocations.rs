//! What 100,000 live revocations cost: memory, the look-up of one, and reading them back at a start.

use crate::process::Watched;
use bytes::Bytes;
use clap::Args;
use p2p_core::{ClusterId, NodeId, Role, TokenHolder, revocation::Segments};
use p2p_node::{
    gossip::NodeKeyring,
    identity::{Expected, GenerateRequest, IdentityFiles, IdentityStore, UnixTime, generate},
    persist::StateDirectory,
    revocation::{Everything, Keeper, Revocations},
    telemetry::Metrics,
};
use p2p_proto::v1::{Revocation, revocation::What};
use std::{
    hint::black_box,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

/// Look-ups that are timed together.
const LOOKUPS: u32 = 1_000_000;

/// Arguments of `bench revocations`.
#[derive(Debug, Args)]
pub(crate) struct RevocationsArgs {
    /// How many
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// Leaves them in this new directory instead, for a node to start with: `certs` of the coordinator `c`, and its `state`
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Reads what another run left in this directory: how that one measures a fresh process
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    load: Option<PathBuf>,
}

fn coordinator(certs: &Path) -> anyhow::Result<Arc<IdentityStore>> {
    let node: NodeId = "c".parse()?;
    let request = GenerateRequest {
        out: certs.to_owned(),
        cluster_id: Some("bench".parse()?),
        nodes: vec![(node.clone(), Role::Coordinator)],
        sans: Vec::new(),
        days: 30,
        self_signed: false,
        force: false,
    };
    generate(&request, UnixTime::now())?;
    let files = IdentityFiles {
        cert: certs.join("c_cert.pem"),
        key: certs.join("c_key.pem"),
        ca_cert: certs.join("ca_cert.pem"),
        ca_key: certs.join("ca_key.pem"),
    };
    let expected = Expected { node_id: node, cluster_id: None, coordinator: true, may_stand_alone: false };
    Ok(Arc::new(IdentityStore::load(files, expected, UnixTime::now())?))
}

/// A token's id, as ours are: 128 bits as hexadecimal.
fn jti(number: u64) -> String {
    format!("{:032x}", u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

pub(crate) fn run(args: &RevocationsArgs) -> anyhow::Result<()> {
    if let Some(state) = &args.load {
        return measure(args, state);
    }
    if let Some(directory) = &args.keep {
        return prepare(args, directory);
    }
    let directory = std::env::temp_dir().join(format!("p2p-bench-{}", std::process::id()));
    let result = prepare(args, &directory).and_then(|()| {
        let mut fresh = Command::new(std::env::current_exe()?);
        fresh
            .args(["revocations", "--count", &args.count.to_string(), "--load"])
            .arg(directory.join("state"));
        let status = fresh.status()?;
        anyhow::ensure!(status.success(), "the measuring process ended with {status}");
        Ok(())
    });
    std::fs::remove_dir_all(&directory)?;
    result
}

/// Signs the revocations and leaves them on disk, as a coordinator does.
fn prepare(args: &RevocationsArgs, directory: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let identity = coordinator(&directory.join("certs"))?;
    let present = identity.current();
    let own = present.spiffe().name.clone();
    let chain: Vec<Bytes> = present.chain_der().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let expires_at = UnixTime::now().as_secs() + 86_400;
    let entries =
        (0..args.count).map(|number| Revocation { expires_at, what: Some(What::Token(jti(number))) });
    let mut log = Segments::new(present.cluster_id().clone());
    let unix_ms = UnixTime::now().as_secs() * 1000;
    log.append(&own, entries.collect(), unix_ms, &NodeKeyring(identity.clone()), &chain)?;
    let state = StateDirectory::open(directory.join("state"))?;
    let name = "jwt_blacklist.json".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let (keeper, _) = Keeper::open(&state, &name)?;
    let all = Everything {
        segments: log.iter().cloned().collect(),
        positions: log.positions(false),
        incomplete: false,
    };
    runtime.block_on(keeper.save(all))??;
    Ok(())
}

/// Reads them back as a node does that starts: from the disk into the store and the tables.
fn measure(args: &RevocationsArgs, directory: &Path) -> anyhow::Result<()> {
    let (cluster, own): (ClusterId, NodeId) = ("bench".parse()?, "c".parse()?);
    let state = StateDirectory::open(directory)?;
    let name = "jwt_blacklist.json".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let on_disk = std::fs::metadata(state.path().join("jwt_blacklist.json"))?.len();
    let process = Watched::own();
    let before = process.resident_bytes()?;
    let started = Instant::now();
    let (_keeper, kept) = Keeper::open(&state, &name)?;
    let (mut store, table) = (Segments::new(cluster), Revocations::new(&Metrics::default()));
    for segment in kept.segments {
        let entries = store.load(segment)?.unwrap_or_default();
        table.apply(&entries);
    }
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let grown = process.resident_bytes()?.saturating_sub(before);
    anyhow::ensure!(store.entries() as u64 == args.count, "{} of {} were read", store.entries(), args.count);

    let holder = |number| -> anyhow::Result<TokenHolder> {
        Ok(TokenHolder { subject: "ci".parse()?, jti: jti(number).into() })
    };
    let (revoked, other) = (holder(args.count / 2)?, holder(args.count + 1)?);
    anyhow::ensure!(
        table.is_revoked(&revoked, 0, &own) && !table.is_revoked(&other, 0, &own),
        "wrong answers"
    );
    let started = Instant::now();
    for _ in 0..LOOKUPS {
        black_box(table.is_revoked(black_box(&other), 0, &own));
    }
    let lookup_ns = started.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS);
    writeln!(
        std::io::stdout(),
        "{}",
        serde_json::json!({
            "revocations": args.count, "segments": store.len(), "file_bytes": on_disk,
            "load_ms": load_ms, "memory_mib": grown as f64 / 1_048_576.0, "lookup_ns": lookup_ns,
        })
    )?;
    Ok(())
}
