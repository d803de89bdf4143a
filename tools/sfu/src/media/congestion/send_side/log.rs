//! What was sent to a subscriber under transport-wide sequence numbers, and what it tells of each
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01; LiveKit
//! `pkg/sfu/bwe/sendsidebwe/packet_tracker.go` and `twcc_feedback.go`).

use std::collections::VecDeque;
use std::time::Instant;

use str0m::rtp::rtcp::Twcc;

/// Packets remembered; of more the oldest is forgotten, and what is told of it is of no use.
const SENT_PACKETS_MAX: usize = 2_048;
/// The first number: in the middle, so that reports of the first packets can't be taken for a wrap.
const NUMBER_FIRST: u32 = 1 << 15;
/// Bits of a report's reference time (§3.1).
const REFERENCE_BITS: u32 = 24;
/// Runs of no packets at all, of each status, as chunks of a report (§3.1.3).
const EMPTY_RUNS: [u16; 4] = [0x0000, 0x2000, 0x4000, 0x6000];

/// Packets sent over one peer connection.
#[derive(Debug)]
pub(crate) struct SendLog {
    /// Times are counted from it.
    began: Instant,
    /// By number, modulo the length.
    packets: Box<[Sent]>,
    /// The first number that was sent by the way of now.
    first: u32,
    next: u32,
    /// What is sent now is sent at this time.
    now_us: u64,
    /// When the packet was sent, and arrived, that arrived last as far as was told.
    arrived: Option<(u64, u64)>,
    /// The latest reference time, which goes on where that of reports begins anew.
    reference: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    at_us: u64,
    number: u32,
    /// None of a place where nothing was sent yet.
    bytes: u16,
    known: Known,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    Lost,
    Arrived,
}

/// What a subscriber tells of a packet, the first time that it tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(super) number: u32,
    pub(super) sent_us: u64,
    pub(super) bytes: u16,
    pub(super) fate: Fate,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// It arrived: so much later than the one told of before it, which was sent so much earlier.
    Arrived {
        send_delta_us: i64,
        recv_delta_us: i64,
        /// It was told that it was lost.
        was_lost: bool,
    },
    Lost,
}

impl SendLog {
    /// Whose times count from then on.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            packets: vec![Sent::default(); SENT_PACKETS_MAX].into(),
            first: NUMBER_FIRST,
            next: NUMBER_FIRST,
            now_us: 0,
            arrived: None,
            reference: None,
        }
    }

    /// Since when its times are counted.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The way is another: when something arrived that was sent by the old one says nothing of it.
    pub(crate) fn begin_anew(&mut self) {
        (self.arrived, self.first) = (None, self.next);
    }

    /// What is sent from here on is sent at this time.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now_us = micros(self.began, now);
    }

    /// A packet of so many bytes is sent: its number.
    pub(crate) fn add(&mut self, bytes: usize) -> u16 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        let sent = Sent { at_us: self.now_us, number, bytes, known: Known::Nothing };
        self.packets[slot(number)] = sent;
        number as u16
    }

    /// What a report tells of packets that were sent. Nothing of one that is malformed, or of more packets
    /// than are remembered: a few bytes could be of 65,535.
    pub(crate) fn read(&mut self, mut report: Twcc) -> impl Iterator<Item = Told> + '_ {
        report.reference_time = self.unwrap_reference(report.reference_time);
        let newest = u64::from(self.next.wrapping_sub(1));
        let is_of_use =
            usize::from(report.status_count) <= SENT_PACKETS_MAX && !has_empty_run(&report);
        let packets = is_of_use.then(|| report.into_iter(self.began, newest.into()));
        packets.into_iter().flatten().filter_map(move |(number, _, arrived_at)| {
            let arrived_us = arrived_at.map(|at| micros(self.began, at));
            self.tell(u32::try_from(*number).ok()?, arrived_us)
        })
    }

    /// The same of one packet, which arrived at this time of the subscriber's clock, or has not.
    pub(crate) fn tell(&mut self, number: u32, arrived_us: Option<u64>) -> Option<Told> {
        let first = self.first;
        let sent = &mut self.packets[slot(number)];
        if number < first
            || sent.number != number
            || sent.bytes == 0
            || sent.known == Known::Arrived
        {
            return None;
        }
        let fate = match arrived_us {
            None if sent.known == Known::Lost => return None,
            None => {
                sent.known = Known::Lost;
                Fate::Lost
            }
            Some(arrived_us) => {
                let was_lost = sent.known == Known::Lost;
                sent.known = Known::Arrived;
                let now = (sent.at_us, arrived_us);
                let before = self.arrived.replace(now).unwrap_or(now);
                let since = |then: u64, now: u64| now.wrapping_sub(then).cast_signed();
                Fate::Arrived {
                    send_delta_us: since(before.0, now.0),
                    recv_delta_us: since(before.1, now.1),
                    was_lost,
                }
            }
        };
        Some(Told { number, sent_us: sent.at_us, bytes: sent.bytes, fate })
    }

    /// A reference time that goes on where those of reports begin anew, every twelve days.
    fn unwrap_reference(&mut self, reference: u32) -> u32 {
        const UNUSED: u32 = u32::BITS - REFERENCE_BITS;
        let latest = *self.reference.get_or_insert(1 << REFERENCE_BITS | reference);
        let ahead = (reference.wrapping_sub(latest) << UNUSED).cast_signed() >> UNUSED;
        let unwrapped = latest.saturating_add_signed(ahead);
        self.reference = Some(latest.max(unwrapped));
        unwrapped
    }
}

