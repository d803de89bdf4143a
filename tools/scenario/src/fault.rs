//! Faults on a schedule: what happens to which participants when.
//!
//! A [`FaultSpec`] is a plan. It says when it fires and whom each firing hits; what is done then is
//! the run's business. Nothing here has a clock: the same seed and the same participants give the
//! same ones hit.
//!
//! ```
//! use std::time::Duration;
//!
//! use stampede_scenario::FaultSpec;
//!
//! let fault: FaultSpec = "signal_drop,every=10s,share=50%".parse()?;
//! let firings: Vec<_> = fault.firings(Duration::from_secs(25)).collect();
//! assert_eq!(firings, [Duration::from_secs(10), Duration::from_secs(20)]);
//! assert_eq!(fault.choose(7, 0, 0, &[1, 2, 3, 4]).len(), 2);
//! # Ok::<(), stampede_scenario::FaultError>(())
//! ```

mod check;
mod error;
mod grammar;
mod simulation;

use std::iter;
use std::time::Duration;

use stampede_impair::seeded;

use crate::Cohorts;

pub(crate) use check::check;
pub use error::{FaultError, FaultValueError};
pub use stampede_signaling::session::{CandidateProtocol, Simulation};

/// Most faults of a run; more is a typing error.
pub const FAULTS_MAX: usize = 32;

/// One fault, its schedule, and whom it hits. Made by parsing
/// `signal_stall,for=5s,every=30s,spread=2s,share=10%,who=subscribers,cohort=mobile`: what happens
/// stands first, the rest in any order; and written by `Display` in the same grammar without what
/// is as it would be anyway.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultSpec {
    /// What happens.
    pub kind: FaultKind,
    /// When it fires.
    pub schedule: Schedule,
    /// Those that a firing hits are hit evenly spread over this; see [`FaultSpec::offset`].
    pub spread: Duration,
    /// Whom it may hit.
    pub who: Who,
    /// If given, only those of this cohort; see [`Cohorts::holds`].
    pub cohort: Option<String>,
    /// How many of those each firing hits, above 0 to 1.
    pub share: f64,
}

/// What happens to a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Its websocket is reset (TCP RST), and nothing else.
    SignalDrop,
    /// It neither reads nor writes its websocket for a while.
    SignalStall {
        /// How long.
        length: Duration,
    },
    /// It goes on from a new UDP port, as after a change of network.
    NetworkChange,
    /// Nothing goes in or out for a while, neither signalling nor media.
    Outage {
        /// How long.
        length: Duration,
    },
    /// It leaves, and joins again.
    LeaveRejoin {
        /// How long it is away.
        pause: Duration,
    },
    /// The server is asked to move it to another room of the run (`MoveParticipant`).
    Move,
    /// The server is asked to simulate something (`SimulateScenario`).
    Simulate(Simulation),
}

impl FaultKind {
    /// It takes the websocket away, for a while or for good, and leaves the media connection alone.
    #[must_use]
    pub fn is_signal_only(self) -> bool {
        matches!(self, Self::SignalDrop | Self::SignalStall { .. })
    }

    /// Whether media that was on its way to or from a participant may be lost by it. A websocket that
    /// breaks takes none with it: the media connection goes on through resume and ICE restart.
    #[must_use]
    pub fn may_lose_media(self) -> bool {
        let breaks_nothing = matches!(
            self,
            Self::Simulate(
                Simulation::SpeakerUpdate { .. } | Simulation::SubscriberBandwidth { .. }
            )
        );
        !self.is_signal_only() && !breaks_nothing
    }
}

/// When a fault fires, counted from the start of the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Once.
    Once {
        /// When.
        at: Duration,
    },
    /// Again and again until the window ends.
    Every {
        /// When for the first time.
        first: Duration,
        /// How long after each firing the next one is.
        period: Duration,
    },
}

impl Schedule {
    /// When it fires for the first time.
    #[must_use]
    pub fn first(&self) -> Duration {
        match *self {
            Self::Once { at } => at,
            Self::Every { first, .. } => first,
        }
    }
}

/// Whom a fault may hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Subscribers.
    Subscribers,
    /// Publishers.
    Publishers,
    /// Everybody.
    All,
}

impl FaultSpec {
    /// The moments at which it fires in a measured window of this length, which end strictly before
    /// the window does.
    pub fn firings(&self, window: Duration) -> impl Iterator<Item = Duration> + use<> {
        let period = match self.schedule {
            Schedule::Once { .. } => None,
            Schedule::Every { period, .. } => Some(period),
        };
        let next = move |at: &Duration| period.and_then(|period| at.checked_add(period));
        iter::successors(Some(self.schedule.first()), next).take_while(move |at| *at < window)
    }

    /// Whether it may hit a participant that receives, publishes or both, of this part of `cohorts`.
    #[must_use]
    pub fn may_hit(&self, receives: bool, publishes: bool, cohort: u16, cohorts: &Cohorts) -> bool {
        let role = match self.who {
            Who::Subscribers => receives,
            Who::Publishers => publishes,
            Who::All => true,
        };
        role && self.cohort.as_ref().is_none_or(|name| cohorts.holds(name, cohort))
    }

