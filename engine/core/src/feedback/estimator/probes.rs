//! The rate of packets that are evenly apart, by which there is an estimate before a received rate is
//! believed (libwebrtc `modules/remote_bitrate_estimator/remote_bitrate_estimator_abs_send_time.cc`,
//! `ProcessClusters`): a low layer that comes first, a packet in a frame, is such a cluster.

/// Packets up to this size may be sent out of turn (libwebrtc `kMinProbePacketSize`).
pub(super) const BYTES_MIN: u32 = 200;
/// How long it goes on where there is an estimate (libwebrtc `kInitialProbingInterval`).
pub(super) const LENGTH_MS: i64 = 2_000;
/// Distances that make a cluster (libwebrtc `kMinClusterSize`).
const CLUSTER_MIN: u32 = 4;
/// Clusters after which it begins anew (libwebrtc `kExpectedNumberOfProbes`).
const CLUSTERS_MAX: usize = 3;
/// Most clusters kept where each raises the estimate, so that it does not begin anew; at the maximum it
/// does.
const CLUSTERS_KEPT_MAX: usize = 16;
/// How far from their mean a distance is another cluster's (libwebrtc `IsWithinClusterBounds`).
const OFF_MEAN_US_MIN: i64 = 2_500;
/// More than half of the distances are no shorter (libwebrtc `kMinClusterDelta`).
const APART_US_MIN: i64 = 1_000;
/// How much longer, and how much shorter, distances are on arrival if the way carries the rate (libwebrtc
/// `FindBestProbe`).
const STRETCHED_US_MAX: i64 = 2_000;
const SQUEEZED_US_MAX: i64 = 5_000;

/// The clusters so far.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// When the packet before was sent, and when it arrived.
    before: Option<(i64, i64)>,
    ended: Vec<Cluster>,
    current: Cluster,
}

/// Sums over distances between packets that are about the same.
#[derive(Debug, Clone, Copy, Default)]
struct Cluster {
    distances: u32,
    apart: u32,
    sent_us: i64,
    arrived_us: i64,
    bytes: u64,
}

impl Probes {
    /// Takes a packet: `sent` is its abs-send-time, 24 bits. The highest rate of a cluster that the way
    /// carries, in bits a second, if it is above `estimate_bps`.
    pub(super) fn packet(
        &mut self,
        sent: u32,
        arrived_us: i64,
        bytes: u32,
        estimate_bps: Option<f64>,
    ) -> Option<f64> {
        // In whole milliseconds, as libwebrtc takes them.
        let sent_us = ((i64::from(sent) * 1_000) >> 18) * 1_000;
        if let Some(before) = self.before.replace((sent_us, arrived_us)) {
            self.distance(sent_us - before.0, arrived_us - before.1, bytes);
        }
        if self.ended.len() >= CLUSTERS_KEPT_MAX {
            *self = Self::default();
        }
        let current = Some(self.current).filter(Cluster::is_whole);
        let clusters = self.ended.iter().copied().chain(current);
        let carried = clusters.clone().map_while(Cluster::carried_bps);
        let best_bps = carried.fold(0.0, f64::max);
        if best_bps > estimate_bps.unwrap_or(0.0) {
            return Some(best_bps);
        }
        if clusters.count() >= CLUSTERS_MAX {
            *self = Self::default();
        }
        None
    }

    fn distance(&mut self, sent_us: i64, arrived_us: i64, bytes: u32) {
        let current = &mut self.current;
        current.apart += u32::from(sent_us >= APART_US_MIN && arrived_us >= APART_US_MIN);
        let mean_us = current.sent_us.checked_div(current.distances.into());
        if mean_us.is_some_and(|mean_us| (sent_us - mean_us).abs() >= OFF_MEAN_US_MIN) {
            let ended = std::mem::take(current);
            self.ended.extend(Some(ended).filter(Cluster::is_whole));
        }
        current.distances += 1;
        current.sent_us += sent_us;
        current.arrived_us += arrived_us;
        current.bytes += u64::from(bytes);
    }
}

