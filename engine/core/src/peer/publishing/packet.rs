//! Writing an RTP packet that a publisher sends: header, extensions, payload with its numbers. Pure.
//!
//! Extensions stand in the order of their ids, as str0m writes them.

use stampede_media::{packet_trailer, vp8, vp9};
use str0m::rtp::{Extension, ExtensionMap};

use super::descriptor;

/// Bytes of an RTP header without CSRCs and extensions.
const FIXED_BYTES: usize = 12;
/// Bytes of the header of the extension block (RFC 8285 §4.2).
const BLOCK_HEADER_BYTES: usize = 4;
/// Longest value and highest id of the one-byte form (RFC 8285 §4.2).
const SHORT_VALUE_BYTES_MAX: usize = 16;
const SHORT_ID_MAX: u8 = 14;
/// How the forms are told apart.
const ONE_BYTE_FORM: [u8; 2] = [0xbe, 0xde];
const TWO_BYTE_FORM: [u8; 2] = [0x10, 0];
/// Bytes of the values that differ from packet to packet.
const SEND_TIME_BYTES: usize = 3;
const NUMBER_BYTES: usize = 2;
const CAPTURE_TIME_BYTES: usize = 8;
/// Bytes of the original sequence number in front of an RTX payload (RFC 4588 §4).
const RTX_BYTES: usize = 2;

/// A header extension that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Level,
    SendTime,
    Number,
    Mid,
    CaptureTime,
    Rid,
    RepairedRid,
    Descriptor,
}

/// The ids that an m-line's answer knows extensions by, ascending.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids(Vec<(u8, Element)>);

impl Ids {
    pub(super) fn of(map: &ExtensionMap) -> Self {
        let descriptor = descriptor::extension();
        let element = |extension: &Extension| match extension {
            Extension::AudioLevel => Some(Element::Level),
            Extension::AbsoluteSendTime => Some(Element::SendTime),
            Extension::TransportSequenceNumber => Some(Element::Number),
            Extension::RtpMid => Some(Element::Mid),
            Extension::AbsoluteCaptureTime => Some(Element::CaptureTime),
            Extension::RtpStreamId => Some(Element::Rid),
            Extension::RepairedRtpStreamId => Some(Element::RepairedRid),
            other if *other == descriptor => Some(Element::Descriptor),
            _ => None,
        };
        Self(map.iter().filter_map(|(id, extension)| Some((id, element(extension)?))).collect())
    }
}

/// What a packet's extensions say, but for its times and its number: each as far as it was agreed on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Values<'a> {
    pub(super) mid: Option<&'a str>,
    pub(super) rid: Option<&'a str>,
    pub(super) repaired_rid: Option<&'a str>,
    /// RFC 6464: the voice flag and the level.
    pub(super) level: Option<u8>,
    /// It has the capture time.
    pub(super) captured: bool,
    /// A dependency descriptor.
    pub(super) descriptor: Option<&'a [u8]>,
}

/// The extension block of packets that say the same, but for their times and numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Where these stand.
    send_time: Option<usize>,
    number: Option<usize>,
    capture_time: Option<usize>,
}

impl Block {
    /// The block of a packet alone.
    pub(super) fn of(ids: &Ids, values: &Values<'_>) -> Self {
        let mut block = Self::default();
        block.set(ids, values);
        block
    }

