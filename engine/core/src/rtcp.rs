//! RTCP packets, written and read (RFC 3550, RFC 4585, RFC 5104). Pure.

/// Most report blocks in one receiver report (the count has five bits).
pub(crate) const REPORT_BLOCKS_MAX: usize = 31;
/// Most entries in one NACK, so that it fits a datagram of 1,200 bytes.
pub(crate) const NACK_ENTRIES_MAX: usize = 250;

/// Packet type of a sender report (RFC 3550 §12.1).
pub const SENDER_REPORT: u8 = 200;
/// Packet type of a receiver report.
pub const RECEIVER_REPORT: u8 = 201;
/// Packet type of a source description.
pub const SOURCE_DESCRIPTION: u8 = 202;
/// Packet type of a BYE.
pub const GOODBYE: u8 = 203;
/// Packet type of feedback of the transport's layer (RFC 4585 §6.1).
pub const TRANSPORT_FEEDBACK: u8 = 205;
/// Packet type of feedback about a payload.
pub const PAYLOAD_FEEDBACK: u8 = 206;
/// Feedback of the transport: packets are missing (RFC 4585 §6.2.1).
pub const NACK: u8 = 1;
/// Feedback of the transport: when packets arrived
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
pub const ARRIVALS: u8 = 15;
/// Bytes of it before its chunks, which say what became of packets.
const ARRIVALS_HEAD_BYTES: usize = 20;
/// Feedback about a payload: a keyframe is needed (RFC 4585 §6.3.1).
pub const PLI: u8 = 1;
/// Feedback about payloads: keyframes are needed (RFC 5104 §4.3.1).
pub const FIR: u8 = 4;
/// Bytes of a feedback message before what it is about (RFC 4585 §6.1).
pub const FEEDBACK_HEAD_BYTES: usize = 12;
/// Bytes of a sender report without reception reports.
pub const SENDER_REPORT_BYTES: usize = 28;
/// Most chunks of a source description: the count has five bits.
pub const CHUNKS_MAX: usize = 31;
/// Source description item.
const CNAME: u8 = 1;
/// Bit of the first byte that says that padding follows (RFC 3550 §6.4.1).
const PADDING: u8 = 0x20;

/// A reception report block (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReportBlock {
    pub(crate) ssrc: u32,
    /// Lost of those expected since the last report, in 1/256.
    pub(crate) fraction_lost: u8,
    /// Expected less received since the beginning; clamped to 24 bits, signed.
    pub(crate) cumulative_lost: i64,
    pub(crate) highest_sequence: u32,
    /// In timestamp units.
    pub(crate) jitter: u32,
    pub(crate) last_sr: u32,
    /// In 1/65,536 s.
    pub(crate) delay_since_last_sr: u32,
}

/// What a sender report says of a stream beside its NTP time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SenderInfo {
    /// RTP time at the report's own NTP time.
    pub(crate) rtp_time: u32,
    /// Packets since the beginning, wrapping.
    pub(crate) packets: u32,
    /// Their payload bytes, wrapping.
    pub(crate) octets: u32,
}

/// What of a sender report is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderReport {
    pub(crate) ssrc: u32,
    /// NTP timestamp, 32.32 bits.
    pub(crate) ntp: u64,
    /// Packets sent since the beginning.
    pub(crate) packets: u32,
}

/// Appends the head of a packet with so many words behind it (RFC 3550 §6.4.1); `count` is a feedback
/// message's type (RFC 4585 §6.1).
pub fn header(out: &mut Vec<u8>, count: u8, packet_type: u8, words_behind: usize) {
    out.extend_from_slice(&[0x80 | count, packet_type]);
    out.extend_from_slice(&(words_behind as u16).to_be_bytes());
}

/// Appends a receiver report; of `blocks` the first [`REPORT_BLOCKS_MAX`].
pub(crate) fn write_receiver_report(out: &mut Vec<u8>, sender: u32, blocks: &[ReportBlock]) {
    let blocks = &blocks[..blocks.len().min(REPORT_BLOCKS_MAX)];
    header(out, blocks.len() as u8, RECEIVER_REPORT, 1 + 6 * blocks.len());
    out.extend_from_slice(&sender.to_be_bytes());
    for block in blocks {
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        let words = [
            block.ssrc,
            u32::from(block.fraction_lost) << 24 | lost,
            block.highest_sequence,
            block.jitter,
            block.last_sr,
            block.delay_since_last_sr,
        ];
        out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }
}

