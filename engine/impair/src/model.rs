//! What becomes of each packet of one subscriber.

use std::time::{Duration, Instant};

use fastrand::Rng;
use stampede_counters::ImpairCounters;

use crate::{Loss, Spec, Window, seeded};

/// How much longer than the others a packet picked by `reorder` is held: longer than the 20 ms
/// between two packets of an Opus stream, so that at least one overtakes it.
pub const REORDER_HOLD: Duration = Duration::from_millis(30);

/// Bytes that pass a limited rate at once: two full datagrams.
pub const RATE_BURST_BYTES: u64 = 3_000;

/// Longest wait in front of a limited rate, as in a router with a queue of this length; a packet
/// that would wait longer is dropped and counted.
pub const RATE_QUEUE_MAX: Duration = Duration::from_millis(250);

/// What kind of datagram (RFC 7983 §7, RFC 5761 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// RTP or SRTP, retransmissions included.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// STUN, DTLS and everything else: only an outage stops it, so that connections live.
    Other,
}

impl Class {
    /// Looks at the first two bytes.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] if datagram.len() >= 12 => Self::Rtp,
            _ => Self::Other,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Drop,
    /// It arrives.
    Deliver {
        /// When; never before it was decided on.
        at: Instant,
        /// Whether it arrives a second time right after.
        twice: bool,
        /// Whether it is held back so that later ones overtake it.
        reordered: bool,
    },
}

impl Fate {
    /// As if nothing was in the way.
    #[must_use]
    pub fn untouched(now: Instant) -> Self {
        Self::Deliver { at: now, twice: false, reordered: false }
    }
}

/// The model of one subscriber. Every packet is decided on once, in the order they come.
#[derive(Debug, Clone)]
pub struct Impairment {
    start: Instant,
    outages: Vec<Window>,
    /// From when until when everything is dropped, beside the outages.
    cut_off: Option<[Instant; 2]>,
    loss: Option<Loss>,
    link: Option<Link>,
    /// When the link is what it is; without any always.
    link_spans: Vec<Window>,
    delay: Duration,
    jitter: Option<(Duration, Rng)>,
    reorder: Option<(f64, Rng)>,
    duplicate: Option<(f64, Rng)>,
    holds_packets: bool,
    /// When the last packet in order arrives: the next one may not overtake it.
    last_at: Option<Instant>,
    counts: ImpairCounters,
}

impl Impairment {
    /// A model of `spec` for one subscriber; seed and name fix all its chances. Outages count from
    /// `start`.
    #[must_use]
    pub fn new(spec: &Spec, seed: u64, name: &str, start: Instant) -> Self {
        // A sequence each, so that adding one impairment does not move another's chances.
        let rng = |what: &str| seeded(seed, &format!("{name}{what}"));
        let share = |share: f64, what| (share > 0.0).then(|| (share, rng(what)));
        Self {
            start,
            outages: spec.outages.clone(),
            cut_off: None,
            loss: Loss::new(spec.loss, spec.burst_packets, rng("")),
            link: spec.rate_bps.map(Link::new),
            link_spans: spec.rate_spans.clone(),
            delay: spec.delay,
            jitter: (!spec.jitter.is_zero()).then(|| (spec.jitter, rng("/jitter"))),
            reorder: share(spec.reorder, "/reorder"),
            duplicate: share(spec.duplicate, "/duplicate"),
            holds_packets: spec.holds_packets(),
            last_at: None,
            counts: ImpairCounters::default(),
        }
    }

    /// A model that does nothing until [`Self::cut_off`].
    #[must_use]
    pub fn none(start: Instant) -> Self {
        Self {
            start,
            outages: Vec::new(),
            cut_off: None,
            loss: None,
            link: None,
            link_spans: Vec::new(),
            delay: Duration::ZERO,
            jitter: None,
            reorder: None,
            duplicate: None,
            holds_packets: false,
            last_at: None,
            counts: ImpairCounters::default(),
        }
    }

    /// An outage that no spec has: everything that comes from `from` on and before `until` is
    /// dropped. It takes the place of the one before.
    pub fn cut_off(&mut self, from: Instant, until: Instant) {
        self.cut_off = Some([from, until]);
    }

    fn is_cut_off(&self, now: Instant) -> bool {
        self.cut_off.is_some_and(|[from, until]| from <= now && now < until)
    }

    /// Whether one that was held back arrives when it is due; else it is dropped after all, for
    /// nothing arrives in a cut-off.
    pub fn arrives(&mut self, due: Instant, class: Class) -> bool {
        let arrives = !self.is_cut_off(due);
        if !arrives {
            self.drop(class);
        }
        arrives
    }

