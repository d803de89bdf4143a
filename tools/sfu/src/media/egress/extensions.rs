//! Header extensions of outgoing packets (RFC 8285), written once for all subscribers that know them by
//! the same ids. What differs from one to the other, a time or a number, is put into each packet. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use stampede_core::{MediaKind, wire_time};
use str0m::rtp::{Extension, ExtensionMap};

use crate::media::packet::{Extensions, MediaPacket};
use crate::media::scalable::frame;

/// Bytes of the header of the extension block (RFC 8285 §4.2).
const BLOCK_HEADER_BYTES: usize = 4;
/// Bytes of the block of most packets: when it was sent.
const STAMP_BLOCK_BYTES: usize = 8;
/// Longest value of the one-byte form (RFC 8285 §4.2).
const SHORT_VALUE_BYTES_MAX: usize = 16;
/// How the forms are told apart.
const ONE_BYTE_FORM: [u8; 2] = [0xbe, 0xde];
const TWO_BYTE_FORM: [u8; 2] = [0x10, 0];
/// Ids of the one-byte form (RFC 8285 §4.2).
const ID_MAX: u8 = 14;
/// A packet is made at most so much longer for the others of its frame: by what the first has more than
/// they have, a capture time with its offset.
const EVEN_BYTES_MAX: usize = 20;
/// Layouts that are kept at a time; of more the latest is written anew each time.
const LAYOUTS_MAX: usize = 8;

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

/// The extension block of a packet: empty, or a multiple of four bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ExtensionBlock<'a> {
    /// With zeros where the stamp is to be.
    bytes: &'a [u8],
    stamp: Stamp,
}

impl ExtensionBlock<'_> {
    /// It with this stamp.
    pub(super) fn stamped(self, stamp: Stamp) -> Self {
        Self { stamp, ..self }
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the block to all of `out`, which is as long as it is.
    pub(super) fn write(&self, out: &mut [u8]) {
        if let (Ok(out), Ok(block)) = (
            <&mut [u8; STAMP_BLOCK_BYTES]>::try_from(&mut *out),
            <&[u8; STAMP_BLOCK_BYTES]>::try_from(self.bytes),
        ) {
            // A length that is known here is a move, any other a call.
            *out = *block;
        } else {
            out.copy_from_slice(self.bytes);
        }
        // It is the first element, behind its id and length.
        let at = BLOCK_HEADER_BYTES + if out.first() == Some(&TWO_BYTE_FORM[0]) { 2 } else { 1 };
        match self.stamp {
            Stamp::None => {}
            Stamp::SentAt(time) => {
                if let Some(place) = out.get_mut(at..at + time.len()) {
                    place.copy_from_slice(&time);
                }
            }
            Stamp::Number(number) => {
                if let Some(place) = out.get_mut(at..at + 2) {
                    place.copy_from_slice(&number.to_be_bytes());
                }
            }
        }
    }
}

/// The block of a packet that is sent by itself.
#[derive(Debug, Default)]
pub(crate) struct OwnBlock {
    bytes: Vec<u8>,
}

impl OwnBlock {
    /// Of a packet of padding.
    pub(crate) fn of_padding(ids: &ExtensionIds) -> Self {
        let mut bytes = Vec::new();
        write_block(&mut bytes, &Extensions::default(), None, ids);
        Self { bytes }
    }

    /// Of a packet of the publisher's.
    pub(crate) fn of_packet(packet: &MediaPacket, ids: &ExtensionIds) -> Self {
        let mut bytes = Vec::new();
        write_block(&mut bytes, &packet.extensions, descriptor(packet), ids);
        Self { bytes }
    }

    /// It, without a stamp.
    pub(crate) fn block(&self) -> ExtensionBlock<'_> {
        ExtensionBlock { bytes: &self.bytes, stamp: Stamp::None }
    }
}

/// The blocks of packets that are sent together, as subscribers with the same ids get them.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    ids: ExtensionIds,
    /// One block after another.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Layout {
    /// The block of the packet at this place among them, without a stamp.
    pub(crate) fn block(&self, place: usize) -> ExtensionBlock<'_> {
        let before = place.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(place).copied().unwrap_or_default();
        let bytes = self.bytes.get(before.copied().unwrap_or(0)..end).unwrap_or_default();
        ExtensionBlock { bytes, stamp: Stamp::None }
    }

    fn fill(&mut self, packets: &[MediaPacket], ids: ExtensionIds) {
        self.ids = ids;
        self.bytes.clear();
        self.ends.clear();
        for (place, packet) in packets.iter().enumerate() {
            let begin = self.bytes.len();
            write_block(&mut self.bytes, &packet.extensions, descriptor(packet), &ids);
            let bytes = self.bytes.len() - begin;
            let more = bytes_to_even(packets, place, &ids, bytes);
            lengthen(&mut self.bytes, begin, more);
            self.ends.push(self.bytes.len());
        }
    }
}