/// Appends a source description with the one item that is mandatory (RFC 3550 §6.5.1), of at most
/// [`CHUNKS_MAX`] SSRCs with their names.
pub fn write_cnames<'a>(out: &mut Vec<u8>, names: impl Iterator<Item = (u32, &'a str)> + Clone) {
    let chunks = names.clone().map(|(_, cname)| chunk_bytes(cname));
    header(out, names.clone().count() as u8, SOURCE_DESCRIPTION, chunks.sum::<usize>() / 4);
    for (ssrc, cname) in names {
        let end = out.len() + chunk_bytes(cname);
        let cname = item(cname);
        out.extend_from_slice(&ssrc.to_be_bytes());
        out.extend_from_slice(&[CNAME, cname.len() as u8]);
        out.extend_from_slice(cname);
        out.resize(end, 0);
    }
}

/// The same of one SSRC.
pub(crate) fn write_cname(out: &mut Vec<u8>, sender: u32, cname: &str) {
    write_cnames(out, std::iter::once((sender, cname)));
}

/// Bytes of a chunk of a source description: SSRC, type, length, name, and at least one zero, to the
/// next word.
#[must_use]
pub fn chunk_bytes(cname: &str) -> usize {
    (4 + 2 + item(cname).len() + 1).next_multiple_of(4)
}

/// As much of a name as an item takes.
fn item(cname: &str) -> &[u8] {
    &cname.as_bytes()[..cname.len().min(255)]
}

/// Appends a generic NACK (RFC 4585 §6.2.1) of `sequences`, which are in order. Returns how many
/// of them found room in [`NACK_ENTRIES_MAX`] entries.
pub(crate) fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, sequences: &[u16]) -> usize {
    let begin = out.len();
    header(out, NACK, TRANSPORT_FEEDBACK, 0);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    let (mut entries, mut at) = (0, 0);
    while at < sequences.len() && entries < NACK_ENTRIES_MAX {
        let first = sequences[at];
        let mut following: u16 = 0;
        at += 1;
        while let Some(&next) = sequences.get(at) {
            let behind = next.wrapping_sub(first);
            if !(1..=16).contains(&behind) {
                break;
            }
            following |= 1 << (behind - 1);
            at += 1;
        }
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&following.to_be_bytes());
        entries += 1;
    }
    let words = (2 + entries) as u16;
    out[begin + 2..begin + 4].copy_from_slice(&words.to_be_bytes());
    at
}

/// Appends a picture loss indication (RFC 4585 §6.3.1).
pub(crate) fn write_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    header(out, PLI, PAYLOAD_FEEDBACK, 2);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
}

/// The packets of a compound one without their padding, each at least four bytes long. Reading stops
/// at the first that is cut off.
#[inline]
pub fn packets(mut compound: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let head = compound.first_chunk::<4>()?;
        let bytes = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (packet, rest) = compound.split_at_checked(bytes)?;
        compound = rest;
        let is_padded = head[0] & PADDING != 0;
        let padding = packet.last().filter(|_| is_padded).map_or(0, |last| usize::from(*last));
        packet.get(..bytes - padding.min(bytes - 4))
    })
}

/// Whether a packet is no report of arrivals, or one whose chunks say what became of as many packets as it
/// is of, each of at least one (§3.1.3). At a run of none str0m 0.25 (`rtp/rtcp/twcc.rs`, `TwccIter`) takes
/// what is told of one packet for what is told of others, and panics.
#[must_use]
pub fn are_arrivals_sound(packet: &[u8]) -> bool {
    if packet.len() < 4 || packet[1] != TRANSPORT_FEEDBACK || packet[0] & 0x1f != ARRIVALS {
        return true;
    }
    let Some(count) = packet.get(14..16) else { return false };
    let mut left = usize::from(u16::from_be_bytes([count[0], count[1]]));
    let mut chunks = packet.get(ARRIVALS_HEAD_BYTES..).unwrap_or_default();
    while left > 0 {
        let Some((chunk, rest)) = chunks.split_first_chunk() else { return false };
        let chunk = u16::from_be_bytes(*chunk);
        let packets = match chunk >> 14 {
            0 | 1 => usize::from(chunk & 0x1fff),
            2 => 14,
            _ => 7,
        };
        if packets == 0 {
            return false;
        }
        left = left.saturating_sub(packets);
        chunks = rest;
    }
    true
}