    /// Makes it that of a packet with these values.
    pub(super) fn set(&mut self, ids: &Ids, values: &Values<'_>) {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
        let described = values.descriptor.is_some_and(|value| value.len() > SHORT_VALUE_BYTES_MAX);
        let long = ids.0.iter().any(|&(id, element)| {
            id > SHORT_ID_MAX || (described && element == Element::Descriptor)
        });
        self.bytes.extend_from_slice(if long { &TWO_BYTE_FORM } else { &ONE_BYTE_FORM });
        self.bytes.extend_from_slice(&[0; 2]);
        let (level, zeros) = (values.level.map(|level| [level]), [0; CAPTURE_TIME_BYTES]);
        for &(id, element) in &ids.0 {
            let value = match element {
                Element::Level => level.as_ref().map(|level| &level[..]),
                Element::SendTime => Some(&zeros[..SEND_TIME_BYTES]),
                Element::Number => Some(&zeros[..NUMBER_BYTES]),
                Element::CaptureTime => values.captured.then_some(&zeros[..]),
                Element::Mid => values.mid.map(str::as_bytes),
                Element::Rid => values.rid.map(str::as_bytes),
                Element::RepairedRid => values.repaired_rid.map(str::as_bytes),
                Element::Descriptor => values.descriptor,
            };
            let Some(value) = value.filter(|value| (1..=255).contains(&value.len())) else {
                continue;
            };
            match long {
                true => self.bytes.extend_from_slice(&[id, value.len() as u8]),
                false => self.bytes.push(id << 4 | (value.len() as u8 - 1)),
            }
            let at = Some(self.bytes.len());
            match element {
                Element::SendTime => self.send_time = at,
                Element::Number => self.number = at,
                Element::CaptureTime => self.capture_time = at,
                _ => {}
            }
            self.bytes.extend_from_slice(value);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let words = (self.bytes.len() - BLOCK_HEADER_BYTES) / 4;
        self.bytes[2..BLOCK_HEADER_BYTES].copy_from_slice(&(words as u16).to_be_bytes());
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// It has a number of the whole transport.
    pub(super) fn is_numbered(&self) -> bool {
        self.number.is_some()
    }
}

/// The numbers that a payload is to have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers {
    /// It is sent as it is.
    None,
    Vp8 {
        picture_id: u16,
        tl0_pic_idx: u8,
    },
    Vp9 {
        picture_id: u16,
        tl0_pic_idx: u8,
        /// Which of several streams this is.
        stream: Option<u8>,
    },
}

impl Numbers {
    /// Writes them into a payload.
    pub(super) fn put(self, payload: &mut [u8]) {
        match self {
            Self::None => {}
            Self::Vp8 { picture_id, tl0_pic_idx } => {
                vp8::renumber(payload, picture_id, tl0_pic_idx);
            }
            Self::Vp9 { picture_id, tl0_pic_idx, stream } => {
                vp9::renumber(payload, picture_id, tl0_pic_idx);
                if let Some(stream) = stream {
                    vp9::set_spatial_id(payload, stream);
                }
            }
        }
    }
}

/// One packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) payload_type: u8,
    pub(super) marker: bool,
    /// Extended: the low 16 bits are on the wire, the rest is SRTP's rollover counter.
    pub(super) index: u64,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
    pub(super) block: &'a Block,
    /// When it is sent, as abs-send-time has it.
    pub(super) send_time: [u8; SEND_TIME_BYTES],
    /// Its number in the whole transport.
    pub(super) number: u16,
    /// When it was captured, in NTP's 64 bits, if its block says it.
    pub(super) captured_ntp: u64,
    /// The sequence number of what is sent again.
    pub(super) original: Option<u16>,
    pub(super) payload: &'a [u8],
    pub(super) numbers: Numbers,
    /// LiveKit's trailer with this time.
    pub(super) trailer_us: Option<u64>,
}

