//! Audiences: how subscribers arrive, how long each stays, and who comes back.
//!
//! An [`Audience`] is a plan that whoever plays it asks. All of it is drawn from the run's seed, and
//! from what does not differ from run to run of a participant's identity.
//!
//! ```
//! use std::time::Duration;
//!
//! use stampede_scenario::{Arrival, Audience};
//!
//! let audience = Audience { arrival: Arrival::Poisson, ..Audience::default() };
//! let arrivals = audience.arrivals(1_000, 50.0, 7);
//! assert!(arrivals.is_sorted() && arrivals[999] > Duration::from_secs(15));
//! assert_eq!(audience.visit(7, "sub-1-0", 0).stays, None);
//! ```

use std::time::Duration;

use stampede_impair::{Rng, seeded, stable_name};
use stampede_report::Failure;

use crate::Stage;

/// Mean absence before somebody comes back, unless it is said.
const AWAY_DEFAULT: Duration = Duration::from_secs(2);

/// How the audience is asked for; `None` is what was not given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AudienceDraft {
    /// Mean time that a subscriber stays.
    pub stay: Option<Duration>,
    /// Share of those who left that come back.
    pub rejoin: Option<f64>,
    /// Mean time before they do.
    pub away: Option<Duration>,
    /// How subscribers arrive.
    pub arrival: Arrival,
}

/// When the joins of a ramp are due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Arrival {
    /// Evenly, at --num-per-second.
    #[default]
    Constant,
    /// At random and independently of each other, at --num-per-second in the mean.
    Poisson,
    /// All at once.
    Flash,
}

impl Arrival {
    /// As written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
            Self::Flash => "flash",
        }
    }
}

/// How subscribers come and go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Audience {
    /// Mean time that a subscriber stays; `None` is to the end.
    pub stay: Option<Duration>,
    /// Share of those who left that come back, 0 to 1.
    pub rejoin: f64,
    /// Mean time before they do.
    pub away: Duration,
    /// How they arrive.
    pub arrival: Arrival,
}

impl Default for Audience {
    /// Everybody arrives evenly and stays.
    fn default() -> Self {
        Self { stay: None, rejoin: 0.0, away: AWAY_DEFAULT, arrival: Arrival::Constant }
    }
}

/// One visit of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// How long it stays once it is there; `None` is to the end.
    pub stays: Option<Duration>,
    /// How long after it left it comes back; `None` is never.
    pub returns_after: Option<Duration>,
}

impl Audience {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(draft: &AudienceDraft, stages: &[Stage]) -> Result<Self, Failure> {
        let AudienceDraft { stay, rejoin, away, arrival } = *draft;
        let staged = !stages.is_empty();
        let wrong = if staged && stay.is_some() {
            "--stay says who leaves when, and so does --stage: leave one out"
        } else if staged && arrival != Arrival::Constant {
            "--arrival says when subscribers join, and so does --stage: leave one out"
        } else if rejoin.is_some() && stay.is_none() {
            "--rejoin is for those who left, but nobody leaves: add --stay"
        } else if away.is_some() && rejoin.is_none() {
            "--away is for those who come back, but nobody does: add --rejoin"
        } else {
            let (rejoin, away) = (rejoin.unwrap_or(0.0), away.unwrap_or(AWAY_DEFAULT));
            return Ok(Self { stay, rejoin, away, arrival });
        };
        Err(Failure::config(wrong))
    }

    /// When each of `count` joins is due after the first could be: in ascending order, and
    /// `per_second` of them a second in the mean if they are not all at once.
    #[must_use]
    pub fn arrivals(&self, count: usize, per_second: f64, seed: u64) -> Vec<Duration> {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        match self.arrival {
            Arrival::Flash => vec![Duration::ZERO; count],
            Arrival::Constant => {
                (0..count).map(|number| seconds(number as f64 / per_second)).collect()
            }
            Arrival::Poisson => {
                let mut rng = seeded(seed, "arrivals");
                let mut at = 0.0;
                (0..count)
                    .map(|_| {
                        at += exponential(&mut rng) / per_second;
                        seconds(at)
                    })
                    .collect()
            }
        }
    }

    /// The `number`-th visit of this subscriber, from 0. What run and try added to its identity
    /// does not matter, so that the same seed means the same for the same one.
    #[must_use]
    pub fn visit(&self, seed: u64, identity: &str, number: u32) -> Visit {
        let Some(stay) = self.stay else { return Visit { stays: None, returns_after: None } };
        let mut rng = seeded(seed, &format!("{} visit {number}", stable_name(identity)));
        let stays = stay.mul_f64(exponential(&mut rng));
        let returns = rng.f64() < self.rejoin;
        let away = self.away.mul_f64(exponential(&mut rng));
        Visit { stays: Some(stays), returns_after: returns.then_some(away) }
    }
}

