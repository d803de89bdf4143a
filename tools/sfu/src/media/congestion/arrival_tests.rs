//! A subscriber behind a way of some width that tells when each packet arrived, in virtual time.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::allocate::{Demand, next_bps, usage_bps};
use super::send_side::log::SendLog;
use super::tests::{fit, simulcast, upto};
use super::*;
use crate::media::layers::{Cap, Layer, Step};

const TICK: Duration = Duration::from_millis(20);
/// A picture every other tick.
const PICTURES_PER_S: u64 = 25;
/// Chrome's pace, near enough.
const REPORT_INTERVAL_MS: u64 = 60;
const PACKET_BYTES: u64 = 1_000;
const PADDING_BYTES: u64 = 255;
const PROPAGATION: Duration = Duration::from_millis(20);

/// A way that sends packet by packet, with a queue before it.
struct Way {
    start: Instant,
    now: Instant,
    width_bps: u64,
    propagation: Duration,
    /// What waits longer for the way is lost.
    queue_max: Duration,
    /// When the way is free again.
    free_at: Instant,
    /// Of every packet, how many are lost by themselves: one in so many.
    lost_every: Option<u32>,
    log: SendLog,
    sent: u32,
    number: u32,
    /// Packets not told of yet: number, and when it arrives if it does.
    under_way: VecDeque<(u32, Option<Instant>)>,
    congestion: Congestion,
    steps: Vec<Step>,
    cap: Cap,
    allow_pause: bool,
    pads: bool,
    sent_bytes: u64,
    changes: Vec<(u64, Cap)>,
}

impl Way {
    fn new(width_bps: u64) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            width_bps,
            propagation: PROPAGATION,
            queue_max: Duration::from_millis(400),
            free_at: start,
            lost_every: None,
            log: SendLog::new(start),
            sent: 0,
            number: 0,
            under_way: VecDeque::new(),
            congestion: Congestion::by_arrivals(start, start),
            steps: simulcast(),
            cap: Cap::Open,
            allow_pause: false,
            pads: true,
            sent_bytes: 0,
            changes: Vec::new(),
        }
    }

    fn since_ms(&self) -> u64 {
        (self.now - self.start).as_millis() as u64
    }

    fn demand(&self) -> Demand<'_> {
        Demand { steps: Cow::from(&self.steps), limit: Layer::spatial(2), cap: self.cap }
    }

    fn send(&mut self, bytes: u64) {
        self.log.set_now(self.now);
        let number = self.log.add(bytes as usize);
        self.number = if self.sent == 0 { number.into() } else { self.number + 1 };
        self.sent += 1;
        let begins = self.free_at.max(self.now);
        let lost = self.lost_every.is_some_and(|every| self.sent.is_multiple_of(every));
        if lost || begins - self.now > self.queue_max {
            self.under_way.push_back((self.number, None));
            return;
        }
        self.free_at = begins + Duration::from_secs(bytes * 8) / self.width_bps as u32;
        self.under_way.push_back((self.number, Some(self.free_at + self.propagation)));
    }

    fn report(&mut self) {
        let arrived = |packet: &(u32, Option<Instant>)| packet.1.is_some_and(|at| at <= self.now);
        // What is lost is known by what comes behind it.
        let Some(last) = self.under_way.iter().rposition(arrived) else { return };
        let told: Vec<_> = self.under_way.drain(..=last).collect();
        let us = |at: Instant| (at - self.start).as_micros() as u64;
        let log = &mut self.log;
        let told = told.into_iter().filter_map(|(number, at)| log.tell(number, at.map(us)));
        let act = self.congestion.report(self.now, told);
        self.act(act);
    }

    fn act(&mut self, act: Option<Act>) {
        let Some(act) = act else { return };
        let (capacity_bps, upwards) = match act {
            Act::Allocate { capacity_bps } => (capacity_bps, false),
            Act::Boost { capacity_bps } => (capacity_bps, true),
            Act::Pad { bytes } => {
                let packets = bytes.div_ceil(PADDING_BYTES);
                (0..packets).for_each(|_| self.send(PADDING_BYTES));
                self.congestion.padded(packets, packets * PADDING_BYTES);
                return;
            }
        };
        let (cap, deficient) = fit(self.demand(), capacity_bps, self.allow_pause, upwards);
        if cap != self.cap {
            self.changes.push((self.since_ms(), cap));
        }
        self.cap = cap;
        self.congestion.allocated(self.now, deficient);
    }

    fn run(&mut self, seconds: u64) -> &mut Self {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += TICK;
            let bps = usage_bps(&[self.demand()]);
            if self.since_ms().is_multiple_of(1_000 / PICTURES_PER_S) {
                let mut left = bps / 8 / PICTURES_PER_S;
                self.sent_bytes += left;
                while left > 0 {
                    self.send(left.min(PACKET_BYTES));
                    left = left.saturating_sub(PACKET_BYTES);
                }
            }
            if self.since_ms().is_multiple_of(REPORT_INTERVAL_MS) {
                self.report();
            }
            while self.congestion.next_at().is_some_and(|at| at <= self.now) {
                let next_bps = next_bps(&[self.demand()]);
                let usage = Usage { bps, next_bps, sent_bytes: self.sent_bytes };
                let act = self.congestion.tick(self.now, usage, self.pads);
                self.act(act);
            }
        }
        self
    }

    fn counted(&self) -> CongestionLedger {
        self.congestion.row()
    }
}

