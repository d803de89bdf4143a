//! How much of what was sent arrived, and how fast (LiveKit `pkg/sfu/bwe/sendsidebwe/traffic_stats.go`,
//! whose numbers these are). Pure.

/// A share of lost packets says nothing of a shorter time.
const LOSS_SPAN_US_MIN: u64 = 100_000;
/// With fewer packets a second it says nothing either, but over a longer time fewer suffice.
const LOSS_PACKETS_PER_S_MIN: f64 = 30.0;
const LOSS_SPAN_US: u64 = 500_000;
/// How much lost packets count as time that they would have queued.
const LOSS_PENALTY: f64 = 0.25;

/// Packets that were sent in some time, and what was told of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    /// When the first was sent, and the last.
    pub(super) span_us: Option<(u64, u64)>,
    /// In how much time those that arrived were sent, and arrived.
    pub(super) send_us: i64,
    pub(super) recv_us: i64,
    pub(super) arrived: u32,
    pub(super) arrived_bytes: u64,
    pub(super) lost: u32,
}

impl Traffic {
    pub(super) fn merge(&mut self, other: &Self) {
        if let Some((from, until)) = other.span_us {
            self.spans(from, until);
        }
        self.send_us += other.send_us;
        self.recv_us += other.recv_us;
        self.arrived += other.arrived;
        self.arrived_bytes += other.arrived_bytes;
        self.lost += other.lost;
    }

    /// Something of it was sent in this time.
    pub(super) fn spans(&mut self, from: u64, until: u64) {
        let (known_from, known_until) = self.span_us.unwrap_or((from, until));
        self.span_us = Some((known_from.min(from), known_until.max(until)));
    }

    /// In how much time it was sent.
    pub(super) fn sent_in_us(&self) -> u64 {
        self.span_us.map_or(0, |(from, until)| until - from)
    }

    /// What of it the way carried, in bit/s.
    pub(super) fn carried_bps(&self) -> u64 {
        match self.sent_in_us() {
            0 => 0,
            us => (self.arrived_bytes as f64 * 8e6 / us as f64 * self.carried_share()) as u64,
        }
    }

    /// How much of what was sent in a time arrived in as much time.
    pub(super) fn carried_share(&self) -> f64 {
        let recv_us = self.recv_us as f64;
        if recv_us == 0.0 {
            return 0.0;
        }
        let penalty_us = recv_us * self.weighted_loss() * LOSS_PENALTY;
        (self.send_us as f64 / (recv_us + penalty_us)).min(1.0)
    }

    /// The share that was lost; more packets a second give it more weight.
    pub(super) fn weighted_loss(&self) -> f64 {
        let us = self.sent_in_us();
        let packets = f64::from(self.arrived + self.lost);
        if us < LOSS_SPAN_US_MIN || packets == 0.0 {
            return 0.0;
        }
        let packets_per_s = packets * 1e6 / us as f64;
        let longer_s = us.saturating_sub(LOSS_SPAN_US) as f64 / 1e6;
        if packets_per_s < LOSS_PACKETS_PER_S_MIN * (-longer_s).exp() {
            return 0.0;
        }
        f64::from(self.lost) / packets * packets_per_s.log10()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(ms: u64, recv_ms: i64, arrived: u32, lost: u32) -> Traffic {
        Traffic {
            span_us: Some((7_000, 7_000 + ms * 1_000)),
            send_us: ms as i64 * 1_000,
            recv_us: recv_ms * 1_000,
            arrived,
            arrived_bytes: u64::from(arrived) * 1_000,
            lost,
        }
    }

    #[test]
    fn what_arrives_slower_than_it_was_sent_was_not_all_carried() {
        assert_eq!(traffic(1_000, 1_000, 100, 0).carried_bps(), 800_000);
        assert_eq!(traffic(1_000, 2_000, 100, 0).carried_bps(), 400_000);
        assert_eq!(traffic(1_000, 500, 100, 0).carried_bps(), 800_000, "never more than arrived");
        assert_eq!(traffic(0, 0, 1, 0).carried_bps(), 0);
        // A tenth of 100 packets a second weighs 0.2, and counts as a twentieth of the time.
        let lossy = traffic(1_000, 1_000, 90, 10);
        assert!((lossy.weighted_loss() - 0.2).abs() < 1e-9);
        assert_eq!(lossy.carried_bps(), (720_000.0 / 1.05) as u64);
    }

    #[test]
    fn loss_of_few_packets_or_in_a_moment_says_nothing() {
        assert_eq!(traffic(90, 90, 10, 10).weighted_loss(), 0.0);
        assert_eq!(traffic(500, 500, 7, 7).weighted_loss(), 0.0, "28 packets a second");
        assert!(traffic(2_000, 2_000, 7, 7).weighted_loss() > 0.4, "7, but for longer");
    }
}