/// Layouts of the packets of a burst that may be sent now, by ids.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// Of these packets the first `written`; the others keep their memory for later ones.
    all: Vec<Layout>,
    written: usize,
}

impl Layouts {
    /// They are of other packets from here on.
    pub(crate) fn begin_anew(&mut self) {
        self.written = 0;
    }

    /// The layout of these packets, the same since [`begin_anew`](Self::begin_anew), for who knows
    /// extensions by these ids.
    pub(crate) fn of(&mut self, packets: &[MediaPacket], ids: &ExtensionIds) -> &Layout {
        let known = self.all[..self.written].iter().position(|layout| layout.ids == *ids);
        let place = known.unwrap_or_else(|| {
            let place = self.written.min(LAYOUTS_MAX - 1);
            if place == self.all.len() {
                self.all.push(Layout::default());
            }
            self.all[place].fill(packets, *ids);
            self.written = place + 1;
            place
        });
        &self.all[place]
    }
}

/// The value of a packet's dependency descriptor; a longer one is none.
fn descriptor(packet: &MediaPacket) -> Option<&[u8]> {
    let value = packet.frame.as_ref().map(|frame| &*frame.descriptor);
    value.filter(|value| (1..=255).contains(&value.len()))
}

/// By how much a packet's block is lengthened so that it is as long as the longest packet of its frame,
/// if it is nearly so: packets of one length leave in one run. Zeros in the block are padding (RFC 8285
/// §4.1.2).
fn bytes_to_even(
    packets: &[MediaPacket],
    place: usize,
    ids: &ExtensionIds,
    block_bytes: usize,
) -> usize {
    let packet = &packets[place];
    // A packet without extensions stays one.
    if block_bytes == 0 {
        return 0;
    }
    let of_frame = |other: &&MediaPacket| {
        (other.numbers.source, other.numbers.timestamp, other.spatial())
            == (packet.numbers.source, packet.numbers.timestamp, packet.spatial())
    };
    let bytes = packets.iter().filter(of_frame).map(|other| {
        let block = block_bytes_of(&other.extensions, descriptor(other), ids);
        block + other.payload.len()
    });
    let more = bytes.max().unwrap_or(0).saturating_sub(block_bytes + packet.payload.len());
    if more <= EVEN_BYTES_MAX && more.is_multiple_of(4) { more } else { 0 }
}

/// Appends zeros to the block that begins there and ends the buffer.
fn lengthen(out: &mut Vec<u8>, begin: usize, more: usize) {
    if more > 0 {
        out.resize(out.len() + more, 0);
        write_length(&mut out[begin..]);
    }
}

/// How many words there are behind the header.
fn write_length(block: &mut [u8]) {
    // Below 2^16: no block is longer than some hundred bytes.
    let words = (block.len() / 4).saturating_sub(1) as u16;
    if let Some(place) = block.get_mut(2..4) {
        place.copy_from_slice(&words.to_be_bytes());
    }
}

/// The elements that a subscriber knows, the stamp first, each with its id and value.
fn elements(
    values: &Extensions,
    descriptor: Option<&[u8]>,
    ids: &ExtensionIds,
    mut take: impl FnMut(u8, &[u8]),
) {
    match ids.stamp {
        StampId::None => {}
        StampId::SentAt(id) => take(id, &[0; 3]),
        StampId::Number(id) => take(id, &[0; 2]),
    }
    if let (Some(id), Some(level)) = (ids.audio_level, values.audio_level) {
        let voice = if values.voice_activity == Some(true) { 0x80 } else { 0 };
        take(id, &[voice | (level.unsigned_abs() & 0x7f)]);
    }
    if let (Some(id), Some(orientation)) = (ids.video_orientation, values.video_orientation) {
        take(id, &[orientation as u8]);
    }
    if let (Some(id), Some(capture)) = (ids.abs_capture_time, values.abs_capture_time) {
        let mut data = [0; 16];
        data[..8].copy_from_slice(&ntp(capture.capture_time).to_be_bytes());
        match capture.clock_offset {
            Some(offset) => {
                data[8..].copy_from_slice(&offset.to_be_bytes());
                take(id, &data);
            }
            None => take(id, &data[..8]),
        }
    }
    if let (Some(id), Some(value)) = (ids.dependency_descriptor, descriptor) {
        take(id, value);
    }
}

