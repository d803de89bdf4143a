//! Which missing packets to ask for, and when again (libwebrtc's `nack_requester.cc`).

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::accounting::SequenceLedger;

/// Most ranges of missing packets asked for at a time, as many as the ledger keeps open. At the
/// maximum the oldest range is not asked for any more.
pub(crate) const NACK_RANGES_MAX: usize = crate::accounting::GAPS_MAX;
/// How often a packet is asked for (libwebrtc `kMaxNackRetries`).
pub(crate) const NACK_TRIES_MAX: u8 = 10;
/// Time between two requests for a packet: libwebrtc's round-trip time while it knows none
/// (`kDefaultRttMs`), and a receiver that sends no media learns none from RTCP.
pub(crate) const NACK_INTERVAL: Duration = Duration::from_millis(100);

/// Neighbours that are missing, and are asked for together.
#[derive(Debug)]
struct NackRange {
    /// Extended sequence numbers.
    missing: Range<u64>,
    tries: u8,
    next_at: Instant,
}

/// The open requests of one stream. What arrived or was given up is asked of the ledger, so a
/// repair costs nothing here.
#[derive(Debug, Default)]
pub(crate) struct NackList {
    ranges: VecDeque<NackRange>,
}

impl NackList {
    /// Nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// These were passed over just now.
    pub(crate) fn passed_over(&mut self, missing: Range<u64>, now: Instant) {
        if self.ranges.len() >= NACK_RANGES_MAX {
            self.ranges.pop_front();
        }
        self.ranges.push_back(NackRange { missing, tries: 0, next_at: now });
    }

    /// Appends the sequence numbers to ask for now, in order; returns when to look again.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        ledger: &SequenceLedger,
        wanted: &mut Vec<u16>,
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        self.ranges.retain_mut(|range| {
            if range.next_at <= now {
                let before = wanted.len();
                let open = range.missing.clone().filter(|&sequence| ledger.is_open(sequence));
                wanted.extend(open.map(|sequence| sequence as u16));
                range.tries += 1;
                range.next_at = now + NACK_INTERVAL;
                if wanted.len() == before || range.tries >= NACK_TRIES_MAX {
                    return false;
                }
            }
            next = Some(next.map_or(range.next_at, |next| next.min(range.next_at)));
            true
        });
        if self.ranges.is_empty() {
            self.ranges = VecDeque::new();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Via;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    struct Stream {
        ledger: SequenceLedger,
        list: NackList,
        start: Instant,
    }

    impl Stream {
        fn new(deadline_ms: u64) -> Self {
            let start = Instant::now();
            let ledger = SequenceLedger::new(ms(deadline_ms));
            Self { ledger, list: NackList::default(), start }
        }

        fn arrive(&mut self, sequence: u16, at_ms: u64) {
            let at = self.start + ms(at_ms);
            let before = self.ledger.highest();
            self.ledger.media(sequence, at, 100, Via::Primary);
            if let (Some(before), Some(after)) = (before, self.ledger.highest())
                && after > before + 1
            {
                self.list.passed_over(before + 1..after, at);
            }
        }

        fn poll(&mut self, at_ms: u64) -> (Vec<u16>, Option<u64>) {
            let now = self.start + ms(at_ms);
            self.ledger.expire_gaps(now);
            let mut wanted = Vec::new();
            let next = self.list.poll(now, &self.ledger, &mut wanted);
            (wanted, next.map(|next| (next - self.start).as_millis() as u64))
        }
    }

    #[test]
    fn asks_at_once_again_after_a_round_trip_and_not_for_what_came() {
        let mut stream = Stream::new(500);
        stream.arrive(65_534, 0);
        stream.arrive(1, 5);
        assert_eq!(stream.poll(5), (vec![65_535, 0], Some(105)));
        assert_eq!(stream.poll(50), (vec![], Some(105)));
        stream.arrive(65_535, 60);
        assert_eq!(stream.poll(105), (vec![0], Some(205)));
        stream.arrive(0, 110);
        assert_eq!(stream.poll(205), (vec![], None));
        assert!(stream.list.is_empty());
    }

    #[test]
    fn stops_at_the_deadline_and_after_ten_tries() {
        let mut short = Stream::new(250);
        let mut long = Stream::new(60_000);
        let (mut asked_short, mut asked_long) = (0, 0);
        for stream in [&mut short, &mut long] {
            stream.arrive(1, 0);
            stream.arrive(3, 0);
        }
        for at_ms in 0..3_000 {
            asked_short += short.poll(at_ms).0.len();
            asked_long += long.poll(at_ms).0.len();
        }
        assert_eq!((asked_short, asked_long), (3, usize::from(NACK_TRIES_MAX)));
        assert!(short.list.is_empty() && long.list.is_empty());
    }

    #[test]
    fn the_list_is_bounded() {
        let mut stream = Stream::new(500);
        for index in 0..2_000 {
            stream.arrive(index * 2, 0);
        }
        assert_eq!(stream.list.ranges.len(), NACK_RANGES_MAX);
        assert_eq!(stream.poll(1).0.len(), NACK_RANGES_MAX);
    }
}
