//! What the server's RTCP says of what we send. Pure.

use crate::rtcp::{
    self, FEEDBACK_HEAD_BYTES, FIR, GOODBYE, NACK, PAYLOAD_FEEDBACK, PLI, RECEIVER_REPORT,
    SENDER_REPORT, SENDER_REPORT_BYTES, SOURCE_DESCRIPTION, TRANSPORT_FEEDBACK, word,
};

/// Bytes of a report block (RFC 3550 §6.4.1).
const BLOCK_BYTES: usize = 24;

/// Something that is said of an SSRC of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// A reception report.
    Report {
        ssrc: u32,
        /// Cumulative, of 24 bits; below 0 there were duplicates.
        lost: i32,
        /// Extended highest sequence number, of 32 bits.
        highest: u32,
    },
    /// A NACK has come.
    Nack { ssrc: u32 },
    /// It asks for this packet, and for those behind whose bits are set.
    Missing { ssrc: u32, first: u16, following: u16 },
    /// A keyframe is wanted.
    Keyframe { ssrc: u32 },
}

/// Hands out what a compound packet says. False if something in it is str0m's to deal with.
pub(super) fn read(compound: &[u8], mut hear: impl FnMut(Told)) -> bool {
    let mut is_ours = true;
    for packet in rtcp::packets(compound) {
        let (count, kind) = (packet[0] & 0x1f, packet[1]);
        match kind {
            SENDER_REPORT => blocks(packet.get(SENDER_REPORT_BYTES..), count, &mut hear),
            RECEIVER_REPORT => blocks(packet.get(8..), count, &mut hear),
            // Of what it sends, and what is told of all arrivals, which without congestion control is
            // of no use.
            SOURCE_DESCRIPTION | GOODBYE => {}
            TRANSPORT_FEEDBACK if count == NACK => {
                let Some(ssrc) = word(packet, 8) else { continue };
                hear(Told::Nack { ssrc });
                for entry in packet.get(FEEDBACK_HEAD_BYTES..).unwrap_or_default().chunks_exact(4) {
                    let [first, following] =
                        [0, 2].map(|at| u16::from_be_bytes([entry[at], entry[at + 1]]));
                    hear(Told::Missing { ssrc, first, following });
                }
            }
            PAYLOAD_FEEDBACK if count == PLI => {
                if let Some(ssrc) = word(packet, 8) {
                    hear(Told::Keyframe { ssrc });
                }
            }
            PAYLOAD_FEEDBACK if count == FIR => {
                for entry in packet.get(FEEDBACK_HEAD_BYTES..).unwrap_or_default().chunks_exact(8) {
                    if let Some(ssrc) = word(entry, 0) {
                        hear(Told::Keyframe { ssrc });
                    }
                }
            }
            TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK => {}
            _ => is_ours = false,
        }
    }
    is_ours
}

fn blocks(bytes: Option<&[u8]>, count: u8, hear: &mut impl FnMut(Told)) {
    let blocks = bytes.unwrap_or_default().chunks_exact(BLOCK_BYTES);
    for block in blocks.take(usize::from(count)) {
        if let (Some(ssrc), Some(lost), Some(highest)) =
            (word(block, 0), word(block, 4), word(block, 8))
        {
            // Of 24 bits with a sign.
            let lost = (lost << 8) as i32 >> 8;
            hear(Told::Report { ssrc, lost, highest });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heard(compound: &[u8]) -> (Vec<Told>, bool) {
        let mut all = Vec::new();
        let is_ours = read(compound, |told| all.push(told));
        (all, is_ours)
    }

    #[test]
    fn everything_that_servers_say_is_heard() {
        let mut compound = Vec::new();
        let block = rtcp::ReportBlock {
            ssrc: 7,
            cumulative_lost: -2,
            highest_sequence: 0x1_0002,
            ..rtcp::ReportBlock::default()
        };
        let other = rtcp::ReportBlock { ssrc: 8, cumulative_lost: 5, ..block };
        rtcp::write_receiver_report(&mut compound, 1, &[block, other]);
        rtcp::write_cname(&mut compound, 1, "server");
        rtcp::write_nack(&mut compound, 1, 7, &[10, 12, 40]);
        rtcp::write_pli(&mut compound, 1, 8);
        // FIR of two streams, and transport-wide feedback.
        compound.extend([0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0]);
        compound.extend([0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0]);
        compound.extend([0x8f, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7]);
        let (all, is_ours) = heard(&compound);
        let highest = 0x1_0002;
        assert!(is_ours);
        assert_eq!(
            all,
            [
                Told::Report { ssrc: 7, lost: -2, highest },
                Told::Report { ssrc: 8, lost: 5, highest },
                Told::Nack { ssrc: 7 },
                Told::Missing { ssrc: 7, first: 10, following: 0b10 },
                Told::Missing { ssrc: 7, first: 40, following: 0 },
                Told::Keyframe { ssrc: 8 },
                Told::Keyframe { ssrc: 7 },
                Told::Keyframe { ssrc: 8 },
            ]
        );
    }

    #[test]
    fn extended_reports_are_left_to_str0m() {
        let mut compound = Vec::new();
        rtcp::write_receiver_report(&mut compound, 1, &[]);
        compound.extend([0x80, 207, 0, 1, 0, 0, 0, 1]);
        assert_eq!(heard(&compound), (Vec::new(), false));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            heard(&bytes);
        }
    }
}
