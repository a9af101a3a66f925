//! One signed run of a coordinator's log.

use super::{
    MAX_BODY_BYTES, MAX_COUNTER, MAX_ENTRIES, MAX_SKEW, MAX_SUBJECT_BYTES, MAX_TOKEN_ID_BYTES,
    SIGNATURE_CONTEXT,
};
use crate::{ClusterId, Epoch, NodeId, Role, record::Keyring};
use bytes::Bytes;
use p2p_proto::v1::{Revocation, RevocationBody, RevocationSegment, revocation::What};
use prost::Message as _;

/// Why a segment was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentRefusal {
    /// Not decodable, or something in it is not as it must be.
    #[error("malformed revocations: {0}")]
    Malformed(&'static str),
    /// They are of another cluster.
    #[error("revocations of cluster {theirs:?}, this is {ours}")]
    Cluster {
        /// Theirs.
        theirs: String,
        /// Ours.
        ours: ClusterId,
    },
    /// Signed by somebody else than the coordinator that they name.
    #[error(
        "revocations in the name of {named} are signed by {signer}; only coordinators revoke, each for itself"
    )]
    Signer {
        /// Whom they name.
        named: NodeId,
        /// Who signed.
        signer: String,
    },
    /// Certificate or signature do not hold.
    #[error("revocations of {named} are not to be trusted: {why}")]
    Untrusted {
        /// Whom they name.
        named: NodeId,
        /// What does not hold.
        why: String,
    },
    /// Signed more than [`MAX_SKEW`] ahead of our clock.
    #[error("revocations of {named} were signed in the future; check both clocks")]
    Ahead {
        /// Whom they name.
        named: NodeId,
    },
    /// A cap was hit.
    #[error("no room for more revocations of {named}: {what}")]
    Full {
        /// Whose.
        named: NodeId,
        /// Which cap.
        what: &'static str,
    },
}

impl SegmentRefusal {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Cluster { .. } => "cluster",
            Self::Signer { .. } => "signer",
            Self::Untrusted { .. } => "untrusted",
            Self::Ahead { .. } => "ahead",
            Self::Full { .. } => "full",
        }
    }
}

/// Which numbers of whose log a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeading {
    /// The coordinator.
    pub signer: NodeId,
    /// Which of its logs.
    pub log: u64,
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
    /// When it was signed, Unix seconds.
    pub issued_at: u64,
}

/// What all segments of one signing share.
pub(super) struct Author<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) signer: &'a NodeId,
    pub(super) keyring: &'a dyn Keyring,
    /// The certificate chain of the keyring's key.
    pub(super) chain: &'a [Bytes],
    pub(super) unix_s: u64,
}

impl Author<'_> {
    pub(super) fn seal(
        &self,
        log: u64,
        first: u64,
        last: u64,
        entries: Vec<Revocation>,
    ) -> RevocationSegment {
        let body = RevocationBody {
            cluster_id: self.cluster.to_string(),
            signer: self.signer.to_string(),
            log,
            first,
            last,
            issued_at: self.unix_s,
            entries,
        }
        .encode_to_vec();
        let signature = self.keyring.sign(&signed_bytes(&body)).into();
        RevocationSegment { body: body.into(), signature, certificate_chain: self.chain.to_vec() }
    }
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, body].concat()
}

/// Reads a segment without verifying who signed it: enough to drop what is already known.
pub(super) fn read(
    segment: &RevocationSegment,
    cluster: &ClusterId,
) -> Result<(SegmentHeading, Vec<Revocation>), SegmentRefusal> {
    if segment.body.len() > MAX_BODY_BYTES {
        return Err(SegmentRefusal::Malformed("too large"));
    }
    let body = RevocationBody::decode(&*segment.body).map_err(|_| SegmentRefusal::Malformed("body"))?;
    if body.cluster_id != cluster.as_str() {
        return Err(SegmentRefusal::Cluster { theirs: body.cluster_id, ours: cluster.clone() });
    }
    let signer = body.signer.parse().map_err(|_| SegmentRefusal::Malformed("signer"))?;
    if body.first == 0 || body.first > body.last || body.last == u64::MAX {
        return Err(SegmentRefusal::Malformed("range"));
    }
    if body.entries.len() > MAX_ENTRIES {
        return Err(SegmentRefusal::Malformed("more than 1,024 entries"));
    }
    body.entries.iter().try_for_each(check_entry)?;
    let heading = SegmentHeading {
        signer,
        log: body.log,
        first: body.first,
        last: body.last,
        issued_at: body.issued_at,
    };
    Ok((heading, body.entries))
}

/// Entries of a kind that a newer release added are carried along and not looked into.
fn check_entry(entry: &Revocation) -> Result<(), SegmentRefusal> {
    match &entry.what {
        Some(What::Token(id)) if id.is_empty() || id.len() > MAX_TOKEN_ID_BYTES => {
            Err(SegmentRefusal::Malformed("token id"))
        }
        Some(What::Subject(subject))
            if subject.subject.is_empty() || subject.subject.len() > MAX_SUBJECT_BYTES =>
        {
            Err(SegmentRefusal::Malformed("subject"))
        }
        Some(What::Node(node)) if node.node_id.parse::<NodeId>().is_err() => {
            Err(SegmentRefusal::Malformed("node id"))
        }
        Some(What::Node(node)) if node.counter > MAX_COUNTER => Err(SegmentRefusal::Malformed("counter")),
        Some(What::Token(_) | What::Subject(_) | What::Node(_)) | None => Ok(()),
    }
}

/// Verifies that the coordinator whom the segment names has signed it.
pub(super) fn verify(
    segment: &RevocationSegment,
    heading: &SegmentHeading,
    unix_s: u64,
    keyring: &dyn Keyring,
) -> Result<(), SegmentRefusal> {
    let named = || heading.signer.clone();
    if heading.issued_at > unix_s.saturating_add(MAX_SKEW.as_secs())
        || Epoch(heading.log).is_too_far_ahead(unix_s.saturating_mul(1000))
    {
        return Err(SegmentRefusal::Ahead { named: named() });
    }
    let message = signed_bytes(&segment.body);
    let signer = keyring
        .verify_at(&segment.certificate_chain, &message, &segment.signature, heading.issued_at)
        .map_err(|why| SegmentRefusal::Untrusted { named: named(), why })?;
    if signer.id.role != Role::Coordinator || signer.id.name != heading.signer {
        return Err(SegmentRefusal::Signer { named: named(), signer: signer.id.to_string() });
    }
    Ok(())
}
