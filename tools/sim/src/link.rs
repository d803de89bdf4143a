//! One direction of the way between a client and the SFU. What it does to a datagram is drawn from the
//! seed, the link, the datagram's class and its number in that class alone: how often a handshake
//! repeats itself, or how long a signature is, moves nothing else.

use std::time::{Duration, Instant};

/// Bytes that a datagram of a handshake counts for: signatures differ in length from run to run.
const HANDSHAKE_BYTES: usize = 400;
/// Bytes of headers below.
const HEADER_BYTES: usize = 28;

/// What a datagram is, by its first bytes (RFC 7983, RFC 5761).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// STUN.
    Stun,
    /// DTLS.
    Dtls,
    /// RTP.
    Rtp,
    /// RTCP.
    Rtcp,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stun, Self::Dtls, Self::Rtp, Self::Rtcp];

    /// Of this datagram.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        match inner(datagram) {
            [0..=3, ..] => Self::Stun,
            [128..=191, second, ..] if (192..=223).contains(second) => Self::Rtcp,
            [128..=191, ..] => Self::Rtp,
            _ => Self::Dtls,
        }
    }
}

/// What a TURN channel carries is what it is (RFC 8656 §12.4); all else is itself.
#[must_use]
pub fn inner(datagram: &[u8]) -> &[u8] {
    match datagram {
        [64..=79, _, high, low, rest @ ..] => {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            rest.get(..len).unwrap_or(rest)
        }
        _ => datagram,
    }
}

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Every datagram is so long under way.
    pub delay: Duration,
    /// And up to so much longer, without overtaking.
    pub jitter: Duration,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Lost datagrams in a row on average; the share stays.
    pub burst: f64,
    /// Share of datagrams that come twice.
    pub duplicate: f64,
    /// Share of datagrams that are held back so that later ones overtake them.
    pub reorder: f64,
    /// Bits a second that fit; 0 is any number.
    pub rate_bps: u64,
    /// Longest RTP and RTCP datagrams that pass, in bytes; 0 is any.
    pub mtu: usize,
    /// Nothing passes.
    pub cut: bool,
}

impl Conditions {
    /// A way without faults.
    #[must_use]
    pub fn clean(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: 1.0,
            duplicate: 0.0,
            reorder: 0.0,
            rate_bps: 0,
            mtu: 0,
            cut: false,
        }
    }
}

/// How long what is to be overtaken is held back.
pub const HELD_BACK: Duration = Duration::from_millis(25);
/// What waits at most for a link with a rate; the rest is lost, as at the end of a full queue.
pub const QUEUE_MAX: Duration = Duration::from_millis(200);

/// What became of datagrams of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Book {
    /// Put on the link.
    pub sent: u64,
    /// Copies that the link made.
    pub copied: u64,
    /// Lost on it, for whatever reason.
    pub lost: u64,
    /// Came out of it.
    pub delivered: u64,
    /// Came out where nobody is any more.
    pub stray: u64,
}

impl Book {
    /// Still under way.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        (self.sent + self.copied).saturating_sub(self.lost + self.delivered + self.stray)
    }
}

/// One direction.
#[derive(Debug)]
pub struct Link {
    seed: u64,
    /// What it does now.
    pub conditions: Conditions,
    numbers: [u64; 4],
    /// The class's latest datagram was lost, so the next one is too, by the length of bursts.
    bad: [bool; 4],
    /// Latest arrival: nothing overtakes by jitter.
    latest: Option<Instant>,
    /// When the last bit is through.
    busy_until: Option<Instant>,
    /// By [`Class::ALL`].
    pub books: [Book; 4],
}

