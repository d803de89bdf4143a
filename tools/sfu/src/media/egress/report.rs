//! Sender reports of what was sent here, with the names of the streams (RFC 3550 §6.4.1, §6.5). Pure.
//!
//! str0m, which sends no media, writes none: what it would say had to be corrected, and copying its
//! report lists cost more than a frame.

use std::time::{Duration, Instant, SystemTime};

use stampede_core::rtcp::{self, CHUNKS_MAX, SENDER_REPORT, SENDER_REPORT_BYTES};
use stampede_core::wire_time::ticks;

use super::extensions::ntp;

/// A longer compound packet is of one stream only. Every path carries so much, encrypted.
const COMPOUND_BYTES_MAX: usize = 1_150;

/// What a sender report says of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Packets on this SSRC since it started, wrapping.
    pub(crate) packets: u32,
    /// Their payload bytes, wrapping.
    pub(crate) octets: u32,
}

impl Sent {
    /// Counts a packet.
    pub(crate) fn add(&mut self, payload_bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_bytes as u32);
    }
}

/// A stream at the moment of its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamReport<'a> {
    pub(crate) ssrc: u32,
    pub(crate) sent: Sent,
    /// RTP time that corresponds to the report's NTP time.
    pub(crate) rtp_time: u32,
    /// As its m-line has it.
    pub(crate) cname: &'a str,
}

/// RTP time at `now`, counted on from the packet that was sent last, or back from it: a late worker
/// has sent media that is newer than its turn.
pub(crate) fn rtp_time(last: u32, arrived_at: Instant, now: Instant, clock_rate: u32) -> u32 {
    let back = ticks(arrived_at.saturating_duration_since(now), clock_rate);
    let on = ticks(now.saturating_duration_since(arrived_at), clock_rate);
    last.wrapping_add(on).wrapping_sub(back)
}

/// To the client and back, by its report of now: it got that sender report in whose NTP time these are the
/// bits in the middle, so long ago, both in 1/65,536 s (RFC 3550 §6.4.1). `None` if that can't be.
pub(crate) fn round_trip(now: SystemTime, sent: u32, since: u32) -> Option<Duration> {
    const PLAUSIBLE: u32 = 10 << 16;
    let took = ((ntp(now) >> 16) as u32).wrapping_sub(sent).wrapping_sub(since);
    let micros = (u64::from(took) * 1_000_000) >> 16;
    (took < PLAUSIBLE).then(|| Duration::from_micros(micros))
}

/// The reports of these streams at this moment, in compound packets that a datagram takes.
pub(crate) fn compounds(reports: &[StreamReport<'_>], at: SystemTime) -> Vec<Vec<u8>> {
    let (mut rest, mut compounds) = (reports, Vec::new());
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(CHUNKS_MAX).take_while(|report| {
            bytes += SENDER_REPORT_BYTES + rtcp::chunk_bytes(report.cname);
            bytes <= COMPOUND_BYTES_MAX
        });
        let (these, others) = rest.split_at(fits.count().max(1));
        compounds.push(compound(these, ntp(at)));
        rest = others;
    }
    compounds
}

fn compound(reports: &[StreamReport<'_>], ntp: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(COMPOUND_BYTES_MAX);
    for report in reports {
        rtcp::header(&mut out, 0, SENDER_REPORT, SENDER_REPORT_BYTES / 4 - 1);
        out.extend_from_slice(&report.ssrc.to_be_bytes());
        out.extend_from_slice(&ntp.to_be_bytes());
        for word in [report.rtp_time, report.sent.packets, report.sent.octets] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
    rtcp::write_cnames(&mut out, reports.iter().map(|report| (report.ssrc, report.cname)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ssrc: u32, cname: &str) -> StreamReport<'_> {
        let sent = Sent { packets: 3, octets: 4_000 };
        StreamReport { ssrc, sent, rtp_time: 0x0102_0304, cname }
    }

    #[test]
    fn a_compound_packet_word_for_word() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let compounds = compounds(&[report(7, "abc"), report(8, "")], at);
        let words: Vec<u32> = compounds[0]
            .chunks(4)
            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
            .collect();
        let of = |ssrc| [0x80c8_0006, ssrc, 2_208_988_801, 1 << 31, 0x0102_0304, 3, 4_000];
        let mut expected = [of(7), of(8)].concat();
        expected.extend([0x82ca_0005, 7, 0x0103_6162, 0x6300_0000, 8, 0x0100_0000]);
        assert_eq!((words, compounds.len()), (expected, 1));
    }

    #[test]
    fn many_streams_take_several_datagrams() {
        let long = "x".repeat(300);
        for (cname, streams) in [("", 31), ("PA_123456789012|TR_123456789012", 16), (&*long, 3)] {
            let reports: Vec<_> = (0..40).map(|ssrc| report(ssrc, cname)).collect();
            let compounds = compounds(&reports, SystemTime::UNIX_EPOCH);
            assert_eq!(compounds.len(), 40_usize.div_ceil(streams), "{}", cname.len());
            for compound in &compounds {
                assert!(compound.len() <= COMPOUND_BYTES_MAX + 4);
                assert!(compound.len().is_multiple_of(4));
            }
        }
        let huge: Vec<_> = (0..2).map(|ssrc| report(ssrc, &long)).collect();
        assert_eq!(compounds(&huge, SystemTime::UNIX_EPOCH).len(), 1);
        assert!(compounds(&[], SystemTime::UNIX_EPOCH).is_empty());
    }

    #[test]
    fn a_round_trip_is_what_is_left_of_the_time_since_a_report() {
        let sent = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let middle = (ntp(sent) >> 16) as u32;
        let held = 65_536 / 4;
        let at = |ms| round_trip(sent + Duration::from_millis(ms), middle, held);
        let error = at(300).unwrap().abs_diff(Duration::from_millis(50));
        assert!(error < Duration::from_micros(20), "{error:?}");
        assert_eq!(at(240), None, "it was not held so long");
        assert_eq!(round_trip(sent, 5, 0), None, "of another time");
    }

    #[test]
    fn rtp_time_goes_on_with_the_clock() {
        let at = Instant::now();
        assert_eq!(rtp_time(u32::MAX, at, at + Duration::from_millis(100), 90_000), 8_999);
        assert_eq!(rtp_time(5, at + Duration::from_secs(1), at, 90_000), u32::MAX - 89_994);
    }
}