/// Whether an element is too long for the one-byte form.
fn is_long(descriptor: Option<&[u8]>, ids: &ExtensionIds) -> bool {
    let value = ids.dependency_descriptor.and(descriptor);
    value.is_some_and(|value| value.len() > SHORT_VALUE_BYTES_MAX)
}

/// Bytes of the block that [`write_block`] appends.
fn block_bytes_of(values: &Extensions, descriptor: Option<&[u8]>, ids: &ExtensionIds) -> usize {
    let (head, mut bytes) = (if is_long(descriptor, ids) { 2 } else { 1 }, 0);
    elements(values, descriptor, ids, |_, value| bytes += head + value.len());
    if bytes == 0 { 0 } else { (BLOCK_HEADER_BYTES + bytes).next_multiple_of(4) }
}

/// Appends a packet's block, with zeros for the stamp; nothing if no element is in it.
fn write_block(
    out: &mut Vec<u8>,
    values: &Extensions,
    descriptor: Option<&[u8]>,
    ids: &ExtensionIds,
) {
    let (begin, long) = (out.len(), is_long(descriptor, ids));
    let [first, second] = if long { TWO_BYTE_FORM } else { ONE_BYTE_FORM };
    out.extend_from_slice(&[first, second, 0, 0]);
    elements(values, descriptor, ids, |id, value| {
        // No value is longer than 255 bytes, and none is empty.
        let len = value.len() as u8;
        match long {
            true => out.extend_from_slice(&[id, len]),
            false => out.push(id << 4 | (len - 1)),
        }
        out.extend_from_slice(value);
    });
    let bytes = out.len() - begin;
    if bytes == BLOCK_HEADER_BYTES {
        out.truncate(begin);
        return;
    }
    out.resize(begin + bytes.next_multiple_of(4), 0);
    write_length(&mut out[begin..]);
}