impl Link {
    /// One that draws from this seed.
    #[must_use]
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            seed,
            conditions,
            numbers: [0; 4],
            bad: [false; 4],
            latest: None,
            busy_until: None,
            books: [Book::default(); 4],
        }
    }

    /// The book of a class.
    #[must_use]
    pub fn book(&self, class: Class) -> Book {
        self.books[class as usize]
    }

    /// The same, to be written.
    pub fn book_mut(&mut self, class: Class) -> &mut Book {
        &mut self.books[class as usize]
    }

    /// A datagram goes in; when it comes out, if it does, and when its copy.
    pub fn send(&mut self, now: Instant, datagram: &[u8]) -> [Option<Instant>; 2] {
        let class = Class::of(datagram);
        let index = class as usize;
        self.numbers[index] += 1;
        let mut rng = fastrand::Rng::with_seed(
            self.seed ^ ((index as u64 + 1) << 56) ^ self.numbers[index].wrapping_mul(0x9e37_79b9),
        );
        // The first numbers of neighbouring seeds are alike.
        rng.u64(..);
        let draws: [f64; 5] = std::array::from_fn(|_| rng.f64());
        self.books[index].sent += 1;
        let is_media = matches!(class, Class::Rtp | Class::Rtcp);
        let Conditions { mtu, cut, .. } = self.conditions;
        let too_long = mtu > 0 && is_media && datagram.len() > mtu;
        let bytes = if is_media { datagram.len() } else { HANDSHAKE_BYTES };
        if cut || too_long || self.loses(index, draws[0]) {
            self.books[index].lost += 1;
            return [None, None];
        }
        let Some(through) = self.queue(now, bytes + HEADER_BYTES) else {
            self.books[index].lost += 1;
            return [None, None];
        };
        let Conditions { delay, jitter, duplicate, reorder, .. } = self.conditions;
        let mut at = through + delay + jitter.mul_f64(draws[1]);
        if draws[2] < reorder {
            at += HELD_BACK;
        } else {
            at = self.latest.map_or(at, |latest| at.max(latest));
            self.latest = Some(at);
        }
        let copy = (draws[3] < duplicate).then(|| {
            self.books[index].copied += 1;
            at + HELD_BACK.mul_f64(draws[4])
        });
        [Some(at), copy]
    }

    /// Gilbert's model: bursts end by chance, and begin so seldom that the share holds.
    fn loses(&mut self, class: usize, draw: f64) -> bool {
        let Conditions { loss, burst, .. } = self.conditions;
        let ends = 1.0 / burst.max(1.0);
        let begins = loss * ends / (1.0 - loss).max(1e-9);
        self.bad[class] = loss > 0.0
            && match self.bad[class] && burst > 1.0 {
                true => draw >= ends,
                false if burst > 1.0 => draw < begins,
                false => draw < loss,
            };
        self.bad[class]
    }

    /// When the last bit of it has left; `None` if the queue is full.
    fn queue(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.conditions.rate_bps == 0 {
            return Some(now);
        }
        let from = self.busy_until.map_or(now, |until| until.max(now));
        if from - now > QUEUE_MAX {
            return None;
        }
        let nanoseconds = bytes as u64 * 8 * 1_000_000_000 / self.conditions.rate_bps;
        let until = from + Duration::from_nanos(nanoseconds);
        self.busy_until = Some(until);
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTP: [u8; 100] = {
        let mut packet = [0; 100];
        packet[0] = 0x80;
        packet
    };

    fn link(change: impl FnOnce(&mut Conditions)) -> Link {
        let mut conditions = Conditions::clean(Duration::from_millis(10));
        change(&mut conditions);
        Link::new(7, conditions)
    }

    #[test]
    fn a_share_is_lost_alone_or_in_bursts() {
        for burst in [1.0, 5.0] {
            let mut link = link(|it| (it.loss, it.burst) = (0.1, burst));
            let now = Instant::now();
            let lost: Vec<bool> = (0..20_000).map(|_| link.send(now, &RTP)[0].is_none()).collect();
            let count = lost.iter().filter(|lost| **lost).count();
            let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            let length = count as f64 / bursts as f64;
            assert!((1_600..2_400).contains(&count), "{count} of 20,000 at bursts of {burst}");
            let mean = if burst > 1.0 { burst } else { 1.0 / 0.9 };
            assert!((mean * 0.8..mean * 1.2).contains(&length), "{length} for {mean}");
            assert_eq!(link.book(Class::Rtp).lost, count as u64);
        }
    }

    #[test]
    fn what_other_classes_do_moves_nothing() {
        let now = Instant::now();
        let fates = |handshakes: usize| {
            let mut link = link(|it| {
                (it.loss, it.duplicate, it.reorder) = (0.2, 0.1, 0.1);
                it.jitter = Duration::from_millis(5);
            });
            (0..handshakes).for_each(|_| _ = link.send(now, &[22; 60]));
            (0..200)
                .map(|n| link.send(now + Duration::from_millis(n), &RTP))
                .skip(20)
                .collect::<Vec<_>>()
        };
        assert_eq!(fates(0), fates(9));
    }

    #[test]
    fn a_rate_delays_and_a_full_queue_loses() {
        // 128 bytes with headers: 1,024 bits, so 10 ms each.
        let mut link = link(|it| it.rate_bps = 102_400);
        let now = Instant::now();
        let out: Vec<_> = (0..40).map(|_| link.send(now, &RTP)[0]).collect();
        let ms = |n| Some(now + Duration::from_millis(n));
        assert_eq!((out[0], out[1], out[20]), (ms(20), ms(30), ms(220)));
        assert_eq!((out[21], out[39]), (None, None));
        assert_eq!(link.book(Class::Rtp).lost, 19);
    }

    #[test]
    fn only_media_is_too_long_and_only_what_is_held_back_is_overtaken() {
        let mut link = link(|it| it.mtu = 99);
        let now = Instant::now();
        assert_eq!(link.send(now, &RTP)[0], None);
        assert!(link.send(now, &[22; 100])[0].is_some());
        let mut link = link_reordering();
        let mut out: Vec<Instant> = Vec::new();
        for n in 0..100 {
            out.extend(link.send(now + Duration::from_millis(n * 5), &RTP)[0]);
        }
        let overtaken = out.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((5..50).contains(&overtaken), "{overtaken}");
    }

    fn link_reordering() -> Link {
        link(|it| (it.reorder, it.jitter) = (0.2, Duration::from_millis(20)))
    }
}