impl Cluster {
    fn is_whole(&self) -> bool {
        self.distances >= CLUSTER_MIN && self.sent_us > 0 && self.arrived_us > 0
    }

    /// Its rate, if the way carries it.
    fn carried_bps(self) -> Option<f64> {
        let count = i64::from(self.distances);
        let (sent_us, arrived_us) = (self.sent_us / count, self.arrived_us / count);
        let stretched_us = arrived_us - sent_us;
        let carries = self.apart > self.distances / 2
            && (-SQUEEZED_US_MAX..=STRETCHED_US_MAX).contains(&stretched_us);
        let bits = self.bytes / u64::from(self.distances) * 8;
        carries.then(|| bits as f64 * 1e6 / sent_us.max(arrived_us) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds as abs-send-time.
    fn sent(ms: u32) -> u32 {
        ((ms << 18) / 1_000 + 1) & 0xff_ffff
    }

    /// Packets of 500 bytes that leave and arrive then, in milliseconds.
    fn probed(packets: &[(u32, i64)], estimate_bps: Option<f64>) -> Option<f64> {
        let mut probes = Probes::default();
        let told = packets.iter().map(|&(sent_ms, arrived_ms)| {
            probes.packet(sent(sent_ms), arrived_ms * 1_000, 500, estimate_bps)
        });
        told.last().flatten()
    }

    #[test]
    fn four_even_distances_are_a_rate_if_the_way_carries_it() {
        let even = [(0, 5), (20, 25), (41, 45), (60, 66), (80, 85)];
        assert_eq!(probed(&even, None), Some(200_000.0));
        assert_eq!(probed(&even[..4], None), None);
        assert_eq!(probed(&even, Some(200_000.0)), None, "no news");
        let stretched = [(0, 5), (20, 28), (40, 51), (60, 74), (80, 97)];
        assert_eq!(probed(&stretched, None), None, "it queues");
        let together = [(0, 5), (0, 5), (0, 6), (0, 6), (0, 6), (0, 7)];
        assert_eq!(probed(&together, None), None, "no distances");
        let uneven = [(0, 5), (20, 25), (60, 65), (80, 85), (120, 125), (140, 145)];
        assert_eq!(probed(&uneven, None), None);
    }

    /// Each five packets are faster than the ones before, and all are carried.
    #[test]
    fn behind_ever_faster_clusters_it_begins_anew_too() {
        let (mut probes, mut sent_us, mut best_bps) = (Probes::default(), 0, None);
        for cluster in 0..2 * CLUSTERS_KEPT_MAX as i64 {
            let apart_us = 200_000 - 5_000 * cluster;
            for _ in 0..5 {
                sent_us += apart_us;
                let sent = ((sent_us as u64) << 18) / 1_000_000;
                let news = probes.packet(sent as u32 & 0xff_ffff, sent_us, 500, best_bps);
                best_bps = news.or(best_bps);
                assert!(probes.ended.len() < CLUSTERS_KEPT_MAX);
            }
        }
        // The last ones are 45 ms apart.
        assert!(best_bps.is_some_and(|bps| (85_000.0..95_000.0).contains(&bps)), "{best_bps:?}");
    }

    #[test]
    fn behind_three_clusters_it_begins_anew() {
        let mut probes = Probes::default();
        for at in 0..15_u32 {
            // Each five are slower than the ones before, and none of them is carried.
            let sent_ms = at * 20 + at.saturating_sub(5) * 20 + at.saturating_sub(10) * 20;
            let arrived_us = i64::from(sent_ms) * 1_500;
            assert_eq!(probes.packet(sent(sent_ms), arrived_us, 500, None), None);
        }
        assert!(probes.ended.is_empty() && probes.current.distances <= 1, "{probes:?}");
    }
}
