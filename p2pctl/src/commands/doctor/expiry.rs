//! Certificates that end soon.

use super::Finding;
use crate::{cli::GlobalOptions, commands::certs, error::Failure, output::time::relative};
use p2p_node::identity::{self, CertificateInfo, UnixTime};
use p2p_proto::{
    Timestamp,
    v1::{MemberState, NodeInfo},
};
use std::{path::Path, time::Duration};

const CHECK: &str = "certificate_expiry";

/// Whether `end` lies before `now` + `within`.
fn soon(end: &Timestamp, within: Duration, now: i64) -> bool {
    let within = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    end.seconds <= now.saturating_add(within)
}

fn ends(whose: &str, end: &Timestamp, now: i64) -> String {
    let word = if end.seconds > now { "expires" } else { "expired" };
    format!("{whose} {word} {} ({end})", relative(Some(end), now))
}

/// The nodes whose certificate ends within the time. Those that have left need none.
pub(super) fn of_nodes(nodes: &[NodeInfo], within: Duration, now: i64) -> Vec<Finding> {
    let present = nodes.iter().filter(|node| match node.state() {
        MemberState::Alive | MemberState::Suspect | MemberState::Down | MemberState::Unspecified => true,
        MemberState::Left => false,
    });
    let found = present.filter_map(|node| {
        let end = node.cert_expires_at.as_ref().filter(|end| soon(end, within, now))?;
        Some(Finding {
            check: CHECK.into(),
            subject: node.node_id.clone(),
            what: ends("its certificate", end, now),
            why: "with an expired certificate no other node accepts it: it neither serves nor calls. Nodes renew \
                  after two thirds of a certificate's life; past that, the node's log says why it is late"
                .into(),
            mend: mend(node),
        })
    });
    found.collect()
}

fn mend(node: &NodeInfo) -> String {
    let (id, role) = (&node.node_id, &node.role);
    let by_hand = format!(
        "where the CA's key is, run `p2pctl certs generate --node {id}:{role} --force` and copy {id}_cert.pem and \
         {id}_key.pem to the node, which takes them up by itself"
    );
    match role.as_str() {
        "coordinator" => {
            format!("see that it can read the CA's key, then it issues for itself; or {by_hand}")
        }
        _ => format!("see that a coordinator with the CA's key is alive; or {by_hand}"),
    }
}

/// The files of --ca and --cert, as far as they end within the time.
///
/// # Errors
///
/// When a file that was named is no certificate.
pub(super) fn of_files(global: &GlobalOptions, within: Duration, now: i64) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for path in [&global.ca, &global.cert].into_iter().flatten() {
        let pem = certs::read(path)?;
        let found = identity::inspect(&pem, UnixTime::now())
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        findings.extend(found.iter().filter_map(|info| of_file(path, info, within, now)));
    }
    Ok(findings)
}

fn of_file(path: &Path, info: &CertificateInfo, within: Duration, now: i64) -> Option<Finding> {
    let end: Timestamp = info.not_after.parse().ok()?;
    if !soon(&end, within, now) {
        return None;
    }
    let holder = info.spiffe_id.as_ref().filter(|_| !info.is_ca).unwrap_or(&info.subject);
    let (why, mend) = match info.is_ca {
        true => (
            "every certificate that this CA issued ends with it, and the whole cluster with them",
            "make a new CA with `p2pctl certs generate --out NEW`, and list both CAs in ssl_ca_cert_file of every \
             node until each has a certificate of the new one",
        ),
        false => (
            "with an expired certificate no node accepts who shows it",
            "where the CA's key is, run `p2pctl certs generate --node NAME --force`, which also makes \
             admin_cert.pem and admin_key.pem anew, and copy what you use here",
        ),
    };
    Some(Finding {
        check: CHECK.into(),
        subject: path.display().to_string(),
        what: ends(&format!("the certificate of {holder}"), &end, now),
        why: why.into(),
        mend: mend.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600;
    const DAY: i64 = 86_400;

    fn node(id: &str, role: &str, state: MemberState, days: i64) -> NodeInfo {
        NodeInfo {
            node_id: id.into(),
            role: role.into(),
            state: state.into(),
            cert_expires_at: Some(Timestamp { seconds: NOW + days * DAY, nanos: 0 }),
            ..NodeInfo::default()
        }
    }

    #[test]
    fn nodes_are_found_whose_certificate_ends_within_the_time() {
        let nodes = [
            node("c-1", "coordinator", MemberState::Alive, 31),
            node("w-1", "worker", MemberState::Alive, 30),
            node("w-2", "worker", MemberState::Down, -2),
            node("w-3", "worker", MemberState::Left, 1),
        ];
        let month = Duration::from_secs(30 * 86_400);
        let found = of_nodes(&nodes, month, NOW);
        let whats: Vec<_> =
            found.iter().map(|finding| (finding.subject.as_str(), finding.what.as_str())).collect();
        assert_eq!(
            whats,
            [
                ("w-1", "its certificate expires in 30d (2026-01-31T00:00:00Z)"),
                ("w-2", "its certificate expired 2d ago (2025-12-30T00:00:00Z)"),
            ]
        );
        assert!(
            found[0].mend.contains("`p2pctl certs generate --node w-1:worker --force`"),
            "{}",
            found[0].mend
        );
        assert_eq!(of_nodes(&nodes, Duration::from_secs(31 * 86_400), NOW).len(), 3);
        assert_eq!(of_nodes(&nodes, Duration::ZERO, NOW).len(), 1);
    }

    #[test]
    fn a_ca_is_told_apart_from_what_it_issued() {
        let info = |is_ca, days: i64| CertificateInfo {
            subject: "CN=p2p-core cluster shop CA".into(),
            issuer: String::new(),
            spiffe_id: Some(if is_ca { "spiffe://shop" } else { "spiffe://shop/admin/admin" }.to_owned()),
            role: None,
            cluster_id: None,
            dns_names: vec![],
            ip_addresses: vec![],
            grant: None,
            not_before: String::new(),
            not_after: Timestamp { seconds: NOW + days * DAY, nanos: 0 }.to_string(),
            days_left: days,
            serial: String::new(),
            sha256: String::new(),
            is_ca,
            key_algorithm: String::new(),
        };
        let week = Duration::from_secs(7 * 86_400);
        let ca = of_file(Path::new("ca_cert.pem"), &info(true, 6), week, NOW).expect("a finding");
        assert!(
            ca.what.starts_with("the certificate of CN=p2p-core cluster shop CA expires in 6d"),
            "{}",
            ca.what
        );
        assert!(ca.why.contains("the whole cluster"));
        let admin = of_file(Path::new("admin_cert.pem"), &info(false, -1), week, NOW).expect("a finding");
        assert!(admin.what.starts_with("the certificate of spiffe://shop/admin/admin expired 1d ago"));
        assert!(of_file(Path::new("ca_cert.pem"), &info(true, 8), week, NOW).is_none());
    }
}
