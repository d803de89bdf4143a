//! What a client tells by RTCP of the media that it gets (RFC 3550, RFC 4585, RFC 5104,
//! draft-alvestrand-rmcat-remb-03). Pure.
//!
//! Read here and not by str0m: thousands of subscribers that estimate send thousands of these a
//! second, and str0m, which has sent none of the media, would look at its whole connection for each.
//!
//! Extended reports (RFC 3611) are passed over, so a client that asks for its round trip is told none
//! (DLRR); nor is a BYE sent when a track ends, which SDP tells.

use stampede_core::rtcp::{
    self, ARRIVALS, FEEDBACK_HEAD_BYTES, FIR, GOODBYE, NACK, PAYLOAD_FEEDBACK, PLI,
    RECEIVER_REPORT, SENDER_REPORT, SENDER_REPORT_BYTES, TRANSPORT_FEEDBACK, word,
};

/// Bytes of a receiver report before its blocks, and of a block (RFC 3550 §6.4.2).
const REPORT_HEAD_BYTES: usize = 8;
const BLOCK_BYTES: usize = 24;
/// Feedback message type of RFC 4585 §6.4.
const APPLICATION_LAYER: u8 = 15;

/// One thing that a client tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    /// A receiver report.
    Report(Blocks<'a>),
    /// The same behind a report of what it sends itself, which str0m is to have.
    SenderReport(Blocks<'a>),
    /// How much the way to it carries, in bit/s.
    Estimate(u64),
    /// It misses packets of this SSRC.
    Missing(u32, Missing<'a>),
    /// It needs a keyframe of this SSRC.
    Keyframe(u32),
    /// Something that str0m is to have: of what it sends itself, or when packets arrived.
    ForStr0m,
    /// When packets arrived, as nobody in earnest tells it: str0m is not to have it.
    Malformed,
}

/// Reception reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks<'a>(&'a [u8]);

impl Blocks<'_> {
    /// By the last one that tells when a sender report came: the middle of that one's NTP time, and how
    /// long ago it came; both in 1/65,536 s.
    pub(crate) fn last_sender_report(self) -> Option<(u32, u32)> {
        let blocks = self.0.chunks_exact(BLOCK_BYTES).rev();
        let mut told = blocks.filter_map(|block| Some((word(block, 16)?, word(block, 20)?)));
        told.find(|(sent, _)| *sent != 0)
    }
}

/// Entries of a NACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing<'a>(&'a [u8]);

impl<'a> Missing<'a> {
    /// The numbers of the packets.
    pub(crate) fn sequences(self) -> impl Iterator<Item = u16> + use<'a> {
        self.0.chunks_exact(4).flat_map(|entry| {
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            let following = u16::from_be_bytes([entry[2], entry[3]]);
            rtcp::missing(first, following)
        })
    }
}

