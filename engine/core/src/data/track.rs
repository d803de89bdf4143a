//! Packets of data tracks, and the frames that they make (livekit pkg/rtc/datatrack/packet.go,
//! rust-sdks livekit-datatrack).

use std::collections::VecDeque;

use super::{HEADER_BYTES, Header};

/// Most bytes of a packet with its header (rust-sdks livekit-datatrack/src/local/manager.rs).
const PACKET_BYTES_MAX: usize = 16_000;
/// Length of a packet's header without extensions.
const PACKET_HEADER_BYTES: usize = 12;
/// Most bytes of a frame that are in one packet.
pub(crate) const FRAGMENT_BYTES_MAX: usize = PACKET_BYTES_MAX - PACKET_HEADER_BYTES;
/// Most packets of a frame that is put together: more than the longest of ours has.
const PACKETS_MAX: usize = 8;
/// Frames that are put together at a time; those of one packet need no place. The oldest makes room.
pub(crate) const PARTIAL_FRAMES_MAX: usize = 256;

/// Frames of a track that are put together are no further than this from each other.
const FRAMES_BEHIND_MAX: u16 = 1_024;

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrackHeader {
    /// It begins a frame.
    pub(crate) starts: bool,
    /// It ends one.
    pub(crate) ends: bool,
    /// What names the track, between a client and the server.
    pub(crate) handle: u16,
    pub(crate) sequence: u16,
    pub(crate) frame: u16,
    /// By a clock of 90 kHz.
    pub(crate) timestamp: u32,
}

impl TrackHeader {
    pub(crate) fn write(&self) -> [u8; PACKET_HEADER_BYTES] {
        let mut bytes = [0; PACKET_HEADER_BYTES];
        bytes[0] = u8::from(self.starts) << 4 | u8::from(self.ends) << 3;
        bytes[2..4].copy_from_slice(&self.handle.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.frame.to_be_bytes());
        bytes[8..].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes
    }

    /// Header and payload of a packet; `None` if it is none, or of handle 0, which names no track
    /// (handles are from 1 on). Extensions are stepped over.
    pub(crate) fn read(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (head, mut payload) = packet.split_first_chunk::<PACKET_HEADER_BYTES>()?;
        // Version 0 is the only one there is.
        if head[0] >> 5 != 0 {
            return None;
        }
        if head[0] & 0b100 != 0 {
            // So many 32-bit words less one; the field counts too.
            let (words, _) = payload.split_first_chunk::<2>()?;
            let bytes = (usize::from(u16::from_be_bytes(*words)) + 1) * 4;
            payload = payload.get(bytes..)?;
        }
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let header = Self {
            starts: head[0] & 0b1_0000 != 0,
            ends: head[0] & 0b1000 != 0,
            handle: half(2),
            sequence: half(4),
            frame: half(6),
            timestamp: u32::from(half(8)) << 16 | u32::from(half(10)),
        };
        (header.handle != 0).then_some((header, payload))
    }
}

/// A frame of which not everything has come.
#[derive(Debug)]
struct Partial {
    handle: u16,
    frame: u16,
    /// Sequence numbers that came.
    came: Vec<u16>,
    first: Option<u16>,
    last: Option<u16>,
    /// Of the payload.
    bytes: usize,
    header: Option<Header>,
}

impl Partial {
    fn is_whole(&self) -> bool {
        let ends = self.first.zip(self.last);
        ends.is_some_and(|(first, last)| {
            usize::from(last.wrapping_sub(first)) + 1 == self.came.len()
        })
    }
}

/// A frame that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it begins with, if it is one of ours.
    pub(crate) header: Option<Header>,
    /// Its length.
    pub(crate) bytes: usize,
}

/// Puts frames together of packets in any order. It keeps no payload: what is asked is whether all
/// of a frame came.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    partial: VecDeque<Partial>,
}

