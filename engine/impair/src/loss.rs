//! Loss alone and in bursts.

use fastrand::Rng;

/// Decides packet by packet what is lost: independently, or by Gilbert-Elliott's model in its
/// simple form (all is lost in the bad state, nothing in the good one).
#[derive(Debug, Clone)]
pub struct Loss {
    rng: Rng,
    enter: f64,
    leave: f64,
    independent: Option<f64>,
    bad: bool,
}

impl Loss {
    /// `share` of packets (0 to 1) in the long run, in bursts of `burst_packets` on average; 0 and
    /// 1 mean independent losses. `None` when nothing is to be lost.
    #[must_use]
    pub fn new(share: f64, burst_packets: u32, rng: Rng) -> Option<Self> {
        if share <= 0.0 {
            return None;
        }
        let leave = 1.0 / f64::from(burst_packets.max(1));
        // In the long run the share of bad is enter / (enter + leave).
        let enter = if share < 1.0 { leave * share / (1.0 - share) } else { 1.0 };
        let independent = (burst_packets <= 1 || share >= 1.0).then_some(share);
        Some(Self { rng, enter, leave, independent, bad: false })
    }

    /// Whether the next packet is lost.
    pub fn loses(&mut self) -> bool {
        let draw = self.rng.f64();
        if let Some(share) = self.independent {
            return draw < share;
        }
        self.bad = if self.bad { draw >= self.leave } else { draw < self.enter };
        self.bad
    }
}