    /// What becomes of a datagram of `bytes` that comes `now`.
    pub fn decide(&mut self, now: Instant, class: Class, bytes: usize) -> Fate {
        let since_start = now.saturating_duration_since(self.start);
        if self.is_cut_off(now) || self.outages.iter().any(|outage| outage.holds(since_start)) {
            return self.drop(class);
        }
        if class == Class::Other {
            return Fate::untouched(now);
        }
        if self.loss.as_mut().is_some_and(Loss::loses) {
            return self.drop(class);
        }
        let (mut at, mut reordered) = (now, false);
        let spans = &self.link_spans;
        if let Some(link) = &mut self.link
            && (spans.is_empty() || spans.iter().any(|span| span.holds(since_start)))
        {
            match link.pass(now, bytes) {
                Some(passed) => at = passed,
                None => return self.drop(class),
            }
        }
        let media = u64::from(class == Class::Rtp);
        if self.holds_packets {
            (at, reordered) = self.later(at);
            self.counts.reordered += media * u64::from(reordered);
            self.counts.delayed += media * u64::from(at > now);
        }
        let twice = self.duplicate.as_mut().is_some_and(|(share, rng)| rng.f64() < *share);
        self.counts.duplicated += media * u64::from(twice);
        Fate::Deliver { at, twice, reordered }
    }

    /// Delay, jitter and reordering after the link: when it arrives, and whether it is overtaken.
    fn later(&mut self, sent: Instant) -> (Instant, bool) {
        let mut delay = self.delay;
        if let Some((jitter, rng)) = &mut self.jitter {
            let early = delay.saturating_sub(*jitter);
            let late = delay + *jitter;
            delay = early + (late - early).mul_f64(rng.f64());
        }
        let at = (sent + delay).max(self.last_at.unwrap_or(sent));
        if self.reorder.as_mut().is_some_and(|(share, rng)| rng.f64() < *share) {
            return (at + REORDER_HOLD, true);
        }
        self.last_at = Some(at);
        (at, false)
    }

    fn drop(&mut self, class: Class) -> Fate {
        match class {
            Class::Rtp => self.counts.dropped += 1,
            Class::Rtcp | Class::Other => self.counts.other_dropped += 1,
        }
        Fate::Drop
    }

    /// A packet that came at `sent` and was to wait found the queue full: it is dropped after all,
    /// or only its second copy if the first is in (`delivered`). What [`Self::decide`] counted of
    /// it is taken back. Returns what became of it.
    pub fn overflowed(&mut self, class: Class, sent: Instant, fate: Fate, delivered: bool) -> Fate {
        let Fate::Deliver { at, twice, reordered } = fate else { return fate };
        let media = u64::from(class == Class::Rtp);
        self.counts.duplicated -= media * u64::from(twice);
        if delivered {
            return Fate::Deliver { at, twice: false, reordered };
        }
        self.counts.reordered -= media * u64::from(reordered);
        self.counts.delayed -= media * u64::from(at > sent);
        self.drop(class)
    }

    /// Whether delivered packets may have to wait. Then all have to go through the same queue, or
    /// they would overtake those that wait.
    #[must_use]
    pub fn holds_packets(&self) -> bool {
        self.holds_packets
    }

    /// What was injected so far.
    #[must_use]
    pub fn counts(&self) -> ImpairCounters {
        self.counts
    }

    /// Counts from 0 again: the measured window begins.
    pub fn reset_counts(&mut self) {
        self.counts = ImpairCounters::default();
    }
}

/// A token bucket, kept as the time at which it would be full again.
#[derive(Debug, Clone)]
struct Link {
    rate_bps: u64,
    /// When everything that passed so far has passed at `rate_bps`.
    busy_until: Option<Instant>,
}

