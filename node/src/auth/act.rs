//! A caller and its act, as the audit log names them.

use super::{
    evidence::{Caller, Connection},
    policy::{Access, access_of},
};
use crate::audit::Entry;
use p2p_core::Principal;
use std::net::IpAddr;

/// Whether the audit log keeps calls of the method `path`: what changes who may do what, and how nodes come in.
pub fn is_audited(path: &str) -> bool {
    match access_of(path) {
        Access::Admin | Access::Minter => true,
        Access::Public | Access::Authenticated | Access::Member | Access::Node => {
            path.starts_with("p2p.v1.EnrollmentService/")
        }
    }
}

/// What the log says of a call of `path` that came over `connection` from `origin`; `caller` is not known where its
/// evidence does not hold.
pub fn audit_entry(path: &str, connection: &Connection, origin: IpAddr, caller: Option<&Caller>) -> Entry {
    let mut entry =
        Entry { act: path.to_owned(), evidence: "none", address: origin.to_string(), ..Entry::default() };
    let Some(caller) = caller else {
        entry.by = "not authenticated".to_owned();
        return entry;
    };
    entry.by = caller.principal.to_string();
    entry.uid = connection.user.map(|user| user.uid);
    entry.forwarded_by = caller.forwarded_by.as_ref().map(ToString::to_string);
    entry.token_id = caller.token().map(|token| token.holder.jti.to_string());
    entry.evidence = match (caller.proven(), caller.user()) {
        (Principal::Token(_), _) => "token",
        (Principal::Certificate(_) | Principal::Anonymous, Some(_)) => "local",
        (Principal::Certificate(_), None) => "certificate",
        (Principal::Anonymous, None) => "none",
    };
    entry
}
