//! LiveKit's packet trailer: bytes behind the last RTP payload of a video frame that carry the
//! publisher's clock through the server, whatever becomes of header extensions.
//!
//! ```text
//! … video data │ tag len value │ tag len value │ … │ trailer length │ 'L' 'K' 'T' 'S'
//! ```
//!
//! Tags, lengths, values and the trailer length (all of it, magic included) are XORed with 0xFF,
//! so that no start code can arise; values are big-endian. Tag 1 is the timestamp: 8 bytes,
//! microseconds since the Unix epoch. Sources: livekit pkg/sfu/packettrailer/packet_trailer.go
//! (what the server recognises, and strips for subscribers without `CAP_PACKET_TRAILER`) and
//! client-sdk-js src/packetTrailer/packetTrailer.ts (the tags).

/// Last bytes of a payload with a trailer.
pub const MAGIC: [u8; 4] = *b"LKTS";
/// Bytes that [`of_timestamp`] has.
pub const TIMESTAMP_TRAILER_BYTES: usize = TIMESTAMP_BYTES + ENVELOPE_BYTES;

/// Trailer length and magic.
const ENVELOPE_BYTES: usize = 5;
/// Tag, length and value of the timestamp.
const TIMESTAMP_BYTES: usize = 10;
const TAG_TIMESTAMP: u8 = 1;
const XOR: u8 = 0xff;

/// A trailer found at the end of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketTrailer {
    /// Bytes of it, at the end of the payload.
    pub len: usize,
    /// The publisher's clock in microseconds since the Unix epoch, if the trailer has it.
    pub timestamp_us: Option<u64>,
}

impl PacketTrailer {
    /// Looks for a trailer. `payload` is the RTP payload of a frame's last packet (marker set);
    /// others have none.
    pub fn find(payload: &[u8]) -> Option<Self> {
        let body = payload.strip_suffix(&MAGIC)?;
        let (&len, _) = body.split_last()?;
        let len = usize::from(len ^ XOR);
        if len < ENVELOPE_BYTES || len > payload.len() {
            return None;
        }
        let elements = &payload[payload.len() - len..payload.len() - ENVELOPE_BYTES];
        Some(Self { len, timestamp_us: timestamp(elements) })
    }
}

/// The timestamp among `tag len value` elements; one that is cut short ends the search.
fn timestamp(mut elements: &[u8]) -> Option<u64> {
    while let [tag, len, rest @ ..] = elements {
        let value = rest.get(..usize::from(len ^ XOR))?;
        if tag ^ XOR == TAG_TIMESTAMP
            && let Ok(value) = <[u8; 8]>::try_from(value)
        {
            return Some(!u64::from_be_bytes(value));
        }
        elements = &rest[value.len()..];
    }
    None
}

/// A trailer of this timestamp.
pub fn of_timestamp(timestamp_us: u64) -> [u8; TIMESTAMP_TRAILER_BYTES] {
    let mut out = [0; TIMESTAMP_TRAILER_BYTES];
    out[..2].copy_from_slice(&[TAG_TIMESTAMP ^ XOR, 8 ^ XOR]);
    out[2..TIMESTAMP_BYTES].copy_from_slice(&(!timestamp_us).to_be_bytes());
    out[TIMESTAMP_BYTES] = TIMESTAMP_TRAILER_BYTES as u8 ^ XOR;
    out[TIMESTAMP_BYTES + 1..].copy_from_slice(&MAGIC);
    out
}

/// The payload of a frame's last packet with a trailer of this timestamp behind it.
pub fn append(payload: &[u8], timestamp_us: u64) -> Vec<u8> {
    [payload, &of_timestamp(timestamp_us)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_found() {
        let payload = append(b"video", 1_700_000_000_123_456);
        let trailer = PacketTrailer::find(&payload).unwrap();
        assert_eq!(trailer.timestamp_us, Some(1_700_000_000_123_456));
        assert_eq!(&payload[..payload.len() - trailer.len], b"video");
    }

    #[test]
    fn the_bytes_are_livekits() {
        // Written out by hand after client-sdk-js: 1 ^ ff, 8 ^ ff, value ^ ff, 15 ^ ff, magic.
        let bytes = [
            0xfe, 0xf7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xfd, 0xf0, b'L', b'K', b'T',
            b'S',
        ];
        assert_eq!(append(&[], 0x0102), bytes);
    }

    #[test]
    fn other_elements_are_passed_over() {
        // A frame id (tag 2, 4 bytes) before the timestamp.
        let mut payload = vec![7, 2 ^ XOR, 4 ^ XOR, 0, 0, 0, 0];
        payload.extend_from_slice(&append(&[], 99)[..TIMESTAMP_BYTES]);
        payload.push(21 ^ XOR);
        payload.extend_from_slice(&MAGIC);
        let found = PacketTrailer::find(&payload).unwrap();
        assert_eq!(found, PacketTrailer { len: 21, timestamp_us: Some(99) });
    }

    #[test]
    fn anything_else_is_no_trailer() {
        for payload in [&b""[..], b"LKTS", b"\x00LKTS", b"\xfbLKTS", b"video", b"\xf0LKTS"] {
            assert_eq!(PacketTrailer::find(payload), None, "{payload:?}");
        }
        let empty = PacketTrailer::find(b"ab\xfaLKTS").unwrap();
        assert_eq!(empty, PacketTrailer { len: 5, timestamp_us: None });
        let cut = PacketTrailer::find(b"\xfe\xf7\x00\xf7LKTS").unwrap();
        assert_eq!(cut, PacketTrailer { len: 8, timestamp_us: None });
    }
}