    /// Whom of `present`, all of whom it may hit, its `firing`-th firing hits, in the order in which
    /// they are hit: exactly the share, rounded. Each firing of each fault of a run (`number`)
    /// draws anew, and the same seed draws the same.
    #[must_use]
    pub fn choose(&self, seed: u64, number: usize, firing: u64, present: &[usize]) -> Vec<usize> {
        let mut rng = seeded(seed, &format!("fault {number} firing {firing}"));
        let mut drawn = present.to_vec();
        let count = (self.share * drawn.len() as f64).round() as usize;
        let count = count.min(drawn.len());
        for place in 0..count {
            let other = rng.usize(place..drawn.len());
            drawn.swap(place, other);
        }
        drawn.truncate(count);
        drawn
    }

    /// How long after its firing the one at `place` of `chosen` is hit.
    #[must_use]
    pub fn offset(&self, place: usize, chosen: usize) -> Duration {
        match chosen {
            0 => Duration::ZERO,
            _ => self.spread.mul_f64(place.min(chosen) as f64 / chosen as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{CohortSize, CohortSpec};

    fn fault(text: &str) -> FaultSpec {
        text.parse().unwrap()
    }

    fn firings_s(text: &str, window_s: u64) -> Vec<f64> {
        let firings = fault(text).firings(Duration::from_secs(window_s));
        firings.map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn firings_lie_in_the_window_and_before_its_end() {
        assert_eq!(firings_s("move", 1), [0.0]);
        assert_eq!(firings_s("move,at=10s", 20), [10.0]);
        assert_eq!(firings_s("move,at=10s", 10), [0.0; 0]);
        assert_eq!(firings_s("move,every=10s", 30), [10.0, 20.0]);
        assert_eq!(firings_s("move,every=10s", 31), [10.0, 20.0, 30.0]);
        assert_eq!(firings_s("move,at=1500ms,every=2s", 8), [1.5, 3.5, 5.5, 7.5]);
        assert_eq!(firings_s("move,at=0s,every=1s", 2), [0.0, 1.0]);
        assert_eq!(firings_s("move,every=1s", 0), [0.0; 0]);
    }

    #[test]
    fn exactly_the_share_is_hit_each_time_others() {
        let present: Vec<usize> = (100..200).collect();
        for (share, of, wanted) in
            [("10%", 100, 10), ("10%", 4, 0), ("50%", 5, 3), ("0.5%", 100, 1), ("100%", 100, 100)]
        {
            let fault = fault(&format!("signal_drop,share={share}"));
            for firing in 0..50 {
                let chosen = fault.choose(7, 0, firing, &present[..of]);
                let different: HashSet<_> = chosen.iter().copied().collect();
                assert_eq!((chosen.len(), different.len()), (wanted, wanted), "{share} of {of}");
                assert!(different.iter().all(|one| present[..of].contains(one)));
            }
        }
        let fault = fault("signal_drop,share=10%");
        let first = fault.choose(7, 0, 0, &present);
        assert_eq!(fault.choose(7, 0, 0, &present), first, "the seed repeats it");
        for other in [(8, 0, 0), (7, 1, 0), (7, 0, 1)] {
            assert_ne!(fault.choose(other.0, other.1, other.2, &present), first, "{other:?}");
        }
        assert!(fault.choose(7, 0, 0, &[]).is_empty());
        // In the long run everybody is hit as often as everybody else.
        let mut hit = [0u32; 100];
        for firing in 0..1_000 {
            for one in fault.choose(7, 0, firing, &present) {
                hit[one - 100] += 1;
            }
        }
        assert!(hit.iter().all(|times| (60..150).contains(times)), "{hit:?}");
    }

    #[test]
    fn those_chosen_are_spread_evenly() {
        let fault = fault("move,spread=2s");
        let offsets: Vec<_> = (0..4).map(|place| fault.offset(place, 4).as_millis()).collect();
        assert_eq!(offsets, [0, 500, 1_000, 1_500]);
        assert_eq!(fault.offset(0, 0), Duration::ZERO);
    }

    #[test]
    fn roles_and_cohorts_bound_whom_it_may_hit() {
        let specs = [CohortSpec::new("mobile".to_owned(), CohortSize::Share(0.5))];
        let cohorts = Cohorts::new(&specs, &["cohort=10%,loss=1%".parse().unwrap()]);
        let names: Vec<_> = cohorts.all().iter().map(|cohort| cohort.name.as_str()).collect();
        assert_eq!(names, ["rest", "impair-1", "mobile", "mobile+impair-1"]);
        let hit = |text: &str| -> Vec<u16> {
            (0..4).filter(|cohort| fault(text).may_hit(true, false, *cohort, &cohorts)).collect()
        };
        assert_eq!(hit("move"), [0, 1, 2, 3]);
        assert_eq!(hit("move,who=all"), [0, 1, 2, 3]);
        assert_eq!(hit("move,who=publishers"), [0; 0]);
        assert_eq!(hit("move,cohort=mobile"), [2, 3]);
        assert_eq!(hit("move,cohort=impair-1"), [1, 3]);
        assert_eq!(hit("move,cohort=mobile+impair-1"), [3]);
        assert_eq!(hit("move,cohort=rest"), [0]);
        for (text, publisher) in [("move", false), ("move,who=publishers", true)] {
            assert_eq!(fault(text).may_hit(false, true, 0, &cohorts), publisher, "{text}");
        }
    }
}