impl Packet<'_> {
    /// Bytes of the header, extensions included.
    pub(super) fn header_bytes(&self) -> usize {
        FIXED_BYTES + self.block.len()
    }

    /// Bytes of the payload, with the trailer and without what RTX has in front.
    pub(super) fn payload_bytes(&self) -> usize {
        let trailer = self.trailer_us.map_or(0, |_| packet_trailer::TIMESTAMP_TRAILER_BYTES);
        self.payload.len() + trailer
    }

    /// Bytes of all of it, in clear.
    pub(super) fn bytes(&self) -> usize {
        let original = self.original.map_or(0, |_| RTX_BYTES);
        self.header_bytes() + original + self.payload_bytes()
    }

    /// Writes it to the beginning of `out`, which is at least [`bytes`](Self::bytes) long.
    pub(super) fn write(&self, out: &mut [u8]) {
        let (header, mut rest) = out.split_at_mut(self.header_bytes());
        let (fixed, block) = header.split_at_mut(FIXED_BYTES);
        // Version 2, and there are extensions.
        fixed[0] = 0x90;
        fixed[1] = self.payload_type & 0x7f | u8::from(self.marker) << 7;
        fixed[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        block.copy_from_slice(&self.block.bytes);
        let mut put = |at: Option<usize>, value: &[u8]| {
            if let Some(place) = at.and_then(|at| block.get_mut(at..at + value.len())) {
                place.copy_from_slice(value);
            }
        };
        put(self.block.send_time, &self.send_time);
        put(self.block.number, &self.number.to_be_bytes());
        put(self.block.capture_time, &self.captured_ntp.to_be_bytes());
        if let Some(original) = self.original {
            let (front, behind) = rest.split_at_mut(RTX_BYTES);
            front.copy_from_slice(&original.to_be_bytes());
            rest = behind;
        }
        let (payload, rest) = rest.split_at_mut(self.payload.len());
        payload.copy_from_slice(self.payload);
        self.numbers.put(payload);
        if let Some(at_us) = self.trailer_us {
            let trailer = packet_trailer::of_timestamp(at_us);
            rest[..trailer.len()].copy_from_slice(&trailer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_media::packetize;

    fn ids(with_time: bool) -> Ids {
        let mut map = ExtensionMap::empty();
        map.set(9, Extension::AbsoluteCaptureTime);
        map.set(3, Extension::TransportSequenceNumber);
        map.set(4, Extension::RtpMid);
        map.set(10, Extension::RtpStreamId);
        map.set(12, descriptor::extension());
        if with_time {
            map.set(2, Extension::AbsoluteSendTime);
        }
        Ids::of(&map)
    }

    fn packet<'a>(block: &'a Block, payload: &'a [u8]) -> Packet<'a> {
        Packet {
            payload_type: 96,
            marker: true,
            index: 0x1_0203,
            timestamp: 0x0405_0607,
            ssrc: 0x0809_0a0b,
            block,
            send_time: [0x11, 0x12, 0x13],
            number: 0x2122,
            captured_ntp: 0x3132_3334_3536_3738,
            original: None,
            payload,
            numbers: Numbers::None,
            trailer_us: None,
        }
    }

    fn written(packet: &Packet<'_>) -> Vec<u8> {
        let mut out = vec![0xff; packet.bytes()];
        packet.write(&mut out);
        out
    }

    #[test]
    fn a_packet_byte_for_byte() {
        let values = Values { mid: Some("0"), captured: true, ..Values::default() };
        let block = Block::of(&ids(true), &values);
        let out = written(&packet(&block, &[7, 7]));
        let header = [0x90, 0xe0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xbe, 0xde, 0, 5];
        let times = [0x22, 0x11, 0x12, 0x13, 0x31, 0x21, 0x22, 0x40, b'0'];
        let capture = [0x97, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0, 0];
        assert_eq!(out, [&header[..], &times, &capture, &[7, 7]].concat());
        // Again, with its own number in front.
        let again = Packet { original: Some(0x4142), ..packet(&block, &[7, 7]) };
        assert_eq!(written(&again)[36..], [0x41, 0x42, 7, 7]);
    }

    #[test]
    fn what_was_not_agreed_on_is_not_said() {
        let level = Values { level: Some(9), repaired_rid: Some("q"), ..Values::default() };
        let block = Block::of(&ids(false), &level);
        assert_eq!(block.bytes, [0xbe, 0xde, 0, 1, 0x31, 0, 0, 0]);
        assert_eq!(Block::of(&Ids::default(), &level).bytes, [0xbe, 0xde, 0, 0]);
    }

    #[test]
    fn a_long_descriptor_makes_all_elements_long() {
        let short = Values { descriptor: Some(&[5; 16]), ..Values::default() };
        assert_eq!(Block::of(&ids(false), &short).bytes[..2], ONE_BYTE_FORM);
        let long = Values { descriptor: Some(&[5; 17]), ..Values::default() };
        let block = Block::of(&ids(false), &long);
        assert_eq!(block.bytes[..11], [0x10, 0, 0, 6, 3, 2, 0, 0, 12, 17, 5]);
        assert_eq!(block.len(), 28);
    }

    #[test]
    fn the_first_packet_of_a_picture_is_longer_by_what_it_was_left_room_for() {
        for (mid, rid) in [("0", None), ("abc", None), ("abc", Some("q"))] {
            let values = Values { mid: Some(mid), rid, ..Values::default() };
            let further = Block::of(&ids(false), &values);
            let first = Block::of(&ids(false), &Values { captured: true, ..values });
            assert_eq!(first.len(), further.len() + packetize::FIRST_PACKET_EXTRA_BYTES);
        }
    }

    #[test]
    fn payloads_get_their_numbers_and_the_trailer() {
        let block = Block::of(&Ids::default(), &Values::default());
        let [payload] = &packetize::vp8(&[9; 20], 1, 1)[..] else { panic!() };
        let numbers = Numbers::Vp8 { picture_id: 0x1234, tl0_pic_idx: 0x56 };
        let numbered = Packet { numbers, trailer_us: Some(77), ..packet(&block, payload) };
        let out = written(&numbered);
        let read = vp8::Descriptor::parse(&out[16..]).unwrap();
        assert_eq!((read.picture_id, read.tl0_pic_idx), (Some(0x1234), Some(0x56)));
        assert_eq!(out[16..][6..26], [9; 20]);
        let trailer = packet_trailer::PacketTrailer::find(&out[16..]).unwrap();
        assert_eq!((trailer.timestamp_us, numbered.payload_bytes()), (Some(77), out.len() - 16));
    }
}