/// The sequence numbers that an entry of a NACK names: its own, and of the 16 behind that those whose
/// bits are set (RFC 4585 §6.2.1).
pub fn missing(first: u16, following: u16) -> impl Iterator<Item = u16> {
    let bits = (0..16).filter(move |bit| following >> bit & 1 == 1);
    std::iter::once(first).chain(bits.map(move |bit| first.wrapping_add(bit + 1)))
}

/// The word of 32 bits that stands there.
#[must_use]
pub fn word(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

/// Lets `said` fill in packets and octets, and the RTP time, of the sender reports of a compound packet
/// whose SSRC it knows (RFC 3550 §6.4.1). True if there was one.
pub(crate) fn fill_in_sender_reports(
    compound: &mut [u8],
    said: impl Fn(u32) -> Option<SenderInfo>,
) -> bool {
    let mut changed = false;
    let mut at = 0;
    while let Some(head) = compound.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let bytes = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let is_report = head[1] == SENDER_REPORT && bytes >= SENDER_REPORT_BYTES;
        let Some(packet) = compound.get_mut(at..at + bytes) else { break };
        at += bytes;
        if !is_report {
            continue;
        }
        let ssrc = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        let Some(info) = said(ssrc) else { continue };
        packet[16..20].copy_from_slice(&info.rtp_time.to_be_bytes());
        packet[20..24].copy_from_slice(&info.packets.to_be_bytes());
        packet[24..28].copy_from_slice(&info.octets.to_be_bytes());
        changed = true;
    }
    changed
}

