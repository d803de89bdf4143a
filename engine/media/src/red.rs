//! Redundant audio (RED, RFC 2198): an RTP payload with earlier payloads in front of its own.
//!
//! ```text
//! 1│type:7│timestamp offset:14│length:10 … 0│type:7 │ redundant payloads, in order │ primary payload
//! ```
//!
//! Browsers and livekit-client send each Opus packet with the one before it, so that a single loss
//! costs nothing (libwebrtc `modules/audio_coding/codecs/red/audio_encoder_copy_red.cc`); a
//! livekit-server that makes RED itself puts the last two in front (`pkg/sfu/redreceiver.go`).

/// Most redundant payloads of one packet; what says that it has more is malformed (libwebrtc
/// `modules/audio_coding/neteq/red_payload_splitter.cc`, `kMaxRedBlocks`).
pub const RED_BLOCKS_MAX: usize = 31;
/// From this length on a payload is neither wrapped nor taken along: lengths have ten bits.
pub const BLOCK_BYTES_END: usize = 1 << 10;
/// From this distance on in RTP ticks a payload is not taken along: offsets have fourteen bits. It
/// is 341 ms of Opus, so silence that is not sent (DTX) has nothing redundant behind it.
pub const OFFSET_TICKS_END: u32 = 1 << 14;
/// Longest payload that redundancy may make (libwebrtc `kAudioMaxRtpPacketLen`).
pub const PAYLOAD_BYTES_MAX: usize = 1_200;

/// Bytes of a redundant block's header.
const HEADER_BYTES: usize = 4;
/// The bit that says that another header follows.
const FOLLOWED: u8 = 0x80;

/// Why a payload is no RED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedError {
    /// It ends within the headers.
    #[error("the block headers are cut short")]
    Headers,
    /// The blocks are longer than it.
    #[error("the blocks are longer than the payload")]
    Blocks,
    /// More than [`RED_BLOCKS_MAX`] redundant blocks.
    #[error("more than {RED_BLOCKS_MAX} redundant blocks")]
    TooMany,
}

/// A RED payload, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Red<'a> {
    /// The packet's own payload.
    pub primary: &'a [u8],
    /// Headers of the redundant blocks.
    headers: &'a [u8],
    /// Their payloads.
    blocks: &'a [u8],
}

/// A payload of an earlier packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redundant<'a> {
    /// How many packets before the one that brings it, as senders that leave none out number them.
    pub behind: u16,
    /// How far its RTP timestamp is behind.
    pub timestamp_offset: u32,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Red<'a> {
    /// Takes an RTP payload apart; nothing is copied.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(payload: &'a [u8]) -> Result<Self, RedError> {
        let (mut rest, mut blocks_bytes) = (payload, 0);
        loop {
            let (first, body) = rest.split_first().ok_or(RedError::Headers)?;
            let headers = &payload[..payload.len() - rest.len()];
            if first & FOLLOWED == 0 {
                let (blocks, primary) =
                    body.split_at_checked(blocks_bytes).ok_or(RedError::Blocks)?;
                return Ok(Self { primary, headers, blocks });
            }
            let [_, high, low, after @ ..] = body else { return Err(RedError::Headers) };
            if headers.len() >= RED_BLOCKS_MAX * HEADER_BYTES {
                return Err(RedError::TooMany);
            }
            blocks_bytes += block_bytes(*high, *low);
            rest = after;
        }
    }

    /// The payloads of earlier packets, the oldest first.
    pub fn redundant(&self) -> impl Iterator<Item = Redundant<'a>> + use<'a> {
        let (headers, mut blocks) = (self.headers.as_chunks::<HEADER_BYTES>().0, self.blocks);
        let count = headers.len();
        headers.iter().enumerate().map(move |(place, header)| {
            let [_, offset, high, low] = *header;
            let (payload, after) = blocks.split_at(block_bytes(high, low).min(blocks.len()));
            blocks = after;
            Redundant {
                // At most `RED_BLOCKS_MAX`.
                behind: (count - place) as u16,
                timestamp_offset: u32::from(offset) << 6 | u32::from(high) >> 2,
                payload,
            }
        })
    }
}

fn block_bytes(high: u8, low: u8) -> usize {
    usize::from(high & 3) << 8 | usize::from(low)
}

