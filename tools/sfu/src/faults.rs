//! Faults of signalling and media that no network makes: refused joins, stalls, and the like.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stampede_impair::{Rng, Window, seeded};

/// What the SFU does wrong on purpose, beside the impairments of single subscribers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SfuFaults {
    /// Share of joins answered with HTTP 503, 0.0 to 1.0. Spread evenly over the joins, so that
    /// 10 % is every tenth one, and the first is refused only from 100 % on.
    pub refuse_joins: f64,
    /// Spans since the start of the SFU in which no signalling message is read or written; media
    /// goes on.
    pub stalls: Vec<Window>,
    /// Keyframe requests are not passed on, and no video keyframe is taken for one, so that no
    /// subscriber's video ever starts.
    pub withhold_keyframes: bool,
    /// Share of RTP packets to subscribers before which a broken datagram is sent too: cut short,
    /// random bytes, or with a wrong authentication tag, in turn. 0.0 to 1.0.
    pub malformed: f64,
    /// Share of publishers' RTP packets dropped before anything counts them as received, so that
    /// they are missing in the receiver reports; 0.0 to 1.0.
    pub drop_upstream: f64,
    /// Share of data messages dropped on their way to each client, whatever channel they came over;
    /// 0.0 to 1.0.
    pub drop_data: f64,
}

/// Picks every n-th join.
#[derive(Debug)]
pub(crate) struct Refusals {
    share: f64,
    credit: f64,
}

impl Refusals {
    pub(crate) fn new(share: f64) -> Self {
        Self { share, credit: 0.0 }
    }

    /// Whether the next join is refused.
    pub(crate) fn next(&mut self) -> bool {
        self.credit += self.share;
        // Sums of decimal shares miss 1 by a hair.
        let refused = self.credit > 1.0 - 1e-9;
        if refused {
            self.credit -= 1.0;
        }
        refused
    }
}

/// Spans without signalling.
#[derive(Debug, Clone)]
pub(crate) struct Stalls {
    start: Instant,
    windows: Vec<Window>,
}

impl Stalls {
    pub(crate) fn new(start: Instant, windows: Vec<Window>) -> Self {
        Self { start, windows }
    }

    /// How much of the stall is left at this moment; zero outside of one.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.start);
        let within = self.windows.iter().filter(|window| window.holds(since));
        within.map(|window| window.end() - since).max().unwrap_or_default()
    }

    /// Waits for the end of the stall, if there is one.
    pub(crate) async fn wait(&self) {
        loop {
            let left = self.left(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Makes broken datagrams out of good ones.
#[derive(Debug)]
pub(crate) struct Malformer {
    share: f64,
    rng: Rng,
    made: u64,
    buffer: Vec<u8>,
}

/// Longest datagram of random bytes.
const GARBAGE_BYTES_MAX: usize = 200;

impl Malformer {
    /// `None` when nothing is to be broken.
    pub(crate) fn new(share: f64, seed: u64) -> Option<Self> {
        let rng = seeded(seed, "malformed");
        (share > 0.0).then(|| Self { share, rng, made: 0, buffer: Vec::new() })
    }

    /// A broken datagram to send before this RTP packet, if it is its turn.
    pub(crate) fn spoil(&mut self, packet: &[u8]) -> Option<&[u8]> {
        if self.rng.f64() >= self.share || packet.is_empty() {
            return None;
        }
        self.made += 1;
        self.buffer.clear();
        match self.made % 3 {
            0 => {
                let cut = self.below(packet.len());
                self.buffer.extend_from_slice(&packet[..cut.max(1)]);
            }
            1 => {
                for _ in 0..=self.below(GARBAGE_BYTES_MAX) {
                    let byte = self.rng.u8(..);
                    self.buffer.push(byte);
                }
            }
            _ => {
                self.buffer.extend_from_slice(packet);
                if let Some(last) = self.buffer.last_mut() {
                    *last = !*last;
                }
            }
        }
        Some(&self.buffer)
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.usize(..end.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_refusals_is_exact() {
        for (share, refused) in [(0.0, 0), (0.1, 100), (0.25, 250), (0.5, 500), (1.0, 1_000)] {
            let mut refusals = Refusals::new(share);
            let first = refusals.next();
            assert_eq!(first, share == 1.0);
            let rest = (1..1_000).filter(|_| refusals.next()).count();
            assert_eq!(rest + usize::from(first), refused, "{share}");
        }
    }

    #[test]
    fn a_stall_has_a_beginning_and_an_end() {
        let start = Instant::now();
        let stalls = Stalls::new(start, vec!["2s@1s".parse().unwrap()]);
        let left = |ms| stalls.left(start + Duration::from_millis(ms)).as_millis();
        assert_eq!(
            (left(0), left(999), left(1_000), left(2_500), left(3_000)),
            (0, 0, 2000, 500, 0)
        );
    }

    #[test]
    fn broken_datagrams_are_broken_in_three_ways() {
        assert!(Malformer::new(0.0, 1).is_none());
        let packet: Vec<u8> = (0..100).map(|byte| byte | 0x80).collect();
        let mut malformer = Malformer::new(1.0, 1).unwrap();
        for round in 0..300 {
            let broken = malformer.spoil(&packet).unwrap();
            assert!(!broken.is_empty() && broken != packet.as_slice(), "{round}");
            match round % 3 {
                0 => assert!(broken.len() <= GARBAGE_BYTES_MAX),
                1 => assert_eq!(broken[..99], packet[..99]),
                _ => assert!(broken.len() < 100 && packet.starts_with(broken)),
            }
        }
        let mut malformer = Malformer::new(0.1, 1).unwrap();
        let made = (0..10_000).filter(|_| malformer.spoil(&packet).is_some()).count();
        assert!((900..1_100).contains(&made), "{made}");
    }
}
