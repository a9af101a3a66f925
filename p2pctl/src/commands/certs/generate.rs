//! `p2pctl certs generate`

use crate::{
    context::Context,
    error::{Exit, Failure, Outcome},
    output::{Output, table::Table},
};
use clap::Args;
use p2p_core::{ClusterId, NodeId, Role};
use p2p_node::identity::{self, GenerateError, GenerateRequest, San, UnixTime};
use serde::Serialize;
use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr};

/// The port of a node that is not told another one.
const DEFAULT_PORT: u16 = 8001;

/// Makes a CA and the certificates of nodes and an admin in one go
///
/// Use it to set up a cluster by hand, and later again to add nodes: a CA that is in the directory is used
/// and never replaced. Prints the files it wrote; keys are readable by their owner only. A context of the cluster's
/// name is written as well, so that p2pctl can use the admin's certificate without flags.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl certs generate
  p2pctl certs generate --cluster-id shop --node coordinator-1:coordinator \\
      --node api-1 --san 10.0.0.7
  p2pctl certs generate --out certs --node api-2
  p2pctl certs generate --self-signed --out standalone")]
pub(crate) struct GenerateArgs {
    /// Directory for the files
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// Cluster that the certificates are for; that of the CA in --out, else p2p-core, if not given
    #[arg(long, value_name = "ID")]
    cluster_id: Option<ClusterId>,
    /// Node to make a certificate for, a worker unless it says :coordinator; repeat for more
    #[arg(long = "node", value_name = "NAME[:ROLE]")]
    #[arg(default_values = ["coordinator:coordinator", "worker:worker"])]
    nodes: Vec<NodeRole>,
    /// Host name or IP address under which the nodes are reached, beside localhost; repeat for more
    #[arg(long = "san", value_name = "HOST|IP")]
    sans: Vec<San>,
    /// Validity
    #[arg(long, default_value = "3650")]
    days: NonZeroU32,
    /// Stand-alone certificates without a CA; nodes trust them by listing them in ssl_ca_cert_file
    #[arg(long)]
    self_signed: bool,
    /// Replace existing certificates of nodes and admin; never a CA
    #[arg(long)]
    force: bool,
}

/// `NAME`, `NAME:coordinator` or `NAME:worker`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NodeRole {
    node: NodeId,
    role: Role,
}

impl FromStr for NodeRole {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, role) = text.split_once(':').unwrap_or((text, Role::Worker.as_str()));
        let node = name.parse().map_err(|why| format!("{name:?} is no node name: {why}"))?;
        let role: Option<Role> = role.parse().ok().filter(|role: &Role| role.is_node());
        let role = role.ok_or("the role is coordinator or worker, as in NAME:coordinator")?;
        Ok(Self { node, role })
    }
}

#[derive(Serialize)]
struct WrittenFile {
    path: PathBuf,
}

/// Runs the verb.
pub(crate) fn run(args: GenerateArgs, output: &Output) -> Outcome {
    let request = GenerateRequest {
        out: args.out,
        cluster_id: args.cluster_id,
        nodes: args.nodes.into_iter().map(|spec| (spec.node, spec.role)).collect(),
        sans: args.sans,
        days: args.days.get(),
        self_signed: args.self_signed,
        force: args.force,
    };
    let files = identity::generate(&request, UnixTime::now()).map_err(failure)?;
    written(&files, output)?;
    if files.iter().any(|file| file.ends_with("ca_key.pem")) {
        let key = request.out.join("ca_key.pem");
        output.note(&format!(
            "Whoever has {} controls the cluster: give it to coordinators only, and keep a copy offline.",
            key.display()
        ));
    }
    if !request.self_signed
        && let Some(context) = context(&request)
    {
        context.remember(output);
    }
    Ok(Exit::Success)
}

/// Prints which files were written.
pub(super) fn written(files: &[PathBuf], output: &Output) -> Result<(), Failure> {
    let files: Vec<WrittenFile> = files.iter().map(|path| WrittenFile { path: path.clone() }).collect();
    output.list("FileList", &files, |_| {
        let mut lines = Table::lines("");
        for file in &files {
            lines.row(vec![file.path.display().to_string().into()]);
        }
        lines
    })
}

/// The context of the cluster's admin; its nodes are where the first --san says.
fn context(request: &GenerateRequest) -> Option<Context> {
    let cert = std::fs::read(request.out.join("admin_cert.pem")).ok()?;
    let admin = identity::inspect(&cert, UnixTime::now()).ok()?.into_iter().next()?;
    let endpoint = request.sans.first().map(|san| match san {
        San::Ip(ip) => SocketAddr::new(*ip, DEFAULT_PORT).to_string(),
        San::Dns(name) => format!("{name}:{DEFAULT_PORT}"),
    });
    Context::of_admin(admin.cluster_id?.as_str(), endpoint, &request.out)
}

pub(super) fn failure(error: GenerateError) -> Failure {
    let message = error.to_string();
    match error {
        GenerateError::NotANode(..) | GenerateError::Reserved(_) | GenerateError::Twice(_) => {
            Failure::usage(message)
        }
        GenerateError::NoCa(_) => Failure::not_found(message),
        GenerateError::Exists(_)
        | GenerateError::HalfCa { .. }
        | GenerateError::NotADirectory(_)
        | GenerateError::Ca(_)
        | GenerateError::Write(_) => Failure::other(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_worker_unless_it_says_otherwise() {
        let read = |text: &str| text.parse::<NodeRole>().map(|spec| (spec.node.to_string(), spec.role));
        assert_eq!(read("api-1"), Ok(("api-1".to_owned(), Role::Worker)));
        assert_eq!(read("c:coordinator"), Ok(("c".to_owned(), Role::Coordinator)));
        assert!(read("a:admin").is_err_and(|why| why.contains("coordinator or worker")));
        assert!(read("A").is_err_and(|why| why.contains("lower-case")));
    }
}
