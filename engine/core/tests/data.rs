//! Data messages from one peer to another, over plain str0m servers between which the test relays.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::link::Link;
use common::*;
use stampede_core::data::{DataKind, DataRole, DataRoom, DataSends, SENDERS_MAX};
use stampede_core::{PeerRole, PeerUpdate};
use stampede_counters::{DataCounters, MessageCounters};

/// Those that are sent as messages.
const MESSAGES: [DataKind; 2] = [DataKind::Reliable, DataKind::Lossy];

const STEP: Duration = Duration::from_millis(5);

/// What the relay does with the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relay {
    Pass,
    Drop,
    Twice,
    /// Behind the next one.
    Hold,
}

fn counted(link: &Link) -> DataCounters {
    link.sim.peer.counters().data
}

/// A sender and a receiver, with channels that have been open for long enough.
struct Pair {
    sender: Link,
    receiver: Link,
    held: Vec<(String, Vec<u8>)>,
    relayed: u64,
}

impl Pair {
    fn new(per_second: f64, bytes: usize) -> Self {
        Self::relayed(per_second, bytes, Relay::Pass)
    }

    /// Messages over both channels. Until they are ready the relay does this with all messages.
    fn relayed(per_second: f64, bytes: usize, relay: Relay) -> Self {
        Self::of_kinds([true, true, false], None, per_second, bytes, relay)
    }

    /// `receiver` is which sender of the room the receiving one is by another connection.
    fn of_kinds(
        kinds: [bool; DataKind::COUNT],
        receiver: Option<usize>,
        per_second: f64,
        bytes: usize,
        relay: Relay,
    ) -> Self {
        let start = Instant::now();
        let room = Arc::new(DataRoom::new(77, 1, kinds).unwrap());
        let every = Duration::from_secs_f64(1.0 / per_second);
        let sends = Some(DataSends { kinds, every, bytes, offset: Duration::ZERO });
        let none = [false; DataKind::COUNT];
        let sending = DataRole { room: Arc::clone(&room), sender: Some(0), sends, expects: none };
        let receiving = DataRole { room, sender: receiver, sends: None, expects: kinds };
        let sending = PeerRole { data: Some(sending), ..PeerRole::default() };
        let receiving = PeerRole { data: Some(receiving), ..PeerRole::subscriber(false) };
        let (sender, receiver) = (Link::new(start, sending), Link::new(start, receiving));
        let mut pair = Self { sender, receiver, held: Vec::new(), relayed: 0 };
        pair.run(Duration::from_secs(3), |_| relay);
        pair
    }

    /// Both count anew.
    fn begin(&mut self) {
        for link in [&mut self.sender, &mut self.receiver] {
            link.sim.peer.begin_measuring(link.sim.now);
        }
        self.relayed = 0;
    }

    /// `relay` is asked with the number of each message.
    fn run(&mut self, duration: Duration, relay: impl Fn(u64) -> Relay) {
        let until = self.sender.sim.now.max(self.receiver.sim.now) + duration;
        while self.sender.sim.now < until {
            self.sender.sim.run(STEP);
            self.receiver.sim.run_until(self.sender.sim.now);
            self.receiver.sent();
            for (label, message) in self.sender.sent() {
                let what = relay(self.relayed);
                self.relayed += 1;
                if what != Relay::Drop && what != Relay::Hold {
                    self.receiver.send(&label, &message);
                }
                if what == Relay::Twice {
                    self.receiver.send(&label, &message);
                }
                match what {
                    Relay::Hold => self.held.push((label, message)),
                    _ => {
                        for (label, message) in std::mem::take(&mut self.held) {
                            self.receiver.send(&label, &message);
                        }
                    }
                }
            }
        }
    }

    /// The sender leaves, and everything that was sent is decided.
    fn end(&mut self, relay: impl Fn(u64) -> Relay) -> [DataCounters; 2] {
        self.sender.sim.peer.update(PeerUpdate::Leaving);
        self.run(Duration::from_secs(2), relay);
        [counted(&self.sender), counted(&self.receiver)]
    }
}

fn of(counted: &DataCounters, kind: DataKind) -> MessageCounters {
    match kind {
        DataKind::Reliable => counted.reliable,
        DataKind::Lossy => counted.lossy,
        DataKind::Track => counted.track,
    }
}