/// 64-bit NTP time.
pub(super) fn ntp(at: SystemTime) -> u64 {
    wire_time::ntp(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::media::rewrite::{Numbers, Vp8Numbers};
    use std::time::{Duration, Instant};
    use str0m::rtp::{AbsCaptureTime, VideoOrientation};

    fn map() -> ExtensionMap {
        let mut map = ExtensionMap::empty();
        map.set(2, Extension::AbsoluteCaptureTime);
        map.set(13, Extension::VideoOrientation);
        map
    }

    fn written(
        values: &Extensions,
        descriptor: Option<&[u8]>,
        ids: &ExtensionIds,
        stamp: Stamp,
    ) -> Vec<u8> {
        let mut block = OwnBlock::default();
        write_block(&mut block.bytes, values, descriptor, ids);
        assert_eq!(block.bytes.len(), block_bytes_of(values, descriptor, ids));
        let mut out = vec![9; block.bytes.len()];
        block.block().stamped(stamp).write(&mut out);
        out
    }

    #[test]
    fn a_long_descriptor_makes_all_elements_long() {
        let mut map = map();
        map.set(5, Extension::AbsoluteSendTime);
        map.set(12, frame::extension());
        let ids = ExtensionIds::of(&map, MediaKind::Video, false);
        let written = |descriptor: &[u8]| {
            written(&Extensions::default(), Some(descriptor), &ids, Stamp::SentAt([1, 2, 3]))
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
        let stamped = written(&Extensions::default(), None, &ids, Stamp::Number(0x0102));
        assert_eq!(stamped, [0xbe, 0xde, 0, 1, 0x31, 1, 2, 0]);
        let ids = of(MediaKind::Audio, true);
        let none = written(&Extensions::default(), None, &ids, Stamp::SentAt([1, 2, 3]));
        assert!(none.is_empty(), "that was not agreed on");
    }

    fn captured() -> Option<AbsCaptureTime> {
        let capture_time = UNIX_EPOCH + Duration::from_millis(1_500);
        Some(AbsCaptureTime { capture_time, clock_offset: None })
    }

    #[test]
    fn known_extensions_are_written_in_the_one_byte_form() {
        let values = Extensions {
            audio_level: Some(-20),
            video_orientation: Some(VideoOrientation::Deg180),
            abs_capture_time: captured(),
            ..Extensions::default()
        };
        let ids = ExtensionIds::of(&map(), MediaKind::Video, false);
        let seconds = (wire_time::NTP_UNIX_S + 1).to_be_bytes();
        let mut wanted = vec![0xbe, 0xde, 0, 3, 13 << 4, 2, 2 << 4 | 7];
        wanted.extend(&seconds[4..]);
        wanted.extend([0x80, 0, 0, 0, 0]);
        let out = written(&values, None, &ids, Stamp::None);
        assert_eq!(out, wanted, "the audio level has no id");
        assert!(written(&values, None, &ExtensionIds::default(), Stamp::None).is_empty());
    }

    /// A packet of a frame, its first with the time of capture.
    fn packet(source: u32, timestamp: u32, first: bool, payload_bytes: usize) -> MediaPacket {
        let abs_capture_time = captured().filter(|_| first);
        MediaPacket {
            layer: 0,
            numbers: Numbers {
                source,
                seq: 0,
                timestamp,
                vp8: Vp8Numbers::default(),
                captured_at_unix_us: None,
                arrived_at: Instant::now(),
            },
            marker: false,
            starts_keyframe: false,
            extensions: Extensions { abs_capture_time, ..Extensions::default() },
            payload: vec![0; payload_bytes].into(),
            primary_at: None,
            frame: None,
        }
    }

    #[test]
    fn packets_of_a_frame_are_made_of_one_length_where_little_is_missing() {
        let mut map = map();
        map.set(5, Extension::AbsoluteSendTime);
        let ids = ExtensionIds::of(&map, MediaKind::Video, false);
        let lengths = |packets: &[MediaPacket], ids: &ExtensionIds| -> Vec<usize> {
            let mut layouts = Layouts::default();
            let layout = layouts.of(packets, ids);
            let lengths = packets.iter().enumerate().map(|(place, packet)| {
                let block = layout.block(place).stamped(Stamp::SentAt([1, 2, 3]));
                let mut out = vec![9; block.bytes()];
                block.write(&mut out);
                assert_eq!(out[..8], [0xbe, 0xde, 0, out.len() as u8 / 4 - 1, 0x52, 1, 2, 3]);
                out.len() + packet.payload.len()
            });
            lengths.collect()
        };
        let frame = |payloads: &[usize]| -> Vec<MediaPacket> {
            let all = payloads.iter().enumerate();
            all.map(|(place, bytes)| packet(1, 1, place == 0, *bytes)).collect()
        };
        let [capture, stamp] = [20, 8];
        // The publisher's are of one length in payload, or with its own extensions.
        let even = frame(&[1_000, 1_000, 1_000, 900]);
        assert_eq!(lengths(&even, &ids), [1_020, 1_020, 1_020, 900 + stamp]);
        assert_eq!(lengths(&frame(&[992, 1_000, 998]), &ids), [1_012, 1_012, 998 + stamp]);
        // Too little for a word, and too much.
        assert_eq!(lengths(&frame(&[1_000, 1_001]), &ids), [1_000 + capture, 1_001 + stamp]);
        assert_eq!(lengths(&frame(&[1_000, 988]), &ids), [1_000 + capture, 988 + stamp]);
        // Other frames and layers are others.
        let others = [packet(1, 1, true, 500), packet(1, 2, false, 500), packet(2, 1, false, 500)];
        assert_eq!(lengths(&others, &ids), [500 + capture, 500 + stamp, 500 + stamp]);
    }

    #[test]
    fn who_knows_no_extensions_gets_none_to_even_packets() {
        let packets = [packet(1, 1, true, 500), packet(1, 1, false, 500)];
        let mut layouts = Layouts::default();
        let ids = ExtensionIds::of(&map(), MediaKind::Video, false);
        let layout = layouts.of(&packets, &ids);
        assert_eq!([0, 1].map(|place| layout.block(place).bytes()), [16, 0]);
    }

    #[test]
    fn more_layouts_than_are_kept_are_right_all_the_same() {
        let packets = [packet(1, 1, true, 500)];
        let mut layouts = Layouts::default();
        for _ in 0..2 {
            for id in 1..=ID_MAX {
                let mut map = ExtensionMap::empty();
                map.set(id, Extension::AbsoluteCaptureTime);
                let ids = ExtensionIds::of(&map, MediaKind::Video, false);
                let mut out = [0; 16];
                layouts.of(&packets, &ids).block(0).write(&mut out);
                assert_eq!(out[4] >> 4, id);
            }
            assert_eq!(layouts.all.len(), LAYOUTS_MAX);
        }
        layouts.begin_anew();
        let other = [packet(1, 1, false, 500)];
        let ids = ExtensionIds::of(&map(), MediaKind::Video, false);
        assert_eq!(layouts.of(&other, &ids).block(0).bytes(), 0);
    }
}
