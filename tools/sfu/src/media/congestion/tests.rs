//! A subscriber behind a way of some width, in virtual time.

use std::borrow::Cow;

use super::allocate::{Demand, allocate, next_bps, usage_bps};
use super::*;
use crate::media::layers::{Cap, Layer, Step};

/// Coarse enough for looks to come late.
const TICK: Duration = Duration::from_millis(8);
const REMB_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn simulcast() -> Vec<Step> {
    let step = |spatial, bitrate_bps| Step { layer: Layer::spatial(spatial), bitrate_bps };
    vec![step(0, 160_000), step(1, 450_000), step(2, 1_700_000)]
}

/// What Chrome's estimate was seen to do: it grows by 8 % a second, to one and a half of what is
/// received, and falls to 85 % of what gets through where that is less than what is sent.
struct Way {
    now: Instant,
    start: Instant,
    width_bps: u64,
    estimate_bps: f64,
    congestion: Congestion,
    steps: Vec<Step>,
    cap: Cap,
    limit: Layer,
    allow_pause: bool,
    pads: bool,
    sent_bytes: u64,
    padded: u64,
    /// Of each tick of the last 200 ms.
    rates: Vec<u64>,
    /// When the layer changed, and to what.
    changes: Vec<(u64, Cap)>,
}

impl Way {
    fn new(width_bps: u64) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            width_bps,
            estimate_bps: 1_700_000.0,
            congestion: Congestion::by_estimates(start),
            steps: simulcast(),
            cap: Cap::Open,
            limit: Layer::spatial(2),
            allow_pause: false,
            pads: true,
            sent_bytes: 0,
            padded: 0,
            rates: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn since_ms(&self) -> u64 {
        (self.now - self.start).as_millis() as u64
    }

    fn demand(&self) -> Demand<'_> {
        Demand { steps: Cow::from(&self.steps), limit: self.limit, cap: self.cap }
    }

    fn act(&mut self, act: Option<Act>) {
        let Some(act) = act else { return };
        let (capacity_bps, upwards) = match act {
            Act::Allocate { capacity_bps } => (capacity_bps, false),
            Act::Boost { capacity_bps } => (capacity_bps, true),
            Act::Pad { bytes } => {
                self.padded += bytes;
                self.congestion.padded(1, bytes);
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
            let usage = usage_bps(&[self.demand()]);
            self.sent_bytes += usage / 1_000;
            self.rates.push(usage + std::mem::take(&mut self.padded) * 1_000);
            if self.congestion.next_at().is_some_and(|at| at <= self.now) {
                let next_bps = next_bps(&[self.demand()]);
                let sent_bytes = self.sent_bytes;
                let usage = Usage { bps: usage, next_bps, sent_bytes };
                let act = self.congestion.tick(self.now, usage, self.pads);
                let next_at = self.congestion.next_at();
                assert!(next_at.is_none_or(|at| at > self.now), "nothing is due twice at once");
                self.act(act);
            }
            let sent_bps = self.rates.iter().sum::<u64>() / self.rates.len() as u64;
            let is_due = self.since_ms().is_multiple_of(REMB_INTERVAL.as_millis() as u64);
            // Who gets nothing says nothing.
            if !is_due || sent_bps == 0 {
                continue;
            }
            self.rates.clear();
            let received = sent_bps.min(self.width_bps) as f64;
            if sent_bps > self.width_bps {
                self.estimate_bps = (self.estimate_bps * 0.85).max(received * 0.85);
            } else {
                let grown = (self.estimate_bps * 1.016).min(received * 1.5);
                self.estimate_bps = self.estimate_bps.max(grown);
            }
            let estimate_bps = self.estimate_bps as u64;
            let estimate =
                Estimate { bps: estimate_bps, usage_bps: usage, packets: 100, repeated: 0 };
            let act = self.congestion.estimate(self.now, estimate);
            self.act(act);
        }
        self
    }
}

pub(super) fn upto(spatial: u8) -> Cap {
    Cap::Upto(Layer::spatial(spatial))
}