#[test]
fn a_way_that_is_wide_enough_changes_nothing() {
    let mut way = Way::new(5_000_000);
    way.run(60);
    assert_eq!(way.changes, []);
    assert!(way.congestion.next_at().is_none());
    let row = way.counted();
    assert_eq!((row.counted.congestions, row.counted.probes, row.capacity_bps), (0, 0, None));
    assert!(row.counted.arrival_reports > 900 && row.counted.estimates == 0, "{row:?}");
}

#[test]
fn layers_are_given_up_in_seconds_and_come_back_when_there_is_room() {
    let mut way = Way::new(5_000_000);
    way.run(5);
    way.width_bps = 1_200_000;
    way.run(20);
    let (at_ms, cap) = way.changes[0];
    assert_eq!(cap, upto(1), "{:?}", way.changes);
    assert!((5_200..8_000).contains(&at_ms), "{at_ms}");
    assert_eq!(way.cap, upto(1), "it stays: {:?}", way.changes);
    let row = way.counted();
    assert!((900_000..1_300_000).contains(&row.estimate_bps_min.unwrap()), "{row:?}");
    assert!(row.counted.probes_congested > 0, "there was no room for more: {row:?}");
    way.width_bps = 5_000_000;
    way.run(60);
    assert_eq!(way.cap, Cap::Open, "{:?}", way.changes);
    let row = way.counted();
    assert!(row.counted.probes >= 2 && row.counted.padding_packets > 0, "{row:?}");
    assert_eq!((row.capacity_bps, row.counted.congestions), (None, 1));
    assert!(way.congestion.next_at().is_none(), "nothing is looked for any more");
}

#[test]
fn probes_that_congest_get_rarer() {
    let mut way = Way::new(1_200_000);
    way.run(30);
    let first = way.counted().counted.probes;
    way.run(60);
    let later = way.counted().counted.probes - first;
    assert!(first >= 1 && later <= first + 5, "{first}, {later}");
    assert_eq!(way.cap, upto(1));
}

#[test]
fn what_still_does_not_fit_is_given_up_too() {
    let mut way = Way::new(5_000_000);
    way.run(5);
    // First there is room for the second layer of three, and while its queue is still full no longer.
    way.queue_max = Duration::from_secs(5);
    way.width_bps = 600_000;
    way.run(2);
    assert_eq!(way.cap, upto(1), "{:?}", way.changes);
    way.width_bps = 100_000;
    way.run(10);
    assert_eq!(way.cap, upto(0), "{:?} {:?}", way.changes, way.counted());
}