/// The sender reports of a compound packet. Reading stops at the first packet that is cut off.
pub(crate) fn sender_reports(compound: &[u8]) -> impl Iterator<Item = SenderReport> {
    let mut packets = packets(compound);
    std::iter::from_fn(move || {
        packets.by_ref().find_map(|packet| {
            let body = packet.get(4..28).filter(|_| packet[1] == SENDER_REPORT)?;
            let word = |at: usize| {
                u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]])
            };
            Some(SenderReport {
                ssrc: word(0),
                ntp: u64::from(word(4)) << 32 | u64::from(word(8)),
                packets: word(16),
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_report_word_for_word() {
        let mut out = Vec::new();
        let block = ReportBlock {
            ssrc: 7,
            fraction_lost: 64,
            cumulative_lost: -2,
            highest_sequence: 0x0001_0002,
            jitter: 9,
            last_sr: 10,
            delay_since_last_sr: 11,
        };
        write_receiver_report(&mut out, 1, &[block]);
        let words: Vec<u32> =
            out.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [0x81c9_0007, 1, 7, 0x40ff_fffe, 0x0001_0002, 9, 10, 11]);
        out.clear();
        write_receiver_report(&mut out, 1, &[block; 40]);
        assert_eq!((out[0], out.len()), (0x80 | 31, 8 + 31 * 24));
    }

    #[test]
    fn padding_is_no_part_of_a_packet() {
        let mut compound = Vec::new();
        write_nack(&mut compound, 1, 2, &[7]);
        let plain = compound.len();
        write_nack(&mut compound, 1, 2, &[9]);
        compound[plain] |= PADDING;
        compound[plain + 3] += 1;
        compound.extend([0, 0, 0, 4]);
        let lengths = |compound: &[u8]| packets(compound).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&compound), [plain, plain]);
        // More padding than there is packet.
        compound.last_mut().into_iter().for_each(|count| *count = 255);
        assert_eq!(lengths(&compound), [plain, 4]);
    }

    /// A report of arrivals of so many packets, with these chunks and ticks.
    fn arrivals(count: u16, chunks: &[u16], ticks: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80 | ARRIVALS, TRANSPORT_FEEDBACK, 0, 0];
        packet.extend([0; 8]);
        packet.extend([0, 1]);
        packet.extend(count.to_be_bytes());
        packet.extend([0, 0, 9, 0]);
        packet.extend(chunks.iter().flat_map(|chunk| chunk.to_be_bytes()));
        packet.extend(ticks);
        packet.resize(packet.len().next_multiple_of(4), 0);
        packet[3] = (packet.len() / 4 - 1) as u8;
        packet
    }

    #[test]
    fn a_report_of_arrivals_with_a_run_of_none_is_not_sound() {
        // A run of two small deltas, and seven packets of which one has a large one.
        assert!(are_arrivals_sound(&arrivals(9, &[0x2002, 0xd000], &[1, 2, 0, 4])));
        assert!(are_arrivals_sound(&arrivals(14, &[0xa000], &[1])));
        assert!(are_arrivals_sound(&arrivals(0, &[], &[])));
        // Behind the last packet there may be anything.
        assert!(are_arrivals_sound(&arrivals(1, &[0x2001, 0x2000], &[1])));
        for run in [0x0000, 0x2000, 0x4000, 0x6000] {
            assert!(!are_arrivals_sound(&arrivals(1, &[run, 0x4001], &[0, 4])), "{run:x}");
            assert!(!are_arrivals_sound(&arrivals(3, &[0x2002, run], &[1, 2])), "{run:x}");
        }
        assert!(!are_arrivals_sound(&arrivals(4_000, &[0x2001], &[1])), "cut off");
        assert!(!are_arrivals_sound(&arrivals(1, &[], &[])[..14]), "cut off");
        let mut other = arrivals(1, &[0x2000], &[]);
        other[0] = 0x80 | NACK;
        assert!(are_arrivals_sound(&other), "another message");
    }

    #[test]
    fn names_end_in_zeros_on_a_word() {
        for length in 0..9 {
            let mut out = Vec::new();
            write_cname(&mut out, 1, &"abcdefghi"[..length]);
            assert_eq!(out.len(), 4 + 4 * usize::from(out[3]));
            assert_eq!((out[8], usize::from(out[9])), (1, length));
            assert!(out.len() > 10 + length && out[10 + length..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn nacks_pack_seventeen_into_an_entry_and_wrap() {
        let mut out = Vec::new();
        let taken = write_nack(&mut out, 1, 2, &[65_534, 65_535, 0, 14, 15, 40]);
        assert_eq!(taken, 6);
        assert_eq!(out[..4], [0x81, 205, 0, 5]);
        let entries: Vec<u16> =
            out[12..].chunks(2).map(|two| u16::from_be_bytes(two.try_into().unwrap())).collect();
        assert_eq!(entries, [65_534, 0b1000_0000_0000_0011, 15, 0, 40, 0]);
        out.clear();
        let many: Vec<u16> = (0..1_000).map(|at| at * 20).collect();
        assert_eq!(write_nack(&mut out, 1, 2, &many), NACK_ENTRIES_MAX);
        assert_eq!(out.len(), 12 + 4 * NACK_ENTRIES_MAX);
    }

    #[test]
    fn sender_reports_of_known_streams_are_filled_in() {
        let report = |ssrc: u32| {
            let mut report = vec![0x80, 200, 0, 6];
            report.extend(ssrc.to_be_bytes());
            report.extend([7; 20]);
            report
        };
        let mut name = Vec::new();
        write_cname(&mut name, 2, "x");
        let mut compound = [report(1), name, report(2)].concat();
        let before = compound.clone();
        let info = SenderInfo { rtp_time: 0x0102_0304, packets: 3, octets: 4_000 };
        assert!(!fill_in_sender_reports(&mut compound, |_| None));
        assert_eq!(compound, before);
        assert!(fill_in_sender_reports(&mut compound, |ssrc| (ssrc == 2).then_some(info)));
        let at = compound.len() - 12;
        assert_eq!(compound[..at], before[..at], "another stream's, and the NTP time");
        assert_eq!(compound[at..], [1, 2, 3, 4, 0, 0, 0, 3, 0, 0, 0x0f, 0xa0]);
        for end in 0..compound.len() {
            fill_in_sender_reports(&mut compound[..end].to_vec(), |_| Some(info));
        }
    }

    #[test]
    fn sender_reports_are_found_among_others() {
        let mut compound = vec![0x80, 200, 0, 6];
        for word in [5_u32, 0xaabb_ccdd, 0x1122_3344, 90, 17, 18] {
            compound.extend(word.to_be_bytes());
        }
        let report = SenderReport { ssrc: 5, ntp: 0xaabb_ccdd_1122_3344, packets: 17 };
        let mut several = Vec::new();
        write_pli(&mut several, 1, 2);
        several.extend(&compound);
        write_cname(&mut several, 1, "x");
        several.extend(&compound);
        assert_eq!(sender_reports(&several).collect::<Vec<_>>(), [report, report]);
        several.truncate(several.len() - 1);
        assert_eq!(sender_reports(&several).count(), 1);
        assert_eq!(sender_reports(&[0x80, 200, 0, 0]).count(), 0);
    }
}
