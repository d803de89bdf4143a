//! `--drop`, `--drop-burst` and `--delay`: short for one impairment.

use std::time::Duration;

use stampede_impair::{Spec as ImpairSpec, SpecError as ImpairSpecError};

/// A share of drops, their mean burst and a delay, as given: together short for one impairment of
/// every subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shorthand {
    /// Share of packets that are dropped.
    pub drop: Option<f64>,
    /// Mean burst of drops in packets.
    pub drop_burst: Option<u32>,
    /// How long packets are held back.
    pub delay: Option<Duration>,
}

impl Shorthand {
    /// What is given here, and of `base` what is not.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        Self {
            drop: self.drop.or(base.drop),
            drop_burst: self.drop_burst.or(base.drop_burst),
            delay: self.delay.or(base.delay),
        }
    }

    /// The impairment; `None` if nothing is dropped or held back.
    ///
    /// # Errors
    /// A burst that can't be had with this share.
    pub fn spec(self) -> Result<Option<ImpairSpec>, ImpairSpecError> {
        let (drop, delay) = (self.drop.unwrap_or(0.0), self.delay.unwrap_or_default());
        if drop <= 0.0 && delay.is_zero() {
            return Ok(None);
        }
        let burst_packets = self.drop_burst.filter(|_| drop > 0.0).unwrap_or(1);
        ImpairSpec::loss_and_delay(drop, burst_packets, delay).map(Some)
    }
}