/// Exponentially distributed with a mean of 1; never more than 37.
fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn coming_and_going() -> Audience {
        Audience { stay: Some(30 * S), rejoin: 0.25, away: 2 * S, arrival: Arrival::Constant }
    }

    fn visits(audience: &Audience, seed: u64, count: u32) -> Vec<Visit> {
        let identities = (0..count).map(|number| format!("stampede-0123abcd-sub-1-{number}"));
        identities.map(|identity| audience.visit(seed, &identity, 0)).collect()
    }

    #[test]
    fn arrivals_are_even_random_or_at_once() {
        let arrivals = |arrival, count, per_second, seed| {
            Audience { arrival, ..Audience::default() }.arrivals(count, per_second, seed)
        };
        let even = arrivals(Arrival::Constant, 4, 2.0, 1);
        assert_eq!(
            even.iter().map(Duration::as_millis).collect::<Vec<_>>(),
            [0, 500, 1_000, 1_500]
        );
        assert_eq!(arrivals(Arrival::Flash, 3, 2.0, 1), [Duration::ZERO; 3]);
        let random = arrivals(Arrival::Poisson, 10_000, 50.0, 7);
        assert!(random.is_sorted());
        let last_s = random[9_999].as_secs_f64();
        assert!((195.0..205.0).contains(&last_s), "10,000 at 50 a second take {last_s} s");
        // Counts of a Poisson process in spans of the same length vary by as much as their mean.
        let mut counts = [0.0; 190];
        for at in &random {
            if let Some(count) = counts.get_mut(at.as_secs() as usize) {
                *count += 1.0;
            }
        }
        let mean = counts.iter().sum::<f64>() / 190.0;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 190.0;
        assert!((0.7..1.3).contains(&(variance / mean)), "{variance} of {mean}");
        assert_eq!(arrivals(Arrival::Poisson, 10_000, 50.0, 7), random);
        assert_ne!(arrivals(Arrival::Poisson, 10_000, 50.0, 8), random);
        for arrival in [Arrival::Constant, Arrival::Poisson, Arrival::Flash] {
            assert!(arrivals(arrival, 0, 2.0, 1).is_empty());
        }
    }

    #[test]
    fn visits_last_as_long_as_was_asked_in_the_mean() {
        let visits = visits(&coming_and_going(), 7, 10_000);
        let mean_s = |times: Vec<Duration>| {
            times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64
        };
        let stays: Vec<_> = visits.iter().filter_map(|visit| visit.stays).collect();
        // Of an exponential distribution a share of 1/e stays longer than the mean.
        let long = stays.iter().filter(|stay| **stay > 30 * S).count();
        assert_eq!(stays.len(), 10_000);
        assert!((3_500..3_860).contains(&long), "{long}");
        let stay_s = mean_s(stays);
        assert!((28.5..31.5).contains(&stay_s), "{stay_s}");
        let aways: Vec<_> = visits.iter().filter_map(|visit| visit.returns_after).collect();
        assert!((2_350..2_650).contains(&aways.len()), "{}", aways.len());
        let away_s = mean_s(aways);
        assert!((1.85..2.15).contains(&away_s), "{away_s}");
    }

    #[test]
    fn a_visit_repeats_with_the_seed_whatever_the_run_is_called() {
        let audience = coming_and_going();
        let first = audience.visit(7, "stampede-0123abcd-sub-1-3", 0);
        for identity in ["sub-1-3", "stampede-89abcdef-sub-1-3", "stampede-89abcdef-sub-1-3-try2"] {
            assert_eq!(audience.visit(7, identity, 0), first, "{identity}");
        }
        for (seed, identity, number) in [(8, "sub-1-3", 0), (7, "sub-1-4", 0), (7, "sub-1-3", 1)] {
            assert_ne!(audience.visit(seed, identity, number), first, "{seed} {identity} {number}");
        }
    }

    #[test]
    fn who_is_to_stay_stays_and_who_is_to_come_back_does() {
        let forever = Visit { stays: None, returns_after: None };
        assert!(visits(&Audience::default(), 7, 100).iter().all(|visit| *visit == forever));
        let returning = |rejoin| {
            let visits = visits(&Audience { rejoin, ..coming_and_going() }, 7, 1_000);
            visits.iter().filter(|visit| visit.returns_after.is_some()).count()
        };
        assert_eq!((returning(0.0), returning(1.0)), (0, 1_000));
    }

    #[test]
    fn contradictions_are_refused() {
        let draft = AudienceDraft::default;
        let stages = ["10s:5".parse().unwrap()];
        for (draft, stages, why) in [
            (AudienceDraft { stay: Some(S), ..draft() }, &stages[..], "--stay"),
            (AudienceDraft { arrival: Arrival::Poisson, ..draft() }, &stages, "--arrival"),
            (AudienceDraft { rejoin: Some(0.5), ..draft() }, &[], "add --stay"),
            (AudienceDraft { stay: Some(S), away: Some(S), ..draft() }, &[], "add --rejoin"),
        ] {
            let error = Audience::new(&draft, stages).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(Audience::new(&draft(), &stages).unwrap(), Audience::default());
        let all = AudienceDraft { stay: Some(30 * S), rejoin: Some(0.25), ..draft() };
        assert_eq!(Audience::new(&all, &[]).unwrap(), coming_and_going());
    }
}