/// What of a demand fits, and whether that is less than it asks for.
pub(super) fn fit(
    demand: Demand<'_>,
    capacity_bps: u64,
    allow_pause: bool,
    upwards: bool,
) -> (Cap, bool) {
    let cap = allocate(std::slice::from_ref(&demand), capacity_bps, allow_pause, upwards)[0];
    (cap, Demand { cap, ..demand }.is_deficient())
}

#[test]
fn a_way_that_is_wide_enough_changes_nothing() {
    let mut way = Way::new(5_000_000);
    way.run(60);
    assert_eq!(way.changes, []);
    assert!(way.congestion.next_at().is_none());
    let row = way.congestion.row();
    assert_eq!((row.counted.congestions, row.counted.probes, row.capacity_bps), (0, 0, None));
    assert_eq!(row.counted.estimates, 300);
}

#[test]
fn layers_are_given_up_in_seconds_and_come_back_when_there_is_room() {
    let mut way = Way::new(5_000_000);
    way.run(5);
    way.width_bps = 600_000;
    way.run(20);
    let (at_ms, cap) = way.changes[0];
    assert_eq!(cap, upto(1), "{:?}", way.changes);
    assert!((5_600..8_500).contains(&at_ms), "{at_ms}");
    assert_eq!(way.cap, upto(1), "it stays: {:?}", way.changes);
    assert!(way.congestion.row().counted.probes_congested > 0, "there was no room for more");
    way.width_bps = 5_000_000;
    way.run(60);
    assert_eq!(way.cap, Cap::Open, "{:?}", way.changes);
    let row = way.congestion.row();
    assert!(row.counted.probes >= 2 && row.counted.padding_packets > 0, "{row:?}");
    assert_eq!((row.capacity_bps, row.counted.congestions), (None, 1));
    assert!(way.congestion.next_at().is_none(), "nothing is looked for any more");
}

#[test]
fn probes_that_congest_get_rarer() {
    let mut way = Way::new(600_000);
    way.run(30);
    let first = way.congestion.row().counted.probes;
    way.run(60);
    let later = way.congestion.row().counted.probes - first;
    assert!(first >= 2 && later <= first + 3, "{first}, {later}");
    assert_eq!(way.cap, upto(1));
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
fn who_can_be_sent_no_padding_gets_a_layer_to_try() {
    let mut way = Way::new(600_000);
    way.pads = false;
    way.run(60);
    assert_eq!(way.changes[0].1, upto(1));
    // Each try that was too much is followed by a longer wait.
    let tries = way.changes.iter().filter(|(_, cap)| *cap == Cap::Open).count();
    assert!((2..=9).contains(&tries), "{:?}", way.changes);
    way.width_bps = 5_000_000;
    way.run(60);
    assert_eq!(way.cap, Cap::Open, "{:?}", way.changes);
    assert_eq!(way.congestion.row().counted.padding_packets, 0);
}

#[test]
fn packets_asked_for_again_and_again_are_congestion() {
    let start = Instant::now();
    let mut congestion = Congestion::by_estimates(start);
    let mut act = None;
    let mut at = start;
    while act.is_none() && at < start + Duration::from_secs(10) {
        at += REMB_INTERVAL;
        // A fifth, with an estimate that stays.
        let estimate = Estimate { bps: 3_000_000, usage_bps: 1_000_000, packets: 20, repeated: 4 };
        act = congestion.estimate(at, estimate);
    }
    let Some(Act::Allocate { capacity_bps }) = act else { panic!("{act:?}") };
    assert!(capacity_bps.abs_diff(920_000) <= 1, "{capacity_bps}");
    assert!((2_000..3_000).contains(&(at - start).as_millis()));
    assert_eq!(congestion.row().counted.congestions, 1);
}

#[test]
fn an_estimate_above_what_is_sent_is_no_congestion() {
    let start = Instant::now();
    let mut congestion = Congestion::by_estimates(start);
    for i in 0..50 {
        let bps = 3_000_000 - 20_000 * u64::from(i);
        let estimate = Estimate { bps, usage_bps: 900_000, packets: 9, repeated: 0 };
        let act = congestion.estimate(start + REMB_INTERVAL * i, estimate);
        assert_eq!(act, None);
    }
}
