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

/// 2^64 over the golden ratio: multiples of it lie far apart.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

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
        let turn = unix_ns / PERIOD_NS;
        // Spread, so that the turns of another seed are no later ones of this; forked, because
        // generators of seeds that are alike begin alike.
        let seed = self.seed.wrapping_add(turn.wrapping_mul(GOLDEN_RATIO));
        let mut rng = fastrand::Rng::with_seed(seed).fork();
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

    #[test]
    fn rooms_with_neighbouring_seeds_take_turns_of_their_own() {
        let speakers = 8;
        let turns = |seed, first: u64| -> Vec<u32> {
            let at = |turn: u64| (first + turn) * PERIOD_NS;
            let speaks = |turn, speaker| SpeakingTurns { speaker, speakers, seed }.speaks(at(turn));
            (0..64).filter_map(|turn| (0..speakers).find(|one| speaks(turn, *one))).collect()
        };
        for shift in 0..4 {
            let (one, other) = (turns(7, 10 + shift), turns(8, 10));
            let equal = one.iter().zip(&other).filter(|(one, other)| one == other).count();
            assert!(equal < 24, "{equal} of 64 turns are those of the next room, {shift} later");
        }
    }
}
