//! Header extensions, read only where something needs them (RFC 8285).

use crate::wire_time::unix_ns;

/// The extension block of an RTP packet as it came: clear, but authenticated with the packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExtensionBlock<'a> {
    profile: u16,
    bytes: &'a [u8],
}

/// Of a block's elements those that each packet is looked through for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Elements<'a> {
    pub(crate) abs_capture_time: Option<&'a [u8]>,
    pub(crate) dependency_descriptor: Option<&'a [u8]>,
    pub(crate) abs_send_time: Option<&'a [u8]>,
    pub(crate) transport_cc: Option<&'a [u8]>,
}

/// Ids negotiated for what is read of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExtensionIds {
    pub(crate) mid: Option<u8>,
    pub(crate) abs_capture_time: Option<u8>,
    pub(crate) dependency_descriptor: Option<u8>,
    /// When the packet was sent; of video, where the sender takes REMB.
    pub(crate) abs_send_time: Option<u8>,
    /// The transport-wide sequence number, where the sender takes feedback on it.
    pub(crate) transport_cc: Option<u8>,
}

/// One-byte elements (RFC 8285 §4.2).
const ONE_BYTE: u16 = 0xbede;
/// Two-byte elements (§4.3); the low four bits are the application's.
const TWO_BYTE: u16 = 0x1000;

impl<'a> ExtensionBlock<'a> {
    /// The block of a datagram whose header is this long, extensions included; empty without one.
    pub(crate) fn of(datagram: &'a [u8], header_bytes: usize) -> Self {
        let read = || {
            let first = *datagram.first()?;
            let at = 12 + 4 * usize::from(first & 0x0f);
            let block = datagram.get(at..header_bytes)?;
            let (head, bytes) = block.split_first_chunk::<4>()?;
            (first & 0x10 != 0)
                .then_some(Self { profile: u16::from_be_bytes([head[0], head[1]]), bytes })
        };
        read().unwrap_or_default()
    }

    /// The element with this id; `None` if there is none or the block is broken before it.
    pub(crate) fn get(&self, id: u8) -> Option<&'a [u8]> {
        self.iter().find_map(|(found, element)| (found == id).then_some(element))
    }

    /// What there is of these ids, each the first of its id.
    #[inline]
    pub(crate) fn elements(&self, ids: &ExtensionIds) -> Elements<'a> {
        let mut elements = Elements::default();
        if self.bytes.is_empty() {
            return elements;
        }
        for (id, element) in self.iter() {
            let id = Some(id);
            let place = if id == ids.abs_send_time {
                &mut elements.abs_send_time
            } else if id == ids.transport_cc {
                &mut elements.transport_cc
            } else if id == ids.abs_capture_time {
                &mut elements.abs_capture_time
            } else if id == ids.dependency_descriptor {
                &mut elements.dependency_descriptor
            } else {
                continue;
            };
            place.get_or_insert(element);
        }
        elements
    }

    /// Ids and values, up to where the block is broken.
    #[inline]
    fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let two_byte = self.profile & 0xfff0 == TWO_BYTE;
        let is_known = two_byte || self.profile == ONE_BYTE;
        let mut rest = if is_known { self.bytes } else { &[] };
        std::iter::from_fn(move || {
            loop {
                let (&head, behind) = rest.split_first()?;
                if head == 0 {
                    rest = behind;
                    continue;
                }
                let (id, bytes, behind) = if two_byte {
                    let (&bytes, behind) = behind.split_first()?;
                    (head, usize::from(bytes), behind)
                } else {
                    // 15 ends the block.
                    (head >> 4 != 15).then_some(())?;
                    (head >> 4, usize::from(head & 0x0f) + 1, behind)
                };
                let (element, behind) = behind.split_at_checked(bytes)?;
                rest = behind;
                return Some((id, element));
            }
        })
    }
}

/// The value of abs-capture-time in nanoseconds since the Unix epoch: 64-bit NTP, perhaps followed
/// by a clock offset (webrtc.googlesource.com, docs/native-code/rtp-hdrext/abs-capture-time),
/// which is of no use here: stamps of other clocks are not used. `None` for times before 1970.
pub(super) fn captured_unix_ns(value: &[u8]) -> Option<u64> {
    unix_ns(u64::from_be_bytes(*value.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire_time::NTP_UNIX_S;

    fn packet(profile: u16, elements: &[u8]) -> (Vec<u8>, usize) {
        let mut packet = vec![0x91; 12];
        packet.extend([0; 4]);
        packet.extend(profile.to_be_bytes());
        packet.extend(((elements.len() / 4) as u16).to_be_bytes());
        packet.extend(elements);
        let header_bytes = packet.len();
        packet.extend([7; 30]);
        (packet, header_bytes)
    }

    #[test]
    fn both_forms_are_read_and_broken_ones_end_the_search() {
        let (packet1, header) = packet(ONE_BYTE, &[0x41, 5, 6, 0, 0x10, 9, 0, 0]);
        let block = ExtensionBlock::of(&packet1, header);
        assert_eq!(block.get(4), Some(&[5, 6][..]));
        assert_eq!((block.get(1), block.get(2)), (Some(&[9][..]), None));
        let (packet2, header) = packet(TWO_BYTE | 3, &[4, 0, 0, 20, 2, 8, 9, 0]);
        let block = ExtensionBlock::of(&packet2, header);
        assert_eq!((block.get(4), block.get(20)), (Some(&[][..]), Some(&[8, 9][..])));
        let ids = ExtensionIds {
            abs_send_time: Some(20),
            transport_cc: Some(3),
            dependency_descriptor: Some(4),
            ..ExtensionIds::default()
        };
        let elements = block.elements(&ids);
        assert_eq!(elements.dependency_descriptor, Some(&[][..]));
        assert_eq!((elements.abs_send_time, elements.transport_cc), (Some(&[8, 9][..]), None));
        let (twice, header) = packet(ONE_BYTE, &[0x40, 1, 0x40, 2, 0x30, 3, 0xf0, 0]);
        let elements = ExtensionBlock::of(&twice, header).elements(&ids);
        assert_eq!(elements.dependency_descriptor, Some(&[1][..]), "the first one");
        assert_eq!(elements.transport_cc, Some(&[3][..]));
        let (broken, header) = packet(ONE_BYTE, &[0x47, 1, 2, 3]);
        assert_eq!(ExtensionBlock::of(&broken, header).get(4), None);
        let (ended, header) = packet(ONE_BYTE, &[0xf0, 0x40, 1, 0]);
        assert_eq!(ExtensionBlock::of(&ended, header).get(4), None);
        assert_eq!(ExtensionBlock::of(&[0x80; 20], 12), ExtensionBlock::default());
        assert_eq!(ExtensionBlock::of(&[0x90; 13], 16), ExtensionBlock::default());
    }

    #[test]
    fn capture_times_are_read_with_and_without_a_clock_offset() {
        let mut value = (NTP_UNIX_S << 32 | 3 << 32 | 1 << 31).to_be_bytes().to_vec();
        assert_eq!(captured_unix_ns(&value), Some(3_500_000_000));
        value.extend([0; 8]);
        assert_eq!(captured_unix_ns(&value), Some(3_500_000_000));
        assert_eq!(captured_unix_ns(&value[..7]), None);
        assert_eq!(captured_unix_ns(&[0; 8]), None, "before 1970");
    }
}