/// What a compound packet tells, in its order, up to the first packet that is cut off or of another
/// version.
pub(crate) fn told(compound: &[u8]) -> impl Iterator<Item = Told<'_>> {
    let mut packets = rtcp::packets(compound).take_while(|packet| packet[0] >> 6 == 2);
    // Entries of a FIR that are still to be told.
    let mut keyframes: &[u8] = &[];
    std::iter::from_fn(move || {
        loop {
            if let Some((entry, rest)) = keyframes.split_first_chunk::<8>() {
                keyframes = rest;
                return Some(Told::Keyframe(word(entry, 0)?));
            }
            let packet = packets.next()?;
            let found = match (packet[1], packet[0] & 0x1f) {
                (TRANSPORT_FEEDBACK, ARRIVALS) if !rtcp::are_arrivals_sound(packet) => {
                    Some(Told::Malformed)
                }
                (GOODBYE, _) | (TRANSPORT_FEEDBACK, ARRIVALS) => Some(Told::ForStr0m),
                (SENDER_REPORT, _) => {
                    let blocks = packet.get(SENDER_REPORT_BYTES..).unwrap_or_default();
                    Some(Told::SenderReport(Blocks(blocks)))
                }
                (RECEIVER_REPORT, _) => {
                    let blocks = packet.get(REPORT_HEAD_BYTES..).unwrap_or_default();
                    Some(Told::Report(Blocks(blocks)))
                }
                (TRANSPORT_FEEDBACK, NACK) => packet
                    .get(FEEDBACK_HEAD_BYTES..)
                    .and_then(|entries| Some(Told::Missing(word(packet, 8)?, Missing(entries)))),
                (PAYLOAD_FEEDBACK, PLI) => word(packet, 8).map(Told::Keyframe),
                (PAYLOAD_FEEDBACK, FIR) => {
                    keyframes = packet.get(FEEDBACK_HEAD_BYTES..).unwrap_or_default();
                    None
                }
                (PAYLOAD_FEEDBACK, APPLICATION_LAYER) => estimate(packet).map(Told::Estimate),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
    })
}

/// What a REMB says, if the message is one.
fn estimate(packet: &[u8]) -> Option<u64> {
    let value = word(packet, 16).filter(|_| packet.get(12..16) == Some(b"REMB"))?;
    // Eight bits of count, six of exponent, 18 of mantissa.
    let (exponent, mantissa) = (value >> 18 & 0x3f, u64::from(value & 0x3_ffff));
    Some(mantissa.saturating_mul(1 << exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(count: u8, kind: u8, words: &[u32]) -> Vec<u8> {
        let mut packet = vec![0x80 | count, kind, 0, words.len() as u8];
        packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        packet
    }

    fn remb(value: u32) -> Vec<u8> {
        packet(APPLICATION_LAYER, PAYLOAD_FEEDBACK, &[1, 0, u32::from_be_bytes(*b"REMB"), value, 7])
    }

    #[test]
    fn each_kind_is_told_and_others_are_passed_over() {
        let compound = [
            packet(1, RECEIVER_REPORT, &[1, 7, 0, 0, 0, 0, 0]),
            packet(0, 207, &[1, 0x0400_0002, 0, 0]),
            packet(1, 202, &[1, 0x0100_0000]),
            remb(1 << 24 | 3 << 18 | 200_000),
            packet(NACK, TRANSPORT_FEEDBACK, &[1, 7, 0xffff_8001, 0x0064_0000]),
            packet(PLI, PAYLOAD_FEEDBACK, &[1, 8]),
            packet(FIR, PAYLOAD_FEEDBACK, &[1, 0, 9, 0x0500_0000, 10, 0x0600_0000]),
            packet(0, SENDER_REPORT, &[1, 0, 0, 0, 0, 0]),
            packet(1, GOODBYE, &[1]),
        ]
        .concat();
        let all: Vec<Told<'_>> = told(&compound).collect();
        let entries = [0xff, 0xff, 0x80, 1, 0, 0x64, 0, 0];
        let block = packet(0, 0, &[7, 0, 0, 0, 0, 0])[4..].to_vec();
        let expected = [
            Told::Report(Blocks(&block)),
            Told::Estimate(1_600_000),
            Told::Missing(7, Missing(&entries)),
            Told::Keyframe(8),
            Told::Keyframe(9),
            Told::Keyframe(10),
            Told::SenderReport(Blocks(&[])),
            Told::ForStr0m,
        ];
        assert_eq!(all, expected);
        assert_eq!(Missing(&entries).sequences().collect::<Vec<_>>(), [0xffff, 0, 15, 0x64]);
    }

    #[test]
    fn who_has_had_a_sender_report_tells_when() {
        let blocks = |blocks: &[[u32; 6]]| {
            let words = [&[1][..], &blocks.concat()].concat();
            let report = packet(blocks.len() as u8, RECEIVER_REPORT, &words);
            let Some(Told::Report(blocks)) = told(&report).next() else { panic!("{report:?}") };
            blocks.last_sender_report()
        };
        let (had, none) = ([7, 0, 0, 0, 0x1234_5678, 9], [8, 0, 0, 0, 0, 0]);
        assert_eq!(blocks(&[had, none]), Some((0x1234_5678, 9)));
        assert_eq!((blocks(&[none]), blocks(&[])), (None, None));
        let own = packet(1, SENDER_REPORT, &[&[1, 0, 0, 0, 0, 0][..], &had].concat());
        let Some(Told::SenderReport(blocks)) = told(&own).next() else { panic!("{own:?}") };
        assert_eq!(blocks.last_sender_report(), Some((0x1234_5678, 9)));
    }

    #[test]
    fn arrivals_that_str0m_can_not_read_are_malformed() {
        let report = |chunk: u32| packet(ARRIVALS, TRANSPORT_FEEDBACK, &[1, 7, 1, 9 << 8, chunk]);
        assert_eq!(told(&report(0x2001_0100)).next(), Some(Told::ForStr0m));
        assert_eq!(told(&report(0x2000_4001)).next(), Some(Told::Malformed));
    }

    #[test]
    fn an_estimate_of_any_size_is_a_number() {
        for (value, expected) in
            [(0x3f << 18, 0), (0x3f << 18 | 1, 1 << 63), (0x3f << 18 | 2, u64::MAX)]
        {
            assert_eq!(told(&remb(value)).next(), Some(Told::Estimate(expected)));
        }
        let mut other = remb(5);
        other[12] = b'X';
        assert_eq!(told(&other).next(), None, "another message of the application's");
    }

    #[test]
    fn padding_is_no_entry_and_what_is_cut_off_ends_it() {
        let mut padded = packet(NACK, TRANSPORT_FEEDBACK, &[1, 7, 0x0005_0000, 4]);
        padded[0] |= 0x20;
        let Some(Told::Missing(7, missing)) = told(&padded).next() else { panic!("no NACK") };
        assert_eq!(missing.sequences().collect::<Vec<_>>(), [5]);
        let report = packet(0, RECEIVER_REPORT, &[1]);
        let cut = [&report[..], &padded[..padded.len() - 1]].concat();
        assert_eq!(told(&cut).collect::<Vec<_>>(), [Told::Report(Blocks(&[]))]);
        padded[0] = 0x20 | NACK;
        assert_eq!(told(&padded).next(), None, "another version");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            for one in told(&bytes) {
                if let Told::Missing(_, missing) = one {
                    prop_assert!(missing.sequences().count() <= 17 * bytes.len() / 4);
                }
                if let Told::Report(blocks) | Told::SenderReport(blocks) = one {
                    let _ = blocks.last_sender_report();
                }
            }
        }
    }
}