#[test]
fn only_who_allows_it_is_paused() {
    for (allow_pause, cap) in [(false, upto(0)), (true, Cap::Paused)] {
        let mut way = Way::new(70_000);
        way.allow_pause = allow_pause;
        way.run(8);
        assert_eq!(way.cap, cap, "{:?}", way.changes);
        way.width_bps = 5_000_000;
        way.run(120);
        assert_eq!(way.cap, Cap::Open, "{:?}", way.changes);
    }
}

#[test]
fn losses_of_a_way_that_queues_nothing_are_congestion() {
    let mut way = Way::new(50_000_000);
    way.lost_every = Some(3);
    way.run(10);
    assert!(!way.changes.is_empty());
    let mut way = Way::new(50_000_000);
    way.lost_every = Some(25);
    way.run(10);
    assert_eq!(way.changes, [], "a few are none");
}

#[test]
fn who_can_be_sent_no_padding_gets_a_layer_to_try() {
    let mut way = Way::new(1_200_000);
    way.pads = false;
    way.run(60);
    assert_eq!(way.changes[0].1, upto(1));
    way.width_bps = 5_000_000;
    way.run(60);
    assert_eq!(way.cap, Cap::Open, "{:?}", way.changes);
    assert_eq!(way.counted().counted.padding_packets, 0);
}

/// Packets 5 ms apart, each of which queues 3 ms longer: what is told of them.
fn queueing(start: Instant, log: &mut SendLog, packets: std::ops::Range<u32>) -> Vec<Told> {
    let told = packets.filter_map(|packet| {
        log.set_now(start + Duration::from_millis(5) * packet);
        let number = log.add(PACKET_BYTES as usize);
        log.tell(number.into(), Some(8_000 * u64::from(packet)))
    });
    told.collect()
}

#[test]
fn by_a_report_that_tells_nothing_new_nothing_is_judged() {
    let start = Instant::now();
    let (mut log, mut congestion) = (SendLog::new(start), Congestion::by_arrivals(start, start));
    let now = start + Duration::from_secs(2);
    // One report is a warning, and the next one more.
    let told = queueing(start, &mut log, 0..240);
    assert_eq!(congestion.report(now, told.into_iter()), None);
    assert_eq!(congestion.report(now, std::iter::empty()), None);
    let told = queueing(start, &mut log, 240..241);
    let act = congestion.report(now, told.into_iter());
    assert!(matches!(act, Some(Act::Allocate { .. })), "{act:?}");
}

#[test]
fn what_was_carried_before_a_probe_is_no_estimate_when_it_congests() {
    let start = Instant::now();
    let (mut log, mut congestion) = (SendLog::new(start), Congestion::by_arrivals(start, start));
    let now = start + Duration::from_secs(2);
    let told = queueing(start, &mut log, 0..240);
    assert_eq!(congestion.report(now, told.into_iter()), None);
    congestion.observer.begin_probe(now, now + Duration::from_secs(1));
    congestion.probe = Some(Probe::new(now, 1_000_000, Duration::from_secs(1), 0));
    let told = queueing(start, &mut log, 240..270);
    assert_eq!(congestion.report(now, told.into_iter()), None);
    assert!(!congestion.observer.is_free());
    let row = congestion.row();
    assert_eq!((row.estimate_bps, row.estimate_bps_min), (None, None));
}

#[test]
fn a_new_way_is_longer_and_none_of_that_is_a_queue() {
    let mut way = Way::new(1_200_000);
    way.run(4);
    assert_eq!(way.cap, upto(1), "{:?}", way.changes);
    // What is under way by the old one is told of later.
    (way.width_bps, way.free_at, way.propagation) = (5_000_000, way.now, 10 * PROPAGATION);
    way.log.begin_anew();
    way.congestion.begin_anew();
    way.run(15);
    assert_eq!(way.cap, Cap::Open, "{:?}", way.changes);
}
