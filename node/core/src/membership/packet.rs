//! A packet of the failure detector, read whole before any of it is acted on.

use super::{CodecError, Identity, MAX_PACKET, PacketError, identity::WireCodec};
use bytes::{Buf, BufMut, Bytes};
use foca::{Codec, Header, Member};

/// Header and piggybacked members of one packet.
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    pub(super) members: Vec<Member<Identity>>,
}

impl Packet {
    /// Reads a whole packet. foca would act on the members in front of trailing bytes before it refuses
    /// those; read this way, a malformed packet changes nothing.
    pub(super) fn read(codec: &mut WireCodec, bytes: &[u8]) -> Result<Self, PacketError> {
        Self::read_up_to(codec, bytes, MAX_PACKET)
    }

    /// The same with another limit than that of packets.
    pub(super) fn read_up_to(
        codec: &mut WireCodec,
        mut bytes: &[u8],
        limit: usize,
    ) -> Result<Self, PacketError> {
        if bytes.len() > limit {
            return Err(PacketError::Refused(format!("{} bytes, at most {limit}", bytes.len())));
        }
        let header = codec.decode_header(&mut bytes)?;
        let count = if bytes.len() < 2 { 0 } else { bytes.get_u16() };
        let members = (0..count).map(|_| codec.decode_member(&mut bytes)).collect::<Result<_, _>>()?;
        if bytes.is_empty() {
            Ok(Self { header, members })
        } else {
            Err(PacketError::Refused(format!("{} trailing bytes", bytes.len())))
        }
    }

    /// The packet without the members that `keep` turns down; `bytes` itself if it keeps all.
    pub(super) fn retain(
        mut self,
        codec: &mut WireCodec,
        bytes: &[u8],
        keep: impl FnMut(&Member<Identity>) -> bool,
    ) -> Result<Bytes, PacketError> {
        let before = self.members.len();
        self.members.retain(keep);
        if self.members.len() == before {
            return Ok(Bytes::copy_from_slice(bytes));
        }
        Ok(self.write(codec)?)
    }

    pub(super) fn write(&self, codec: &mut WireCodec) -> Result<Bytes, CodecError> {
        let mut bytes = Vec::with_capacity(MAX_PACKET);
        codec.encode_header(&self.header, &mut bytes)?;
        bytes.put_u16(u16::try_from(self.members.len()).expect("no more than one packet held"));
        for member in &self.members {
            codec.encode_member(member, &mut bytes)?;
        }
        Ok(bytes.into())
    }
}