#[test]
fn what_a_server_drops_repeats_and_overtakes_is_counted_exactly() {
    let mut pair = Pair::new(50.0, 300);
    pair.begin();
    let relay = |number: u64| match number % 20 {
        3 => Relay::Drop,
        7 | 8 => Relay::Twice,
        13 => Relay::Hold,
        _ => Relay::Pass,
    };
    pair.run(Duration::from_secs(6), relay);
    let [sent, got] = pair.end(relay);
    let (mut lost, mut twice) = (0, 0);
    for kind in MESSAGES {
        let (sent, got) = (of(&sent, kind), of(&got, kind));
        assert!((299..=301).contains(&sent.sent), "{kind:?}: {sent:?}");
        assert_eq!((sent.not_sent, sent.bytes_sent), (0, 300 * sent.sent));
        // What was under way when both began is nobody's.
        assert_eq!(got.expected, sent.sent, "{kind:?}: {got:?}");
        assert_eq!(got.received + got.lost, got.expected, "{kind:?}: {got:?}");
        assert_eq!((got.late, got.stale, got.cut_off), (0, 0, 0), "{kind:?}: {got:?}");
        assert_eq!(got.bytes_received, 300 * got.received);
        lost += got.lost;
        twice += got.duplicate;
    }
    let all = pair.relayed;
    let of_rest = |rest: u64| (0..all).filter(|number| number % 20 == rest).count() as u64;
    // Those under way at the beginning were the relay's first ones.
    assert!(lost.abs_diff(of_rest(3)) <= 1, "{lost} of {}", of_rest(3));
    assert!(twice.abs_diff(of_rest(7) + of_rest(8)) <= 2, "{twice}");
}

#[test]
fn a_network_that_loses_delays_what_is_reliable_and_loses_what_is_lossy() {
    let mut pair = Pair::new(20.0, 200);
    let mut rng = Rng::new(5);
    pair.receiver.sim.fate = Box::new(move |_| match rng.chance(150) {
        true => Fate::Drop,
        false => Fate::Deliver(Duration::ZERO),
    });
    pair.begin();
    pair.run(Duration::from_secs(10), |_| Relay::Pass);
    pair.receiver.sim.fate = Box::new(|_| Fate::Deliver(Duration::ZERO));
    pair.end(|_| Relay::Pass);
    // Retransmissions of SCTP back off for seconds.
    pair.run(Duration::from_secs(10), |_| Relay::Pass);
    let (sent, got) = (counted(&pair.sender), counted(&pair.receiver));
    assert_eq!(got.reliable.expected, sent.reliable.sent);
    assert_eq!((got.reliable.received, got.reliable.lost), (sent.reliable.sent, 0), "{got:?}");
    assert_eq!(got.reliable.reordered, 0);
    assert!(got.lossy.lost > 0, "{:?}", got.lossy);
    assert_eq!(got.lossy.expected, sent.lossy.sent);
    assert_eq!((got.reliable.duplicate, got.lossy.duplicate), (0, 0));
}

/// By v0 who sends by one connection and receives by another never gets its own.
#[test]
fn ones_own_messages_are_expected_by_neither_connection() {
    let kinds = [true, true, false];
    let mut pair = Pair::of_kinds(kinds, Some(0), 20.0, 200, Relay::Drop);
    pair.begin();
    pair.run(Duration::from_secs(3), |_| Relay::Drop);
    let [sent, got] = pair.end(|_| Relay::Drop);
    for kind in MESSAGES {
        assert!(of(&sent, kind).sent > 50 && of(&got, kind) == MessageCounters::default());
    }
}

#[test]
fn nothing_is_expected_of_who_is_cut_off() {
    let mut pair = Pair::new(20.0, 200);
    pair.begin();
    pair.run(Duration::from_secs(2), |_| Relay::Pass);
    let dark = Duration::from_secs(2);
    let until = pair.receiver.sim.now + dark;
    pair.receiver.sim.peer.cut_off_until(until);
    pair.receiver.sim.fate = Box::new(|_| Fate::Drop);
    pair.run(dark, |_| Relay::Pass);
    pair.receiver.sim.fate = Box::new(|_| Fate::Deliver(Duration::ZERO));
    pair.run(Duration::from_secs(8), |_| Relay::Pass);
    let [sent, got] = pair.end(|_| Relay::Pass);
    for kind in MESSAGES {
        let (sent, got) = (of(&sent, kind), of(&got, kind));
        assert_eq!(got.lost, 0, "{kind:?}: {got:?}");
        // Two seconds dark and one of grace.
        let left_out = sent.sent - got.expected;
        assert!((55..=75).contains(&left_out), "{kind:?}: {left_out} of {}", sent.sent);
    }
}

#[test]
fn what_finds_no_room_is_not_sent_and_not_queued() {
    let mut pair = Pair::relayed(100.0, 20_000, Relay::Drop);
    pair.begin();
    pair.sender.sim.fate_up = Box::new(|_| Fate::Drop);
    pair.run(Duration::from_secs(2), |_| Relay::Pass);
    let counted = counted(&pair.sender);
    let (sent, not_sent) = (
        counted.reliable.sent + counted.lossy.sent,
        counted.reliable.not_sent + counted.lossy.not_sent,
    );
    assert!(sent * 20_000 <= 2 * 128 * 1_024, "{sent}");
    assert!((395..=405).contains(&(sent + not_sent)), "{sent} and {not_sent}");
}

