//! Receiver reports of one SSRC (RFC 3550 §6.4).

use std::time::{Duration, Instant};

use crate::MediaKind;
use crate::rtcp::{ReportBlock, SenderReport};

/// Between two reports on a video stream (libwebrtc `kDefaultVideoReportInterval`).
pub(crate) const REPORT_INTERVAL_VIDEO: Duration = Duration::from_secs(1);
/// Between two reports on an audio stream (libwebrtc `kDefaultAudioReportInterval`).
pub(crate) const REPORT_INTERVAL_AUDIO: Duration = Duration::from_secs(5);
/// No reports on a stream of which nothing came for this long (libwebrtc `kStatisticsTimeoutMs`).
pub(crate) const REPORT_WHILE_RECEIVED: Duration = Duration::from_secs(8);

/// What reports on one SSRC need beside its sequence numbers.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    next_at: Option<Instant>,
    /// State of the interval's random length.
    random: u32,
    /// Expected and received at the last report.
    reported: (u64, u64),
    /// Middle 32 bits of the last sender report's NTP timestamp, and when it came.
    sender_report: Option<(u32, Instant)>,
    /// Last SRTCP index of this SSRC.
    index: Option<u32>,
}

/// What was received of an SSRC since the beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reception {
    pub(super) ssrc: u32,
    pub(super) first_index: u64,
    pub(super) highest_index: u64,
    /// Distinct authentic packets on this SSRC; repairs by RTX are not among them.
    pub(super) received: u64,
    /// In timestamp units.
    pub(super) jitter: u32,
}

impl Reporting {
    /// A compound packet of this SSRC came; false if it is older than the last, or a replay.
    pub(super) fn is_fresh(&mut self, index: u32) -> bool {
        let fresh = self.index.is_none_or(|last| index > last);
        if fresh {
            self.index = Some(index);
        }
        fresh
    }

    /// Takes a sender report.
    pub(super) fn sender_report(&mut self, report: SenderReport, at: Instant) {
        self.sender_report = Some(((report.ntp >> 16) as u32, at));
    }

    /// Whether a report is due; and when to look again. The first is due after half an interval,
    /// the others after a random 0.5 to 1.5 intervals (libwebrtc's `RTCPSender`).
    pub(super) fn poll(&mut self, now: Instant, kind: MediaKind, ssrc: u32) -> (bool, Instant) {
        let interval = interval_of(kind);
        let Some(next_at) = self.next_at else {
            self.random = ssrc | 1;
            let next_at = now + interval / 2;
            self.next_at = Some(next_at);
            return (false, next_at);
        };
        if next_at > now {
            return (false, next_at);
        }
        (true, self.schedule(now, interval))
    }

    /// Nothing is heard: the next packet is as the first.
    pub(super) fn rest(&mut self) {
        self.next_at = None;
    }

    /// When [`Self::poll`] is to be asked, if it was before.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// A report went out with something else: the next one is due an interval from now, which is when
    /// to look again.
    pub(super) fn put_off(&mut self, now: Instant, kind: MediaKind) -> Instant {
        self.schedule(now, interval_of(kind))
    }

    fn schedule(&mut self, now: Instant, interval: Duration) -> Instant {
        // xorshift32, which never leaves 0.
        self.random = self.random.max(1);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let next_at = now + interval / 2 + interval * (self.random >> 16) / (1 << 16);
        self.next_at = Some(next_at);
        next_at
    }

    /// The block to report now.
    pub(super) fn block(&mut self, now: Instant, reception: Reception) -> ReportBlock {
        let Reception { ssrc, first_index, highest_index, received, jitter } = reception;
        let expected = highest_index + 1 - first_index;
        let (expected_before, received_before) =
            std::mem::replace(&mut self.reported, (expected, received));
        let expected_since = expected.saturating_sub(expected_before);
        let lost_since = expected_since.saturating_sub(received - received_before);
        let fraction_lost = (lost_since * 256).checked_div(expected_since).unwrap_or(0).min(255);
        let (last_sr, delay_since_last_sr) = match self.sender_report {
            Some((ntp, at)) => {
                let micros = now.saturating_duration_since(at).as_micros();
                (ntp, u32::try_from(micros * 65_536 / 1_000_000).unwrap_or(u32::MAX))
            }
            None => (0, 0),
        };
        ReportBlock {
            ssrc,
            fraction_lost: fraction_lost as u8,
            cumulative_lost: expected as i64 - received as i64,
            highest_sequence: highest_index as u32,
            jitter,
            last_sr,
            delay_since_last_sr,
        }
    }
}

fn interval_of(kind: MediaKind) -> Duration {
    match kind {
        MediaKind::Video => REPORT_INTERVAL_VIDEO,
        MediaKind::Audio => REPORT_INTERVAL_AUDIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn reception(first_index: u64, highest_index: u64, received: u64) -> Reception {
        Reception { ssrc: 7, first_index, highest_index, received, jitter: 3 }
    }

    #[test]
    fn losses_are_of_the_interval_and_of_all_time() {
        let now = Instant::now();
        let mut reporting = Reporting::default();
        let block = reporting.block(now, reception(100, 199, 75));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 25));
        assert_eq!((block.highest_sequence, block.jitter, block.last_sr), (199, 3, 0));
        let block = reporting.block(now, reception(100, 299, 175));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 25));
        let block = reporting.block(now, reception(100, 1 << 16, 175));
        assert_eq!((block.fraction_lost, block.highest_sequence), (255, 1 << 16));
        // Reordered ones came: more received than expected in this interval.
        let block = reporting.block(now, reception(90, 1 << 16, 300));
        assert_eq!(block.fraction_lost, 0);
        assert_eq!(reporting.block(now, reception(90, 1 << 16, 300)).fraction_lost, 0);
    }

    #[test]
    fn the_last_sender_report_is_echoed_with_its_age() {
        let now = Instant::now();
        let mut reporting = Reporting::default();
        let report = SenderReport { ssrc: 7, ntp: 0x1111_2222_3333_4444, packets: 1 };
        reporting.sender_report(report, now);
        assert!(reporting.is_fresh(5) && reporting.is_fresh(6));
        assert!(!reporting.is_fresh(6) && !reporting.is_fresh(5), "replays");
        let block = reporting.block(now + ms(1_500), reception(0, 9, 10));
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0x2222_3333, 98_304));
    }

    #[test]
    fn reports_come_once_an_interval_on_average() {
        for (kind, expected) in [(MediaKind::Video, 1_000), (MediaKind::Audio, 200)] {
            let start = Instant::now();
            let (mut reporting, mut now, mut reports) = (Reporting::default(), start, 0);
            while now < start + Duration::from_secs(1_000) {
                let (due, next) = reporting.poll(now, kind, 0xdead_beef);
                assert!(next > now);
                reports += u32::from(due);
                now = next;
            }
            assert!(reports.abs_diff(expected) < expected / 10, "{kind}: {reports}");
        }
    }
}
