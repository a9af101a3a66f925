//! The second request of a coordinator that joins: for a CA of its own.

use super::super::{refusal::Refusal, token::Use};
use crate::identity::{InvalidCsr, ca_key_of, proven_key};
use p2p_core::Role;

/// The proven key of the CA that a node of `role` asks for; none for workers, whatever they ask for.
pub(super) fn ca_key(role: Role, ca_csr: &[u8], node_key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    if role != Role::Coordinator {
        return Ok(None);
    }
    if ca_csr.is_empty() {
        let what = "a coordinator asks for a CA of its own, too, and this request does not: the node there runs with \
                    coordinator_mode: false, or an older release";
        return Err(Refusal::Malformed(what.to_owned()));
    }
    let key = proven_key(ca_csr).map_err(|error: InvalidCsr| {
        Refusal::Malformed(format!("the request for the coordinator's own CA: {error}"))
    })?;
    if key == node_key {
        let what = "the key of the coordinator's own CA must be another than the node's";
        return Err(Refusal::Malformed(what.to_owned()));
    }
    Ok(Some(key))
}

/// Whether a repeated request asks for the CA that it was given. With another CA key the token is used up.
pub(super) fn check_same(before: &Use, ca_key: Option<&[u8]>) -> Result<(), Refusal> {
    let given = before.ca_certificate.as_ref().and_then(|der| ca_key_of(&der.0));
    if given.as_deref() == ca_key { Ok(()) } else { Err(Refusal::Used) }
}
