//! `p2pctl certs inspect`

use super::read;
use crate::{
    error::{Exit, Failure, Outcome},
    output::{
        Detail, Output,
        table::{Cell, Table, Tone},
    },
};
use clap::Args;
use p2p_node::identity::{self, CertificateInfo, UnixTime};
use serde::Serialize;
use std::path::PathBuf;

/// From this many days before the end on, a certificate is shown as a warning.
const EXPIRES_SOON_DAYS: i64 = 30;

/// Shows what certificates say: whose they are, for which names, until when
///
/// Use it to find out why two sides do not trust each other. It says nothing about trust itself; that is
/// `p2pctl certs verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2pctl certs inspect certs/worker_cert.pem
  p2pctl certs inspect certs/ca_cert.pem certs/admin_cert.pem -o wide
  p2pctl certs inspect certs/worker_cert.pem -o json | jq '.items[].days_left'")]
pub(crate) struct InspectArgs {
    /// PEM file with one or more certificates
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Item {
    file: PathBuf,
    #[serde(flatten)]
    info: CertificateInfo,
}

/// Runs the verb.
pub(crate) fn run(args: &InspectArgs, output: &Output) -> Outcome {
    let mut items = Vec::new();
    for file in &args.files {
        let found = identity::inspect(&read(file)?, UnixTime::now())
            .map_err(|error| Failure::other(format!("{}: {error}", file.display())))?;
        items.extend(found.into_iter().map(|info| Item { file: file.clone(), info }));
    }
    output.list("CertificateList", &items, |detail| table(&items, detail))?;
    Ok(Exit::Success)
}

fn table(items: &[Item], detail: Detail) -> Table {
    let mut header = vec!["FILE", "HOLDER", "EXPIRES", "LEFT", "NAMES"];
    if detail == Detail::Wide {
        header.extend(["ISSUER", "SERVICES", "KEY", "VALID FROM", "SERIAL", "SHA256"]);
    }
    let mut table = Table::new(&header);
    for Item { file, info } in items {
        let mut row: Vec<Cell> = vec![
            file.display().to_string().into(),
            holder(info).into(),
            info.not_after.as_str().into(),
            left(info),
            names(info).into(),
        ];
        if detail == Detail::Wide {
            let services = info.grant.as_ref().map_or_else(|| "any".to_owned(), |globs| globs.join(","));
            row.extend::<[Cell; 6]>([
                info.issuer.as_str().into(),
                if info.is_ca { "".into() } else { services.into() },
                info.key_algorithm.as_str().into(),
                info.not_before.as_str().into(),
                info.serial.as_str().into(),
                info.sha256.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

/// The SPIFFE id of a leaf; a CA's has no path that says anything, so its subject.
fn holder(info: &CertificateInfo) -> String {
    match &info.spiffe_id {
        Some(id) if !info.is_ca => id.clone(),
        Some(_) | None => info.subject.clone(),
    }
}

fn left(info: &CertificateInfo) -> Cell {
    if info.days_left < 0 {
        return Cell::new("expired", Tone::Bad);
    }
    let tone = if info.days_left < EXPIRES_SOON_DAYS { Tone::Warn } else { Tone::Plain };
    Cell::new(format!("{}d", info.days_left), tone)
}

fn names(info: &CertificateInfo) -> String {
    let ips = info.ip_addresses.iter().map(ToString::to_string);
    info.dns_names.iter().cloned().chain(ips).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let worker = CertificateInfo {
            subject: "CN=worker-1".into(),
            issuer: "CN=p2p-core cluster shop CA".into(),
            spiffe_id: Some("spiffe://shop/worker/worker-1".into()),
            role: Some("worker"),
            cluster_id: Some("shop".parse().expect("an id")),
            dns_names: vec!["localhost".into()],
            ip_addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
            grant: Some(vec!["shop.*".into()]),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2026-01-31T00:00:00Z".into(),
            days_left: -1,
            serial: "0a".into(),
            sha256: "ff".into(),
            is_ca: false,
            key_algorithm: "ECDSA P-256".into(),
        };
        let ca = CertificateInfo {
            subject: "CN=p2p-core cluster shop CA".into(),
            spiffe_id: Some("spiffe://shop".into()),
            role: None,
            dns_names: vec![],
            ip_addresses: vec![],
            grant: None,
            days_left: 12,
            is_ca: true,
            ..worker.clone()
        };
        vec![
            Item { file: "worker-1_cert.pem".into(), info: worker },
            Item { file: "ca_cert.pem".into(), info: ca },
        ]
    }

    #[test]
    fn the_table_says_whose_it_is_and_until_when() {
        assert_eq!(
            table(&items(), Detail::Normal).render(false),
            "\
FILE               HOLDER                         EXPIRES               LEFT     NAMES
worker-1_cert.pem  spiffe://shop/worker/worker-1  2026-01-31T00:00:00Z  expired  localhost,127.0.0.1
ca_cert.pem        CN=p2p-core cluster shop CA    2026-01-31T00:00:00Z  12d      -
"
        );
        let wide = table(&items(), Detail::Wide).render(false);
        for text in ["ISSUER", "shop.*", "ECDSA P-256", "SHA256"] {
            assert!(wide.contains(text), "{text} is missing:\n{wide}");
        }
    }
}