impl Frames {
    /// The frame that this packet completes.
    pub(crate) fn take(&mut self, packet: TrackHeader, payload: &[u8]) -> Option<Frame> {
        let header = if packet.starts { Header::read(payload) } else { None };
        let TrackHeader { starts, ends, handle, sequence, frame, .. } = packet;
        if starts && ends {
            return Some(Frame { header, bytes: payload.len() });
        }
        let of = |one: &Partial| (one.handle, one.frame) == (handle, frame);
        let place = self.partial.iter().position(of).unwrap_or_else(|| {
            // Numbers of frames begin again: what will never be whole is not to be taken for them.
            self.partial.retain(|one| {
                let behind = frame.wrapping_sub(one.frame);
                one.handle != handle || behind.min(behind.wrapping_neg()) <= FRAMES_BEHIND_MAX
            });
            if self.partial.len() == PARTIAL_FRAMES_MAX {
                self.partial.pop_front();
            }
            let (came, first, last, bytes) = (Vec::new(), None, None, 0);
            self.partial.push_back(Partial {
                handle,
                frame,
                came,
                first,
                last,
                bytes,
                header: None,
            });
            self.partial.len() - 1
        });
        let one = self.partial.get_mut(place)?;
        if one.came.contains(&sequence) || one.came.len() == PACKETS_MAX {
            return None;
        }
        one.came.push(sequence);
        one.bytes += payload.len();
        if starts {
            (one.first, one.header) = (Some(sequence), header);
        }
        if ends {
            one.last = Some(sequence);
        }
        if !one.is_whole() {
            return None;
        }
        let one = self.partial.remove(place)?;
        Some(Frame { header: one.header, bytes: one.bytes })
    }

    /// Handles mean something else from here on.
    pub(crate) fn clear(&mut self) {
        self.partial.clear();
    }
}

/// Cuts frames of ours into packets.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    sequence: u16,
    frame: u16,
}

impl Cutter {
    /// Writes a frame of so many bytes which begins with `header`; `send` gets one packet after the
    /// other and says whether it went out. False once one did not: the frame is broken off, and
    /// counts as none.
    pub(crate) fn write(
        &mut self,
        handle: u16,
        header: &Header,
        bytes: usize,
        message: &mut Vec<u8>,
        mut send: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let bytes = bytes.max(HEADER_BYTES);
        let timestamp = (header.sent_unix_us.wrapping_mul(9) / 100) as u32;
        let frame = self.frame;
        self.frame = frame.wrapping_add(1);
        let mut at = 0;
        while at < bytes {
            let fragment = (bytes - at).min(FRAGMENT_BYTES_MAX);
            let (starts, ends) = (at == 0, at + fragment == bytes);
            let packet =
                TrackHeader { starts, ends, handle, sequence: self.sequence, frame, timestamp };
            message.clear();
            message.extend_from_slice(&packet.write());
            if starts {
                message.extend_from_slice(&header.write());
            }
            message.resize(PACKET_HEADER_BYTES + fragment, b'.');
            if !send(message) {
                return false;
            }
            self.sequence = self.sequence.wrapping_add(1);
            at += fragment;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataKind;

    const HEADER: Header =
        Header { kind: DataKind::Track, sender: 3, tag: 9, sequence: 12, sent_unix_us: 1_000_000 };

    fn cut(cutter: &mut Cutter, bytes: usize) -> Vec<Vec<u8>> {
        let (mut packets, mut message) = (Vec::new(), Vec::new());
        let whole = cutter.write(7, &HEADER, bytes, &mut message, |packet| {
            packets.push(packet.to_vec());
            true
        });
        assert!(whole);
        packets
    }

    fn take(frames: &mut Frames, packet: &[u8]) -> Option<Frame> {
        let (header, payload) = TrackHeader::read(packet).unwrap();
        frames.take(header, payload)
    }

    /// Both were seen on the wire of livekit-server 1.13.5 and livekit-client 2.23.0.
    #[test]
    fn packets_of_livekits_clients_are_read() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks(2);
            digits
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                .collect()
        };
        let plain = bytes("1800000100000000055bf29cabcd");
        let (header, payload) = TrackHeader::read(&plain).unwrap();
        let expected = TrackHeader {
            starts: true,
            ends: true,
            handle: 1,
            sequence: 0,
            frame: 0,
            timestamp: 0x055b_f29c,
        };
        assert_eq!((header, payload), (expected, &[0xab, 0xcd][..]));
        assert_eq!(expected.write(), plain[..12]);
        let extended = bytes("1c00000100010001055bf2a10002020800000000075bcd15ee");
        let (header, payload) = TrackHeader::read(&extended).unwrap();
        assert_eq!((header.sequence, header.frame, payload), (1, 1, &[0xee][..]));
        for cut in 0..extended.len() - 1 {
            assert_eq!(TrackHeader::read(&extended[..cut]), None);
        }
        assert_eq!(TrackHeader::read(&[0x38; 20]), None, "another version");
        let mut nameless = plain;
        nameless[2..4].fill(0);
        assert_eq!(TrackHeader::read(&nameless), None, "handle 0 is reserved");
    }

