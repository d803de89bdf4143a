//! Whose turn it is to speak: `lk perf load-test --simulate-speakers`.
//!
//! As in livekit-cli (pkg/loadtester/speakersimulator.go): somebody drawn at random speaks for five
//! seconds, then there is a second's pause. The Go tester asks the server to pretend; here the
//! audio level of the packets themselves changes (RFC 6464), so that the server's own detection
//! works: louder than −35 dBov for 40 % of 400 ms (livekit pkg/config, `audio`).

/// How long a turn lasts.
const TURN_NS: u64 = 5_000_000_000;
/// A turn and the pause after it.
const PERIOD_NS: u64 = 6_000_000_000;

/// One of several speakers who take turns by the wall clock: all that share it agree without a
/// word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeakingTurns {
    /// Which of them this one is, from 0.
    pub speaker: u32,
    /// How many there are.
    pub speakers: u32,
    /// The same for all of them.
    pub seed: u64,
}

impl SpeakingTurns {
    /// Whether this one speaks at this moment, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn speaks(&self, unix_ns: u64) -> bool {
        if unix_ns % PERIOD_NS >= TURN_NS {
            return false;
        }
        // Forked, because generators of neighbouring seeds begin alike.
        let turn = unix_ns / PERIOD_NS;
        let mut rng = fastrand::Rng::with_seed(self.seed.wrapping_add(turn)).fork();
        rng.u32(..self.speakers.max(1)) == self.speaker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speaks_at_a_time_with_pauses_and_everybody_gets_turns() {
        let all = [0, 1, 2].map(|speaker| SpeakingTurns { speaker, speakers: 3, seed: 7 });
        let mut turns = [0; 3];
        for turn in 0..300u64 {
            let middle = turn * PERIOD_NS + TURN_NS / 2;
            let who: Vec<_> = all.iter().filter(|one| one.speaks(middle)).collect();
            let [one] = who[..] else { panic!("{who:?} at turn {turn}") };
            turns[one.speaker as usize] += 1;
            let (first, last) = (turn * PERIOD_NS, turn * PERIOD_NS + TURN_NS - 1);
            assert!(one.speaks(first) && one.speaks(last), "a whole turn");
            assert!(!all.iter().any(|one| one.speaks(last + 1)), "then a pause");
        }
        assert!(turns.iter().all(|count| (60..140).contains(count)), "{turns:?}");
    }
}