/// The payload that carries this one and, if it fits, the one before it, whose RTP timestamp is so
/// many ticks behind; `None` for one that has to be sent as it is. Both are of this payload type.
#[must_use]
pub fn wrap(payload_type: u8, primary: &[u8], previous: Option<(u32, &[u8])>) -> Option<Vec<u8>> {
    if primary.is_empty() || primary.len() >= BLOCK_BYTES_END {
        return None;
    }
    let fits = |(offset, block): &(u32, &[u8])| {
        let bytes = HEADER_BYTES + block.len() + primary.len();
        let sizes = !block.is_empty() && block.len() < BLOCK_BYTES_END;
        sizes && bytes <= PAYLOAD_BYTES_MAX && *offset < OFFSET_TICKS_END
    };
    let previous = previous.filter(fits);
    let block = previous.map_or(&[][..], |(_, block)| block);
    let mut payload = Vec::with_capacity(HEADER_BYTES + 1 + block.len() + primary.len());
    if let Some((offset, block)) = previous {
        payload.push(FOLLOWED | payload_type);
        let low = offset << BLOCK_BYTES_END.trailing_zeros() | block.len() as u32;
        payload.extend_from_slice(&low.to_be_bytes()[1..]);
    }
    payload.push(payload_type & !FOLLOWED);
    payload.extend_from_slice(block);
    payload.extend_from_slice(primary);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_rfc_2198s() {
        // Type 111, 960 ticks (0x3c0) and 3 bytes: 0xef, 0x3c0 << 10 | 3.
        let payload = wrap(111, b"now", Some((960, b"old"))).unwrap();
        assert_eq!(payload, [&[0xef, 0x0f, 0x00, 0x03, 0x6f][..], b"old", b"now"].concat());
        assert_eq!(wrap(111, b"now", None).unwrap(), [&[0x6f][..], b"now"].concat());
        let red = Red::parse(&payload).unwrap();
        assert_eq!(red.primary, b"now");
        let old = Redundant { behind: 1, timestamp_offset: 960, payload: b"old" };
        assert!(red.redundant().eq([old]));
    }

    #[test]
    fn two_levels_as_livekit_makes_them() {
        let mut payload = vec![0xef, 0x1e, 0x00, 0x02, 0xef, 0x0f, 0x00, 0x01, 0x6f];
        payload.extend(b"aabccc");
        let red = Red::parse(&payload).unwrap();
        let levels = [(2, 1_920, &b"aa"[..]), (1, 960, b"b")];
        assert!(red.redundant().map(|it| (it.behind, it.timestamp_offset, it.payload)).eq(levels));
        assert_eq!(red.primary, b"ccc");
    }

    #[test]
    fn what_does_not_fit_is_not_taken_along() {
        let alone = |primary: &[u8], previous| {
            let payload = wrap(111, primary, Some(previous)).unwrap();
            Red::parse(&payload).unwrap().redundant().next().is_none()
        };
        let long = [0; BLOCK_BYTES_END];
        assert!(alone(b"now", (OFFSET_TICKS_END, b"old")), "DTX");
        assert!(!alone(b"now", (OFFSET_TICKS_END - 1, b"old")));
        assert!(alone(b"now", (960, &long)) && alone(b"now", (960, b"")));
        assert!(!alone(b"now", (960, &long[1..])));
        assert!(alone(&long[..600], (960, &long[..600])), "beyond the usual datagram");
        assert_eq!(wrap(111, &long, None), None);
        assert_eq!(wrap(111, b"", None), None);
    }

    #[test]
    fn malformed_payloads_say_why() {
        assert_eq!(Red::parse(&[]), Err(RedError::Headers));
        for cut in 1..4 {
            assert_eq!(Red::parse(&[0xef, 0x0f, 0, 1][..cut]), Err(RedError::Headers));
        }
        assert_eq!(Red::parse(&[0xef, 0x0f, 0, 1]), Err(RedError::Headers), "no last header");
        assert_eq!(Red::parse(&[0xef, 0x0f, 0, 9, 0x6f, 1, 2]), Err(RedError::Blocks));
        let many = [0xef, 0, 0, 0].repeat(RED_BLOCKS_MAX);
        let end = [0x6f, 7];
        let red = [&many[..], &end].concat();
        assert_eq!(Red::parse(&red).unwrap().redundant().count(), RED_BLOCKS_MAX);
        let red = [&many[..], &[0xef, 0, 0, 0], &end].concat();
        assert_eq!(Red::parse(&red), Err(RedError::TooMany));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_apart_or_refused(payload: Vec<u8>) {
            if let Ok(red) = Red::parse(&payload) {
                let blocks: usize = red.redundant().map(|it| it.payload.len()).sum();
                let headers = red.redundant().count() * HEADER_BYTES + 1;
                prop_assert_eq!(headers + blocks + red.primary.len(), payload.len());
            }
        }

        #[test]
        fn what_is_wrapped_comes_apart(
            primary in proptest::collection::vec(any::<u8>(), 1..700),
            old in proptest::collection::vec(any::<u8>(), 0..1_100),
            offset in 0u32..20_000,
        ) {
            let payload = wrap(111, &primary, Some((offset, &old))).unwrap();
            prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX + 1);
            let red = Red::parse(&payload).unwrap();
            prop_assert_eq!(red.primary, &primary[..]);
            if let Some(it) = red.redundant().next() {
                prop_assert_eq!((it.behind, it.timestamp_offset), (1, offset));
                prop_assert_eq!(it.payload, &old[..]);
            }
        }
    }
}