    #[test]
    fn a_frame_is_whole_when_all_its_packets_came_in_any_order() {
        let (mut cutter, mut frames) = (Cutter::default(), Frames::default());
        // Over the end of the sequence numbers.
        cutter.sequence = u16::MAX - 1;
        let whole = |bytes| Some(Frame { header: Some(HEADER), bytes });
        let [one] = &cut(&mut cutter, 100)[..] else { panic!() };
        assert_eq!(take(&mut frames, one), whole(100));
        let packets = cut(&mut cutter, 40_000);
        assert_eq!(packets.len(), 3);
        assert_eq!(take(&mut frames, &packets[2]), None);
        assert_eq!(take(&mut frames, &packets[2]), None, "it came before");
        let next = cut(&mut cutter, 16_000);
        assert_eq!(take(&mut frames, &next[0]), None);
        assert_eq!(take(&mut frames, &packets[0]), None);
        assert_eq!(take(&mut frames, &packets[1]), whole(40_000));
        assert_eq!(take(&mut frames, &next[1]), whole(16_000));
        assert!(frames.partial.is_empty());
    }

    #[test]
    fn what_never_gets_whole_is_bounded() {
        let (mut cutter, mut frames) = (Cutter::default(), Frames::default());
        let first = cut(&mut cutter, 20_000);
        assert_eq!(take(&mut frames, &first[0]), None);
        for _ in 0..PARTIAL_FRAMES_MAX {
            assert_eq!(take(&mut frames, &cut(&mut cutter, 20_000)[0]), None);
        }
        assert_eq!(frames.partial.len(), PARTIAL_FRAMES_MAX);
        assert_eq!(take(&mut frames, &first[1]), None, "its beginning is forgotten");
    }

    #[test]
    fn a_frame_is_not_made_whole_by_one_a_lap_later() {
        let (mut cutter, mut frames) = (Cutter::default(), Frames::default());
        let lost = cut(&mut cutter, 20_000);
        assert_eq!(take(&mut frames, &lost[0]), None);
        // Two packets a frame: at the end of a lap the sequence numbers are the same too.
        for _ in 1..=u32::from(u16::MAX) {
            let packets = cut(&mut cutter, 20_000);
            assert_eq!(take(&mut frames, &packets[0]), None);
            assert!(take(&mut frames, &packets[1]).is_some());
        }
        assert!(frames.partial.is_empty());
        let packets = cut(&mut cutter, 20_000);
        assert_eq!(packets[1][..8], lost[1][..8], "same frame, same sequence");
        assert_eq!(take(&mut frames, &packets[1]), None);
        assert!(take(&mut frames, &packets[0]).is_some());
    }

    proptest::proptest! {
        #[test]
        fn hostile_packets_do_no_harm(packets: Vec<Vec<u8>>) {
            let mut frames = Frames::default();
            for packet in &packets {
                if let Some((header, payload)) = TrackHeader::read(packet) {
                    let _ = frames.take(header, payload);
                }
            }
        }
    }
}
