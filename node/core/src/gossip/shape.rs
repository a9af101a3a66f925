//! What a message would take in memory, told from its bytes before it is decoded.
//!
//! An element of a list takes two bytes on the wire and up to a hundred decoded, and a list of empty ones compresses to
//! nearly nothing. So elements are counted first.

use p2p_proto::v1::{GossipMessage, gossip_message::Kind};
use prost::{
    DecodeError, Message as _,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// Elements that a message may have whatever its length: as many as there may be owners.
const FREE_ELEMENTS: usize = crate::record::MAX_OWNERS;
/// Beyond those there must be so many bytes for each. The shortest that honest nodes send many of, a line of a digest,
/// has 30. One in memory has up to 96: so a message takes at most 1.5 MiB and seven times its own length.
const BYTES_PER_ELEMENT: usize = 16;

/// Why a message was refused. Next to nothing was allocated for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is no message.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It would take many times its length in memory.
    #[error("the message has {elements} elements in {bytes} bytes; no node sends so many in so few")]
    Dense {
        /// Elements of its lists, and their fields.
        elements: usize,
        /// Its length.
        bytes: usize,
    },
}

impl MessageError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Dense { .. } => "bomb",
        }
    }
}

/// The message in a frame's payload; `None` if a newer release sent a kind that this one does not know.
///
/// # Errors
///
/// When the bytes are no message, or one that is made to take memory.
pub fn decode(payload: &[u8]) -> Result<Option<Kind>, MessageError> {
    let elements = elements(payload);
    if elements > FREE_ELEMENTS + payload.len() / BYTES_PER_ELEMENT {
        return Err(MessageError::Dense { elements, bytes: payload.len() });
    }
    Ok(GossipMessage::decode(payload)?.kind)
}

/// The elements of a message's lists. Where the bytes stop making sense so does the count: decoding will, too.
fn elements(message: &[u8]) -> usize {
    let mut count = 0;
    walk(message, &mut |kind, content| count += fields(content, depth(kind)));
    count
}

/// How deep the lists of a kind of message lie within each other, by its number in `GossipMessage`.
fn depth(kind: u32) -> usize {
    match kind {
        // Features; owners; signatures.
        1 | 5 | 8 => 1,
        // States and their records; segments and their certificates; logs and their ranges.
        3 | 6 | 7 => 2,
        // Ranges, their lists, and the lines of those.
        4 => 3,
        _ => 0,
    }
}

/// Fields down to `depth`. Bytes and text look like messages from here, and may count as a few fields too many.
fn fields(message: &[u8], depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let mut count = 0;
    walk(message, &mut |_, content| count += 1 + fields(content, depth - 1));
    count
}

/// Calls `found` with number and content of each field; what has no length has no content.
fn walk(mut message: &[u8], found: &mut dyn FnMut(u32, &[u8])) {
    while message.has_remaining() {
        let Ok((number, wire_type)) = decode_key(&mut message) else { return };
        if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut message).ok().and_then(|length| usize::try_from(length).ok());
            let Some((content, rest)) = length.and_then(|length| message.split_at_checked(length)) else {
                return;
            };
            found(number, content);
            message = rest;
        } else {
            if skip_field(wire_type, number, &mut message, DecodeContext::default()).is_err() {
                return;
            }
            found(number, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::{
        Digest, DigestEntries, DigestEntry, DigestRange, OwnerState, OwnerStates, Record, RevocationPosition,
        RevocationPositions, RevocationSegment, RevocationSegments, StatesRequest, TrustBundle,
        TrustBundleSignature, digest_range::Content,
    };

    const MANY: usize = 100_000;

    fn encoded(kind: Kind) -> Vec<u8> {
        GossipMessage { kind: Some(kind) }.encode_to_vec()
    }

    #[test]
    fn lists_of_nothing_are_refused_at_every_depth() {
        let records = vec![Record::default(); MANY];
        let entries = DigestEntries { entries: vec![DigestEntry::default(); MANY] };
        let range = DigestRange { content: Some(Content::Entries(entries)), ..DigestRange::default() };
        let certificates = vec![prost::bytes::Bytes::new(); MANY];
        let segment = RevocationSegment { certificate_chain: certificates, ..RevocationSegment::default() };
        for kind in [
            Kind::States(OwnerStates { states: vec![OwnerState::default(); MANY], answer: false }),
            Kind::States(OwnerStates {
                states: vec![OwnerState { records, ..OwnerState::default() }],
                answer: true,
            }),
            Kind::Digest(Digest { ranges: vec![DigestRange::default(); MANY], ..Digest::default() }),
            Kind::Digest(Digest { ranges: vec![range], ..Digest::default() }),
            Kind::StatesRequest(StatesRequest { owners: vec![String::new(); MANY] }),
            Kind::Revocations(RevocationSegments { segments: vec![RevocationSegment::default(); MANY] }),
            Kind::Revocations(RevocationSegments { segments: vec![segment] }),
            Kind::RevocationPositions(RevocationPositions {
                logs: vec![RevocationPosition::default(); MANY],
                reply_wanted: false,
            }),
            Kind::TrustBundle(TrustBundle {
                signatures: vec![TrustBundleSignature::default(); MANY],
                ..TrustBundle::default()
            }),
        ] {
            let message = encoded(kind);
            let error = decode(&message).expect_err("refused");
            assert_eq!(error.reason(), "bomb", "{error}");
            // Nor in two parts, nor behind what the count might stumble over.
            let half = [&[0x93, 0x3f, 0x94, 0x3f][..], &message[..]].concat();
            assert!(decode(&half).is_err_and(|error| error.reason() == "bomb"));
        }
    }

    #[test]
    fn what_honest_nodes_send_most_of_is_taken() {
        let names = || (0..crate::record::MAX_OWNERS - 1).map(|number| format!("n{number}"));
        let entry = |owner| DigestEntry { owner, epoch: 1 << 40, sequence: 1, hash: vec![7; 16].into() };
        let ranges = names().collect::<Vec<_>>();
        let ranges = ranges.chunks(16).map(|names| {
            let entries = DigestEntries { entries: names.iter().cloned().map(entry).collect() };
            DigestRange { depth: 3, digits: 7, content: Some(Content::Entries(entries)) }
        });
        for kind in [
            Kind::StatesRequest(StatesRequest { owners: names().collect() }),
            Kind::Digest(Digest { ranges: ranges.collect(), ..Digest::default() }),
        ] {
            assert_eq!(decode(&encoded(kind.clone())), Ok(Some(kind)));
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_malformed() {
        assert_eq!(decode(&[0xff; 64]).map_err(|error| error.reason()), Err("malformed"));
        assert_eq!(decode(&[]), Ok(None));
    }
}
