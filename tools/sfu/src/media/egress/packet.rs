//! Writing an outgoing RTP packet: header, extensions, payload with its VP8 numbers. Pure.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stampede_core::MediaKind;
use str0m::rtp::{Extension, ExtensionMap};

use crate::media::packet::Extensions;
use crate::media::rewrite::Vp8Numbers;
use crate::media::scalable::frame;

/// Bytes of an RTP header without CSRCs and extensions.
const HEADER_BYTES: usize = 12;
/// Bytes of the header of the extension block (RFC 8285 §4.2).
const BLOCK_HEADER_BYTES: usize = 4;
/// Bytes of the longest block but for a dependency descriptor, in the two-byte form: orientation, level,
/// sending time, and capture time with its offset.
const BLOCK_BYTES_MAX: usize = (BLOCK_HEADER_BYTES + 3 + 3 + 5 + 18).next_multiple_of(4);
/// Bytes of the block of most packets: when it was sent.
const SEND_TIME_BLOCK_BYTES: usize = 8;
/// Longest value of the one-byte form (RFC 8285 §4.2).
const SHORT_VALUE_BYTES_MAX: usize = 16;
/// How the forms are told apart.
const ONE_BYTE_FORM: [u8; 2] = [0xbe, 0xde];
const TWO_BYTE_FORM: [u8; 2] = [0x10, 0];
/// Bytes of the original sequence number in front of an RTX payload (RFC 4588 §4).
pub(crate) const RTX_BYTES: usize = 2;
/// Ids of the one-byte form (RFC 8285 §4.2).
const ID_MAX: u8 = 14;
/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_UNIX_S: u64 = 2_208_988_800;

/// The ids that a subscriber knows the forwarded extensions by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExtensionIds {
    audio_level: Option<u8>,
    video_orientation: Option<u8>,
    abs_capture_time: Option<u8>,
    dependency_descriptor: Option<u8>,
    /// What is told of each packet on its way out.
    stamp: StampId,
}

/// By which of two extensions a subscriber is told what it needs to tell of the way to it: one or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum StampId {
    #[default]
    None,
    /// abs-send-time.
    SentAt(u8),
    /// The transport-wide sequence number.
    Number(u8),
}

impl ExtensionIds {
    /// As negotiated for a kind of media. Stamped is video alone, as LiveKit has it
    /// (`pkg/rtc/config.go`); `numbered` says whether packets have transport-wide numbers at all.
    pub(crate) fn of(map: &ExtensionMap, kind: MediaKind, numbered: bool) -> Self {
        let id = |extension| map.id_of(extension).filter(|id| (1..=ID_MAX).contains(id));
        let stamp = match (kind, numbered) {
            (MediaKind::Audio, _) => None,
            (_, true) => id(Extension::TransportSequenceNumber).map(StampId::Number),
            (_, false) => id(Extension::AbsoluteSendTime).map(StampId::SentAt),
        };
        Self {
            audio_level: id(Extension::AudioLevel),
            video_orientation: id(Extension::VideoOrientation),
            abs_capture_time: id(Extension::AbsoluteCaptureTime),
            dependency_descriptor: id(frame::extension()),
            stamp: stamp.unwrap_or_default(),
        }
    }

    /// What is told of each packet on its way out.
    pub(crate) fn stamp(&self) -> StampId {
        self.stamp
    }
}

/// What is told of a packet on its way out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Stamp {
    #[default]
    None,
    /// When it is sent, as abs-send-time has it: seconds, six bits before the point and 18 behind.
    SentAt([u8; 3]),
    /// Its transport-wide sequence number.
    Number(u16),
}

/// What differs from subscriber to subscriber, or is long.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnExtensions<'a> {
    pub(crate) stamp: Stamp,
    /// The value of its dependency descriptor.
    pub(crate) descriptor: Option<&'a [u8]>,
}

/// The extension block of a packet: empty, or a multiple of four bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExtensionBlock<'a> {
    /// Header, elements but for the descriptor, and zeros behind.
    bytes: [u8; BLOCK_BYTES_MAX],
    /// How much of it there is before the zeros.
    len: usize,
    /// Bytes of the whole block: none, or a multiple of four.
    total: usize,
    /// In the two-byte form.
    long: bool,
    /// Id and value.
    descriptor: Option<(u8, &'a [u8])>,
}

