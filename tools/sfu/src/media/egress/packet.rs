//! Writing an outgoing RTP packet: header, extensions, payload with its VP8 numbers. Pure.

use super::extensions::ExtensionBlock;
use crate::media::rewrite::Vp8Numbers;

/// Bytes of an RTP header without CSRCs and extensions.
const HEADER_BYTES: usize = 12;
/// Bytes of the original sequence number in front of an RTX payload (RFC 4588 §4).
pub(crate) const RTX_BYTES: usize = 2;

/// One packet as a subscriber gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    /// Extended: the low 16 bits are on the wire, the rest is SRTP's rollover counter.
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) extensions: ExtensionBlock<'a>,
    /// The sequence number of the packet that this one repeats, for RTX.
    pub(crate) original: Option<u16>,
    pub(crate) payload: &'a [u8],
    /// Numbers to patch into a VP8 payload.
    pub(crate) vp8: Option<Vp8Numbers>,
    /// Bytes of padding behind the payload.
    pub(crate) padding: u8,
}

impl Packet<'_> {
    /// Bytes of the header with its extensions.
    pub(crate) fn header_bytes(&self) -> usize {
        HEADER_BYTES + self.extensions.bytes()
    }

    /// Bytes of the packet before encryption.
    pub(crate) fn bytes(&self) -> usize {
        let original = if self.original.is_some() { RTX_BYTES } else { 0 };
        self.header_bytes() + original + self.payload.len() + usize::from(self.padding)
    }

    /// Whether its payload is the publisher's as it came, so that it can be encrypted from where it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.original.is_none() && self.vp8.is_none() && self.padding == 0
    }

    /// Writes the header, with its extensions, to the front of `out`; how long it is.
    pub(crate) fn write_header(&self, out: &mut [u8]) -> usize {
        let at = self.header_bytes();
        let extended = if at > HEADER_BYTES { 0x10 } else { 0 };
        let padded = if self.padding > 0 { 0x20 } else { 0 };
        out[0] = 0x80 | extended | padded;
        out[1] = self.payload_type & 0x7f | u8::from(self.marker) << 7;
        out[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.extensions.write(&mut out[HEADER_BYTES..at]);
        at
    }

    /// Writes the packet to the front of `out`, which is at least [`bytes`](Self::bytes) long.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let mut at = self.write_header(out);
        if let Some(original) = self.original {
            out[at..at + RTX_BYTES].copy_from_slice(&original.to_be_bytes());
            at += RTX_BYTES;
        }
        let (payload, padding) = out[at..].split_at_mut(self.payload.len());
        payload.copy_from_slice(self.payload);
        if self.padding > 0 {
            // The last byte says how many there are (RFC 3550 §5.1).
            padding[..usize::from(self.padding)].fill(0);
            padding[usize::from(self.padding) - 1] = self.padding;
        }
        if let Some(numbers) = self.vp8 {
            patch_vp8(payload, &numbers);
        }
    }
}

/// Puts the numbers into a VP8 payload descriptor (RFC 7741 §4.2), each where the descriptor has
/// it and as long as it is there. A malformed descriptor stays as it is.
fn patch_vp8(payload: &mut [u8], numbers: &Vp8Numbers) {
    let Some([first, flags]) = payload.first_chunk::<2>().copied() else { return };
    if first & 0x80 == 0 {
        return;
    }
    let mut at = 2;
    if flags & 0x80 != 0 {
        let Some(&id) = payload.get(at) else { return };
        let long = id & 0x80 != 0;
        let bytes = if long { 2 } else { 1 };
        if let (Some(id), Some(field)) = (numbers.picture_id, payload.get_mut(at..at + bytes)) {
            if long {
                field.copy_from_slice(&(0x8000 | id).to_be_bytes());
            } else {
                // A 7-bit id stays one: its low bits count the same way.
                field[0] = (id & 0x7f) as u8;
            }
        }
        at += bytes;
    }
    if flags & 0x40 != 0 {
        if let (Some(tl0), Some(field)) = (numbers.tl0_pic_idx, payload.get_mut(at)) {
            *field = tl0;
        }
        at += 1;
    }
    if flags & 0x10 != 0
        && let (Some(key_idx), Some(field)) = (numbers.key_idx, payload.get_mut(at))
    {
        *field = *field & 0xe0 | key_idx & 0x1f;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use str0m::rtp::Vp8Descriptor;

    #[test]
    fn a_packet_without_extensions_is_twelve_bytes_and_its_payload() {
        let packet = Packet {
            payload_type: 96,
            marker: true,
            index: 0x1_0203,
            timestamp: 0x0405_0607,
            ssrc: 0x0809_0a0b,
            extensions: ExtensionBlock::default(),
            original: None,
            payload: &[9, 9],
            vp8: None,
            padding: 0,
        };
        let mut out = vec![0; packet.bytes()];
        packet.write(&mut out);
        assert_eq!(out, [0x80, 0xe0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 9, 9]);
        let rtx = Packet { original: Some(0x0102), ..packet };
        let mut out = vec![0; rtx.bytes()];
        rtx.write(&mut out);
        assert_eq!(out[12..], [1, 2, 9, 9]);
        let padded = Packet { padding: 3, payload: &[], ..packet };
        let mut out = vec![7; padded.bytes() + 16];
        padded.write(&mut out);
        assert_eq!((out[0], &out[12..16]), (0xa0, &[0, 0, 3, 7][..]), "the tag's place is left");
    }

    proptest! {
        /// What is patched reads back, and nothing else has changed.
        #[test]
        fn vp8_numbers_read_back(
            mut payload in proptest::collection::vec(any::<u8>(), 0..12),
            id in 0u16..0x8000, tl0: u8, key_idx in 0u8..32,
        ) {
            let before = payload.clone();
            let numbers = Vp8Numbers {
                picture_id: Some(id), tl0_pic_idx: Some(tl0), key_idx: Some(key_idx),
            };
            patch_vp8(&mut payload, &numbers);
            if let Ok(was) = Vp8Descriptor::parse(&before) {
                let now = Vp8Descriptor::parse(&payload).unwrap();
                let mask = if before.get(2).is_some_and(|byte| byte & 0x80 != 0) {
                    0x7fff
                } else {
                    0x7f
                };
                prop_assert_eq!(now.picture_id(), was.picture_id().map(|_| id & mask));
                prop_assert_eq!(now.tl0_pic_idx(), was.tl0_pic_idx().map(|_| tl0));
                prop_assert_eq!(now.key_idx(), was.key_idx().map(|_| key_idx));
            }
            prop_assert_eq!(&payload[6.min(payload.len())..], &before[6.min(before.len())..]);
        }
    }
}