/// A worker that was held up for a second.
#[test]
fn who_is_far_behind_sends_a_burst_and_counts_the_rest_as_not_sent() {
    /// `BURST_MAX` of `peer/channels.rs`.
    const BURST_MAX: u64 = 64;
    let mut pair = Pair::new(1_000.0, 100);
    pair.begin();
    let sim = &mut pair.sender.sim;
    sim.peer.drain(sim.now + Duration::from_secs(1), &mut sim.sink);
    let counted = counted(&pair.sender);
    for kind in MESSAGES {
        let MessageCounters { sent, not_sent, .. } = of(&counted, kind);
        assert_eq!(sent, BURST_MAX, "{kind:?}");
        assert!((999..=1_001).contains(&(sent + not_sent)), "{kind:?}: {not_sent}");
    }
}

#[test]
fn a_room_has_so_many_senders_and_no_more() {
    let room = |senders| DataRoom::new(1, senders, [true; DataKind::COUNT]);
    assert_eq!(room(SENDERS_MAX).unwrap().senders(), SENDERS_MAX);
    let error = room(SENDERS_MAX + 1).unwrap_err().to_string();
    assert_eq!(error, "1001 senders of data are too many for one room; 1000 is the most");
}

/// Messages that came, whatever became of them.
fn taken(counted: &DataCounters) -> u64 {
    let of = |one: &MessageCounters| one.received + one.duplicate + one.unexpected + one.stale;
    of(&counted.reliable) + of(&counted.lossy) + counted.other.foreign + counted.other.malformed
}

/// Frames of 40,000 bytes are three packets each, whatever order they come in.
#[test]
fn frames_of_a_data_track_come_whole_or_not_at_all() {
    let mut pair = Pair::of_kinds([false, false, true], None, 10.0, 40_000, Relay::Pass);
    let before = counted(&pair.sender).track;
    assert_eq!((before.sent, before.not_sent), (0, 0), "nothing is due before the server knows it");
    pair.sender.sim.peer.update(PeerUpdate::DataTrackPublished { handle: 300 });
    pair.run(Duration::from_secs(2), |_| Relay::Pass);
    pair.begin();
    let relay = |number: u64| match number % 30 {
        // One packet of a frame in ten.
        4 => Relay::Drop,
        // Behind the next one, of the same frame.
        12 => Relay::Hold,
        _ => Relay::Pass,
    };
    pair.run(Duration::from_secs(6), relay);
    let [sent, got] = pair.end(relay);
    let (sent, got) = (sent.track, got.track);
    assert!((59..=61).contains(&sent.sent), "{sent:?}");
    assert_eq!((sent.not_sent, sent.bytes_sent), (0, 40_000 * sent.sent));
    assert_eq!(got.expected, sent.sent, "{got:?}");
    assert_eq!((got.lost, got.received), (sent.sent.div_ceil(10), got.expected - got.lost));
    assert_eq!(got.bytes_received, 40_000 * got.received);
    assert_eq!((got.duplicate, got.late, got.reordered), (0, 0, 0), "{got:?}");
    assert_eq!(counted(&pair.receiver).other, Default::default());
}

/// A server without data tracks never says that it has one.
#[test]
fn a_data_track_that_no_server_takes_is_not_sent() {
    let mut pair = Pair::of_kinds([false, false, true], None, 10.0, 100, Relay::Pass);
    pair.run(Duration::from_secs(4), |_| Relay::Pass);
    let track = counted(&pair.sender).track;
    assert!(track.sent == 0 && (15..=30).contains(&track.not_sent), "{track:?}");
}

#[test]
fn hostile_messages_are_counted_and_do_no_harm() {
    let mut pair = Pair::new(20.0, 100);
    pair.begin();
    let mut sent = Vec::new();
    while sent.is_empty() {
        pair.sender.sim.run(STEP);
        sent = pair.sender.sent();
    }
    pair.receiver.sim.run_until(pair.sender.sim.now);
    let (label, message) = sent.remove(0);
    let mut rng = Rng::new(9);
    for number in 0..400 {
        let mut broken = message.clone();
        match number % 4 {
            // Not to nothing: of an empty message str0m sends no byte, though RFC 8831 §6.6 wants one.
            0 => broken.truncate(1 + rng.below(broken.len() as u64 - 1) as usize),
            1 => broken.iter_mut().for_each(|byte| *byte = rng.below(256) as u8),
            _ => {
                let at = rng.below(broken.len() as u64 - 20) as usize;
                broken[at] ^= 1 << rng.below(8);
            }
        }
        let before = taken(&counted(&pair.receiver));
        pair.receiver.send(&label, &broken);
        pair.receiver.sim.run(ms(30));
        let after = taken(&counted(&pair.receiver));
        assert_eq!(after, before + 1, "message {number}: {broken:?}");
    }
    let got = counted(&pair.receiver);
    assert!(got.other.foreign > 0 && got.other.malformed > 0, "{got:?}");
    assert!(got.reliable.received <= 1, "only as it was sent: {got:?}");
    assert!(pair.receiver.sim.peer.is_connected());
}