impl<'a> ExtensionBlock<'a> {
    /// Of the values those that the subscriber knows.
    pub(crate) fn new(values: &Extensions, own: OwnExtensions<'a>, ids: &ExtensionIds) -> Self {
        let descriptor = ids.dependency_descriptor.zip(own.descriptor);
        // A longer one is none.
        let descriptor = descriptor.filter(|(_, value)| (1..=255).contains(&value.len()));
        let long = descriptor.is_some_and(|(_, value)| value.len() > SHORT_VALUE_BYTES_MAX);
        let mut block = Self {
            bytes: [0; BLOCK_BYTES_MAX],
            len: BLOCK_HEADER_BYTES,
            total: 0,
            long,
            descriptor,
        };
        match (ids.stamp, own.stamp) {
            (StampId::SentAt(id), Stamp::SentAt(time)) => block.push(id, &time),
            (StampId::Number(id), Stamp::Number(number)) => block.push(id, &number.to_be_bytes()),
            _ => {}
        }
        if let (Some(id), Some(level)) = (ids.audio_level, values.audio_level) {
            let voice = if values.voice_activity == Some(true) { 0x80 } else { 0 };
            block.push(id, &[voice | (level.unsigned_abs() & 0x7f)]);
        }
        if let (Some(id), Some(orientation)) = (ids.video_orientation, values.video_orientation) {
            block.push(id, &[orientation as u8]);
        }
        if let (Some(id), Some(capture)) = (ids.abs_capture_time, values.abs_capture_time) {
            let mut data = [0; 16];
            data[..8].copy_from_slice(&ntp(capture.capture_time).to_be_bytes());
            match capture.clock_offset {
                Some(offset) => {
                    data[8..].copy_from_slice(&offset.to_be_bytes());
                    block.push(id, &data);
                }
                None => block.push(id, &data[..8]),
            }
        }
        let value_bytes = descriptor.map_or(0, |(_, value)| value.len() + if long { 2 } else { 1 });
        block.total = match block.len + value_bytes {
            BLOCK_HEADER_BYTES => 0,
            bytes => bytes.next_multiple_of(4),
        };
        block
    }

    fn push(&mut self, id: u8, data: &[u8]) {
        let (head, bytes) = element_head(self.long, id, data.len());
        let end = self.len + bytes + data.len();
        let Some(room) = self.bytes.get_mut(self.len..end) else { return };
        room[..bytes].copy_from_slice(&head[..bytes]);
        room[bytes..].copy_from_slice(data);
        self.len = end;
    }

    /// Writes the block to all of `out`, which is `total` long.
    fn write(&self, out: &mut [u8]) {
        if let Ok(out) = <&mut [u8; SEND_TIME_BLOCK_BYTES]>::try_from(&mut *out) {
            // A length that is known here is a move, any other a call.
            out.copy_from_slice(&self.bytes[..SEND_TIME_BLOCK_BYTES]);
        } else {
            let (elements, rest) = out.split_at_mut(self.len.min(out.len()));
            elements.copy_from_slice(&self.bytes[..elements.len()]);
            rest.fill(0);
        }
        if let Some((id, value)) = self.descriptor {
            let (head, bytes) = element_head(self.long, id, value.len());
            let at = self.len + bytes;
            out[self.len..at].copy_from_slice(&head[..bytes]);
            out[at..at + value.len()].copy_from_slice(value);
        }
        if let Some((header, elements)) = out.split_first_chunk_mut::<BLOCK_HEADER_BYTES>() {
            let [first, second] = if self.long { TWO_BYTE_FORM } else { ONE_BYTE_FORM };
            // Below 2^8: no value is longer than 255 bytes.
            *header = [first, second, 0, (elements.len() / 4) as u8];
        }
    }
}

/// What stands before an element's value, and how long it is.
fn element_head(long: bool, id: u8, len: usize) -> ([u8; 2], usize) {
    // No value is longer than 255 bytes, and none is empty.
    match long {
        true => ([id, len as u8], 2),
        false => ([id << 4 | (len as u8 - 1), 0], 1),
    }
}

/// `at` as abs-send-time has it, by a clock that began at `start`: 24 bits of seconds, 18 of them behind
/// the point.
pub(crate) fn abs_send_time(start: Instant, at: Instant) -> [u8; 3] {
    let ns = at.saturating_duration_since(start).as_nanos() as u64 % (64 * 1_000_000_000);
    let [.., first, second, third] = ((ns << 18) / 1_000_000_000).to_be_bytes();
    [first, second, third]
}

/// 64-bit NTP time: seconds since 1900 and their binary fraction (RFC 3550 §4).
fn ntp(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Rounded up: reading it back cuts, and has to find the nanosecond it was.
    let fraction = (u64::from(since.subsec_nanos()) << 32).div_ceil(1_000_000_000);
    (since.as_secs() + NTP_UNIX_S) << 32 | fraction
}

