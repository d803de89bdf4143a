//! Packets sent together, and how much further apart two such groups arrived than they were sent
//! (libwebrtc `modules/remote_bitrate_estimator/inter_arrival.cc`).

/// Send times in it count 2⁻²⁶ s: the extension's 2⁻¹⁸ s shifted up, so that they wrap at 32 bits
/// (libwebrtc `kInterArrivalShift`).
const TICKS_PER_MS: f64 = (1_u64 << 26) as f64 / 1_000.0;
/// What was sent within this after a group's first packet belongs to the group (libwebrtc
/// `kTimestampGroupLengthMs`).
const GROUP_TICKS: u32 = ((5_u64 << 26) / 1_000) as u32;
/// Most between the arrivals of two packets of one burst (libwebrtc `kBurstDeltaThresholdMs`).
const BURST_GAP_MS_MAX: i64 = 5;
/// Most that a burst lasts (libwebrtc `kMaxBurstDurationMs`).
const BURST_MS_MAX: i64 = 100;
/// After so many groups in a row that arrived before the one sent earlier, it begins anew
/// (libwebrtc `kReorderedResetThreshold`).
const REORDERED_GROUPS_MAX: u8 = 3;

/// Packets that were sent, or that arrived, in one go.
#[derive(Debug, Clone, Copy)]
struct Group {
    bytes: u32,
    first_sent: u32,
    last_sent: u32,
    first_arrived_ms: i64,
    last_arrived_ms: i64,
}

/// By how much a group differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Deltas {
    /// Between the sending of their last packets.
    pub(super) sent_ms: f64,
    /// Between the arrivals of their last packets.
    pub(super) arrived_ms: f64,
    /// In size.
    pub(super) bytes: f64,
}

/// The group that is filling and the one before.
#[derive(Debug, Default)]
pub(super) struct InterArrival {
    current: Option<Group>,
    previous: Option<Group>,
    reordered: u8,
}

impl InterArrival {
    /// Takes a packet: `sent` is its abs-send-time, 24 bits. Gives the deltas of the group that it
    /// ended, if there is one before that. libwebrtc begins anew too if the clock of arrivals jumps
    /// against the system's; here they are one.
    #[inline]
    pub(super) fn packet(&mut self, sent: u32, arrived_ms: i64, bytes: u32) -> Option<Deltas> {
        let sent = sent << 8;
        let Some(current) = &mut self.current else {
            self.current = Some(Group::of(sent, arrived_ms, bytes));
            return None;
        };
        // More than half of all times ahead is behind.
        if sent.wrapping_sub(current.first_sent) >= 1 << 31 {
            return None;
        }
        if current.ends_before(sent, arrived_ms) {
            return self.begin(Group::of(sent, arrived_ms, bytes));
        }
        if sent.wrapping_sub(current.last_sent) < 1 << 31 {
            current.last_sent = sent;
        }
        current.bytes = current.bytes.saturating_add(bytes);
        current.last_arrived_ms = arrived_ms;
        None
    }

    /// Begins another group.
    #[inline(never)]
    fn begin(&mut self, new: Group) -> Option<Deltas> {
        let (current, previous) = (self.current?, self.previous);
        let deltas = previous.map(|previous| Deltas {
            sent_ms: f64::from(current.last_sent.wrapping_sub(previous.last_sent)) / TICKS_PER_MS,
            arrived_ms: (current.last_arrived_ms - previous.last_arrived_ms) as f64,
            bytes: f64::from(current.bytes) - f64::from(previous.bytes),
        });
        if deltas.is_some_and(|deltas| deltas.arrived_ms < 0.0) {
            self.reordered += 1;
            if self.reordered >= REORDERED_GROUPS_MAX {
                *self = Self::default();
            }
            return None;
        }
        self.reordered = 0;
        self.previous = Some(current);
        self.current = Some(new);
        deltas
    }
}

impl Group {
    /// Of one packet.
    fn of(sent: u32, arrived_ms: i64, bytes: u32) -> Self {
        Self {
            bytes,
            first_sent: sent,
            last_sent: sent,
            first_arrived_ms: arrived_ms,
            last_arrived_ms: arrived_ms,
        }
    }

    /// A packet sent and arrived then is of another group.
    fn ends_before(&self, sent: u32, arrived_ms: i64) -> bool {
        if sent.wrapping_sub(self.first_sent) <= GROUP_TICKS {
            return false;
        }
        let since_arrived_ms = arrived_ms - self.last_arrived_ms;
        let since_sent_ms =
            (f64::from(sent.wrapping_sub(self.last_sent)) / TICKS_PER_MS + 0.5) as i64;
        let is_burst = since_sent_ms == 0
            || (since_arrived_ms < since_sent_ms
                && since_arrived_ms <= BURST_GAP_MS_MAX
                && arrived_ms - self.first_arrived_ms < BURST_MS_MAX);
        !is_burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds as abs-send-time.
    fn sent(ms: u32) -> u32 {
        ((u64::from(ms) << 18) / 1_000) as u32 & 0xff_ffff
    }

    #[test]
    fn groups_are_what_was_sent_within_five_milliseconds() {
        let mut groups = InterArrival::default();
        assert_eq!(groups.packet(sent(0), 100, 500), None);
        assert_eq!(groups.packet(sent(4), 104, 500), None);
        assert_eq!(groups.packet(sent(20), 121, 300), None, "the first group is over");
        let deltas = groups.packet(sent(40), 145, 300).unwrap();
        assert!((deltas.sent_ms - 16.0).abs() < 0.01, "{deltas:?}");
        assert_eq!((deltas.arrived_ms, deltas.bytes), (17.0, -700.0));
    }

    #[test]
    fn what_comes_in_one_burst_is_one_group() {
        let mut groups = InterArrival::default();
        for at in [0, 20, 40, 60] {
            assert_eq!(groups.packet(sent(at), 100 + i64::from(at) / 20, 500), None);
        }
        groups.packet(sent(100), 150, 500);
        let deltas = groups.packet(sent(120), 170, 500).unwrap();
        assert_eq!((deltas.arrived_ms, deltas.bytes), (47.0, -1_500.0));
    }

    #[test]
    fn send_times_wrap_and_reordered_ones_are_left_out() {
        let mut groups = InterArrival::default();
        groups.packet(0xff_ffff, 0, 500);
        groups.packet(sent(20), 20, 500);
        assert_eq!(groups.packet(sent(10), 21, 500), None);
        let deltas = groups.packet(sent(40), 40, 500).unwrap();
        assert!((deltas.sent_ms - 20.0).abs() < 0.1, "{deltas:?}");
    }

    #[test]
    fn it_begins_anew_when_groups_keep_arriving_before_those_sent_earlier() {
        let mut groups = InterArrival::default();
        for (at, arrived_ms) in [(0, 1_000), (20, 1_020), (21, 500)] {
            assert_eq!(groups.packet(sent(at), arrived_ms, 500), None);
        }
        for at in [60, 80, 100] {
            assert_eq!(groups.packet(sent(at), 1_000 + i64::from(at), 500), None);
        }
        assert_eq!(groups.packet(sent(200), 1_200, 500), None);
        assert_eq!(groups.packet(sent(220), 1_220, 500), None);
        assert!(groups.packet(sent(240), 1_240, 500).is_some());
    }
}