fn slot(number: u32) -> usize {
    number as usize % SENT_PACKETS_MAX
}

pub(super) fn micros(began: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX)
}

/// Whether a report has a run of no packets, at which str0m 0.25 would take the status of one packet for
/// that of others, and panic. Nobody who is in earnest sends any.
///
/// Another fault of its reader (`rtp/rtcp/twcc.rs`, `TryFrom for Twcc`) is lived with: behind a run of `n`
/// large deltas it goes on `n` bytes later rather than `2n`, so that times of packets behind it are wrong.
/// Such a run has packets that came 64 ms or more after each other, and is mostly the last of its report.
fn has_empty_run(report: &Twcc) -> bool {
    // The type of a chunk has no name here.
    fn has<C: PartialEq + for<'a> TryFrom<&'a [u8]>>(chunks: &VecDeque<C>, run: u16) -> bool {
        C::try_from(&run.to_be_bytes()).is_ok_and(|run| chunks.contains(&run))
    }
    EMPTY_RUNS.into_iter().any(|run| has(&report.chunks, run))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;
    use std::time::Duration;

    use super::*;

    /// A report of these packets, from this number on: ticks of 250 µs since the one before it.
    fn report(base: u16, reference: u32, ticks: &[Option<u8>]) -> Twcc {
        let mut bytes = vec![0; 8];
        bytes.extend(base.to_be_bytes());
        bytes.extend((ticks.len() as u16).to_be_bytes());
        bytes.extend((reference << 8).to_be_bytes());
        for tick in ticks {
            let chunk: u16 = if tick.is_some() { 0x2001 } else { 0x0001 };
            bytes.extend(chunk.to_be_bytes());
        }
        bytes.extend(ticks.iter().flatten());
        Twcc::try_from(&bytes[..]).unwrap()
    }

    fn deltas(told: Option<Told>) -> Option<(u32, i64, i64, bool)> {
        let Told { number, fate, .. } = told?;
        match fate {
            Fate::Arrived { send_delta_us, recv_delta_us, was_lost } => {
                Some((number, send_delta_us, recv_delta_us, was_lost))
            }
            Fate::Lost => None,
        }
    }

    fn log(packets: u32) -> SendLog {
        let start = Instant::now();
        let mut log = SendLog::new(start);
        for packet in 0..packets {
            log.set_now(start + Duration::from_millis(10) * packet);
            log.add(1_000);
        }
        log
    }

    #[test]
    fn what_is_told_of_a_packet_is_told_once() {
        let mut log = log(5);
        let base = NUMBER_FIRST as u16;
        let told: Vec<_> = log.read(report(base, 9, &[Some(0), None, Some(48)])).collect();
        assert!(matches!(told[1].fate, Fate::Lost));
        let told = |at: usize| deltas(told.get(at).copied());
        assert_eq!(told(0), Some((NUMBER_FIRST, 0, 0, false)));
        assert_eq!(told(2), Some((NUMBER_FIRST + 2, 20_000, 12_000, false)));
        // The second came after all; what is told again is no news.
        let again = report(base, 9, &[Some(0), Some(60), Some(0), Some(4)]);
        let told: Vec<_> = log.read(again).map(|told| deltas(Some(told)).unwrap()).collect();
        assert_eq!(told[0], (NUMBER_FIRST + 1, -10_000, 3_000, true));
        assert_eq!(told[1], (NUMBER_FIRST + 3, 20_000, 1_000, false));
        assert_eq!(log.read(report(base + 5, 9, &[Some(0)])).count(), 0, "not sent yet");
        assert_eq!(log.read(report(0, 9, &[None])).count(), 0, "never sent");
    }

    #[test]
    fn forgotten_packets_are_none_and_numbers_wrap() {
        let mut log = log(SENT_PACKETS_MAX as u32 + 40_000);
        assert_eq!(log.read(report(NUMBER_FIRST as u16, 9, &[Some(0)])).count(), 0);
        let last = NUMBER_FIRST + 40_000 + SENT_PACKETS_MAX as u32 - 1;
        assert!(last > 1 << 16);
        let told = log.read(report(last as u16, 9, &[Some(0)])).next();
        assert_eq!(deltas(told), Some((last, 0, 0, false)));
    }

    #[test]
    fn reference_times_go_on_where_they_begin_anew() {
        let mut log = log(3);
        let base = NUMBER_FIRST as u16;
        let last = (1 << REFERENCE_BITS) - 1;
        assert_eq!(log.read(report(base, last, &[Some(0)])).count(), 1);
        assert_eq!(deltas(log.read(report(base + 1, 0, &[Some(0)])).next()).unwrap().2, 64_000);
        let before = log.read(report(base + 2, last, &[Some(4)])).next();
        assert_eq!(deltas(before).unwrap().2, -63_000, "an overtaken report");
    }

    #[test]
    fn a_report_of_more_than_is_remembered_is_none() {
        let of = |count: u16| {
            let mut bytes = vec![0; 8];
            bytes.extend((NUMBER_FIRST as u16).to_be_bytes());
            bytes.extend(count.to_be_bytes());
            bytes.extend([0, 0, 9, 0]);
            // One run of packets that were not received.
            bytes.extend(count.to_be_bytes());
            let report = Twcc::try_from(&bytes[..]).unwrap();
            log(SENT_PACKETS_MAX as u32).read(report).count()
        };
        assert_eq!(
            (of(SENT_PACKETS_MAX as u16), of(SENT_PACKETS_MAX as u16 + 1)),
            (SENT_PACKETS_MAX, 0)
        );
    }

    #[test]
    fn a_report_with_an_empty_run_is_none() {
        let mut bytes = vec![0; 8];
        bytes.extend((NUMBER_FIRST as u16).to_be_bytes());
        // One packet; no small delta, one large one.
        bytes.extend([0, 1, 0, 0, 9, 0, 0x20, 0, 0x40, 1, 0, 4]);
        let report = Twcc::try_from(&bytes[..]).unwrap();
        assert_eq!(log(3).read(report).count(), 0);
    }

    /// Chunks as they may come, also of none (§3.1.3, §3.1.4).
    fn chunks() -> impl Strategy<Value = Vec<u16>> {
        let run = (0u16..4, 0u16..15).prop_map(|(status, packets)| status << 13 | packets);
        let single = (0u16..1 << 14).prop_map(|statuses| 1 << 15 | statuses);
        let double = (0u16..1 << 14).prop_map(|statuses| 3 << 14 | statuses);
        proptest::collection::vec(prop_oneof![run, single, double], 1..5)
    }

    proptest! {
        #[test]
        fn any_report_is_read_or_left(
            count in 0u16..60,
            chunks in chunks(),
            deltas in proptest::collection::vec(any::<u8>(), 60..140),
        ) {
            let mut bytes = vec![0; 8];
            bytes.extend((NUMBER_FIRST as u16).to_be_bytes());
            bytes.extend(count.to_be_bytes());
            bytes.extend([0, 0, 9, 0]);
            bytes.extend(chunks.iter().flat_map(|chunk| chunk.to_be_bytes()));
            bytes.extend(deltas);
            if let Ok(report) = Twcc::try_from(&bytes[..]) {
                prop_assert!(log(300).read(report).count() <= usize::from(count));
            }
        }
    }
}