/// One packet as a subscriber gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    /// Extended: the low 16 bits are on the wire, the rest is SRTP's rollover counter.
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) extensions: &'a ExtensionBlock<'a>,
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
        HEADER_BYTES + self.extensions.total
    }

    /// Bytes of the packet before encryption.
    pub(crate) fn bytes(&self) -> usize {
        let original = if self.original.is_some() { RTX_BYTES } else { 0 };
        self.header_bytes() + original + self.payload.len() + usize::from(self.padding)
    }

    /// Writes the packet to the front of `out`, which is at least [`bytes`](Self::bytes) long.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let mut at = self.header_bytes();
        let extended = if at > HEADER_BYTES { 0x10 } else { 0 };
        let padded = if self.padding > 0 { 0x20 } else { 0 };
        out[0] = 0x80 | extended | padded;
        out[1] = self.payload_type & 0x7f | u8::from(self.marker) << 7;
        out[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.extensions.write(&mut out[HEADER_BYTES..at]);
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
    use std::time::Duration;
    use str0m::rtp::{AbsCaptureTime, VideoOrientation, Vp8Descriptor};

    fn map() -> ExtensionMap {
        let mut map = ExtensionMap::empty();
        map.set(2, Extension::AbsoluteCaptureTime);
        map.set(13, Extension::VideoOrientation);
        map
    }

    #[test]
    fn a_packet_without_extensions_is_twelve_bytes_and_its_payload() {
        let ids = ExtensionIds::of(&map(), MediaKind::Video, false);
        let extensions =
            ExtensionBlock::new(&Extensions::default(), OwnExtensions::default(), &ids);
        let packet = Packet {
            payload_type: 96,
            marker: true,
            index: 0x1_0203,
            timestamp: 0x0405_0607,
            ssrc: 0x0809_0a0b,
            extensions: &extensions,
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

    #[test]
    fn a_long_descriptor_makes_all_elements_long() {
        let mut map = map();
        map.set(5, Extension::AbsoluteSendTime);
        map.set(12, frame::extension());
        let ids = ExtensionIds::of(&map, MediaKind::Video, false);
        let written = |descriptor: &[u8]| {
            let stamp = Stamp::SentAt([1, 2, 3]);
            let own = OwnExtensions { stamp, descriptor: Some(descriptor) };
            let block = ExtensionBlock::new(&Extensions::default(), own, &ids);
            let mut out = vec![9; block.total];
            block.write(&mut out);
            out
        };
        let short = written(&[7; 3]);
        assert_eq!(short, [0xbe, 0xde, 0, 2, 0x52, 1, 2, 3, 0xc2, 7, 7, 7]);
        let mut wanted = vec![0x10, 0, 0, 6, 5, 3, 1, 2, 3, 12, 17];
        wanted.extend([7; 17]);
        assert_eq!(written(&[7; 17]), wanted);
        assert_eq!(written(&[7; 255]).len() % 4, 0);
    }

    #[test]
    fn video_is_stamped_with_a_time_or_a_number() {
        let mut map = map();
        map.set(5, Extension::AbsoluteSendTime);
        map.set(3, Extension::TransportSequenceNumber);
        let of = |kind, numbered| ExtensionIds::of(&map, kind, numbered);
        assert_eq!(of(MediaKind::Video, false).stamp(), StampId::SentAt(5));
        assert_eq!(of(MediaKind::Audio, false).stamp(), StampId::None);
        assert_eq!(of(MediaKind::Audio, true).stamp(), StampId::None);
        let ids = of(MediaKind::Video, true);
        assert_eq!(ids.stamp(), StampId::Number(3));
        let written = |stamp| {
            let own = OwnExtensions { stamp, descriptor: None };
            let block = ExtensionBlock::new(&Extensions::default(), own, &ids);
            let mut out = vec![9; block.total];
            block.write(&mut out);
            out
        };
        assert_eq!(written(Stamp::Number(0x0102)), [0xbe, 0xde, 0, 1, 0x31, 1, 2, 0]);
        assert!(written(Stamp::SentAt([1, 2, 3])).is_empty(), "that was not agreed on");
    }

    #[test]
    fn sending_times_count_in_parts_of_a_second_and_wrap() {
        let start = Instant::now();
        let of = |ms: u64| {
            let [a, b, c] = abs_send_time(start, start + Duration::from_millis(ms));
            u32::from_be_bytes([0, a, b, c])
        };
        assert_eq!((of(0), of(1_000), of(1_500)), (0, 1 << 18, 3 << 17));
        assert_eq!((of(63_999), of(64_000)), (0xff_fef9, 0));
    }

    #[test]
    fn known_extensions_are_written_in_the_one_byte_form() {
        let capture_time = UNIX_EPOCH + Duration::from_millis(1_500);
        let values = Extensions {
            audio_level: Some(-20),
            video_orientation: Some(VideoOrientation::Deg180),
            abs_capture_time: Some(AbsCaptureTime { capture_time, clock_offset: None }),
            ..Extensions::default()
        };
        let own = OwnExtensions::default();
        let block =
            ExtensionBlock::new(&values, own, &ExtensionIds::of(&map(), MediaKind::Video, false));
        let mut out = vec![0; block.total];
        block.write(&mut out);
        let seconds = (NTP_UNIX_S + 1).to_be_bytes();
        let mut wanted = vec![0xbe, 0xde, 0, 3, 13 << 4, 2, 2 << 4 | 7];
        wanted.extend(&seconds[4..]);
        wanted.extend([0x80, 0, 0, 0, 0]);
        assert_eq!(out, wanted, "the audio level has no id");
        let none = ExtensionBlock::new(&values, own, &ExtensionIds::default());
        assert_eq!(none.total, 0);
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