impl Link {
    fn new(rate_bps: u64) -> Self {
        Self { rate_bps: rate_bps.max(1), busy_until: None }
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let ns = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.rate_bps);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// When a datagram that comes `now` has passed; `None` if the queue has no room.
    fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let busy_until = self.busy_until.map_or(now, |at| at.max(now));
        let waits = (busy_until - now).saturating_sub(self.time_of(RATE_BURST_BYTES));
        if waits > RATE_QUEUE_MAX {
            return None;
        }
        self.busy_until = Some(busy_until + self.time_of(bytes as u64));
        Some(now + waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(spec: &str, start: Instant) -> Impairment {
        Impairment::new(&spec.parse().unwrap(), 7, "sub-1-0", start)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn datagrams_are_told_apart() {
        assert_eq!(Class::of(&[0x80, 0xe0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]), Class::Rtp);
        assert_eq!(Class::of(&[0x80, 200, 0, 0]), Class::Rtcp);
        assert_eq!(Class::of(&[0x16, 0xfe, 0xfd]), Class::Other);
        assert_eq!(Class::of(&[0x80, 0x60, 0]), Class::Other);
        assert_eq!(Class::of(&[]), Class::Other);
    }

    #[test]
    fn an_outage_takes_everything_and_ends() {
        let start = Instant::now();
        let mut model = model("outage=2s@10s", start);
        let at = |ms: u32| start + ms * MS;
        for class in [Class::Rtp, Class::Rtcp, Class::Other] {
            assert_eq!(model.decide(at(9_999), class, 100), Fate::untouched(at(9_999)));
            assert_eq!(model.decide(at(10_000), class, 100), Fate::Drop);
            assert_eq!(model.decide(at(11_999), class, 100), Fate::Drop);
            assert_eq!(model.decide(at(12_000), class, 100), Fate::untouched(at(12_000)));
        }
        let counts = ImpairCounters { dropped: 2, other_dropped: 4, ..ImpairCounters::default() };
        assert_eq!(model.counts(), counts);
        model.reset_counts();
        assert_eq!(model.counts(), ImpairCounters::default());
    }

    #[test]
    fn a_cut_off_is_an_outage_from_now_on() {
        let start = Instant::now();
        let mut model = Impairment::none(start);
        let at = |ms: u32| start + ms * MS;
        let fate = |model: &mut Impairment, ms| model.decide(at(ms), Class::Rtp, 100);
        assert_eq!(fate(&mut model, 0), Fate::untouched(at(0)));
        model.cut_off(at(100), at(200));
        assert_eq!(fate(&mut model, 99), Fate::untouched(at(99)), "it came before");
        assert_eq!(fate(&mut model, 100), Fate::Drop);
        assert_eq!(model.decide(at(199), Class::Other, 100), Fate::Drop);
        assert_eq!(fate(&mut model, 200), Fate::untouched(at(200)));
        assert!(model.arrives(at(99), Class::Rtp) && !model.arrives(at(150), Class::Rtp));
        model.cut_off(at(300), at(400));
        assert_eq!(fate(&mut model, 150), Fate::untouched(at(150)), "the later one is in force");
        let counts = ImpairCounters { dropped: 2, other_dropped: 1, ..ImpairCounters::default() };
        assert_eq!(model.counts(), counts);
    }

    #[test]
    fn loss_leaves_the_connection_alone() {
        let now = Instant::now();
        let mut model = model("loss=100%", now);
        assert_eq!(model.decide(now, Class::Rtp, 100), Fate::Drop);
        assert_eq!(model.decide(now, Class::Rtcp, 100), Fate::Drop);
        assert_eq!(model.decide(now, Class::Other, 100), Fate::untouched(now));
    }

    #[test]
    fn a_rate_lets_its_bits_pass_and_drops_what_would_wait_too_long() {
        let start = Instant::now();
        let mut model = model("rate=1Mbps", start);
        // 2 Mbps for two seconds: 1,250 bytes each 5 ms.
        let (mut passed, mut last) = (0u32, start);
        for packet in 0..400 {
            let now = start + 5 * packet * MS;
            if let Fate::Deliver { at, .. } = model.decide(now, Class::Rtp, 1_250) {
                assert!(at >= last && at - now <= RATE_QUEUE_MAX);
                (passed, last) = (passed + 1, at);
            }
        }
        // 1 Mbps is 100 packets a second; the bucket and the queue add what is under way.
        assert!((200..=230).contains(&passed), "{passed}");
        assert_eq!(u64::from(passed) + model.counts().dropped, 400);
        assert!(last - start >= 1_900 * MS);
    }

    #[test]
    fn a_rate_of_a_span_holds_only_in_it() {
        let start = Instant::now();
        let mut model = model("rate=8kbps,rate_span=1s@2s,rate_span=1s@4s", start);
        let mut dropped = Vec::new();
        for second in 0..6 {
            let before = model.counts().dropped;
            for packet in 0..50 {
                model.decide(start + 1_000 * second * MS + 20 * packet * MS, Class::Rtp, 1_000);
            }
            dropped.push(model.counts().dropped - before > 40);
        }
        assert_eq!(dropped, [false, false, true, false, true, false]);
    }

    #[test]
    fn a_delay_moves_each_packet_by_itself() {
        let now = Instant::now();
        let mut model = model("delay=50ms", now);
        for ms in [0, 1, 1, 7] {
            let now = now + ms * MS;
            let fate = model.decide(now, Class::Rtp, 100);
            assert_eq!(fate, Fate::Deliver { at: now + 50 * MS, twice: false, reordered: false });
        }
        assert_eq!(model.counts().delayed, 4);
        let sent = now + 8 * MS;
        let fate = model.decide(sent, Class::Rtp, 100);
        assert_eq!(model.overflowed(Class::Rtp, sent, fate, false), Fate::Drop);
        assert_eq!((model.counts().delayed, model.counts().dropped), (4, 1));
    }

    #[test]
    fn a_second_copy_that_finds_no_room_is_not_counted() {
        let now = Instant::now();
        let mut model = model("delay=50ms,duplicate=100%", now);
        let fate = model.decide(now, Class::Rtp, 100);
        assert!(matches!(fate, Fate::Deliver { twice: true, .. }));
        let fate = model.overflowed(Class::Rtp, now, fate, true);
        assert_eq!(fate, Fate::Deliver { at: now + 50 * MS, twice: false, reordered: false });
        let counted = model.counts();
        assert_eq!((counted.delayed, counted.duplicated, counted.dropped), (1, 0, 0));
        let fate = model.decide(now, Class::Rtp, 100);
        assert_eq!(model.overflowed(Class::Rtp, now, fate, false), Fate::Drop);
        let counted = model.counts();
        assert_eq!((counted.delayed, counted.duplicated, counted.dropped), (1, 0, 1));
    }
}
