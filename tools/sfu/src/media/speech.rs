//! Whether an audio track is of somebody who speaks. Pure.

use std::time::{Duration, Instant};

/// Loud is what is no quieter (dBov below overload, RFC 6464), by LiveKit's defaults
/// (`pkg/sfu/audio/audiolevel.go`),
const ACTIVE_LEVEL: u8 = 35;
/// looked at over so long,
const INTERVAL_MS: u32 = 400;
/// of which so much is to be loud,
const ACTIVE_MS_MIN: u32 = INTERVAL_MS * 40 / 100;
/// and the level of which counts so much against those before: an average over two.
const SMOOTHING: f64 = 2.0 / 3.0;
/// The level of a packet without sound.
const SILENT_LEVEL: u8 = 127;
/// Between two changes that are told: LiveKit looks at all speakers of a room that often
/// (`pkg/rtc/room.go`, `audioUpdateWorker`). By timestamps alone a publisher could have everybody told
/// with each packet.
const CHANGE_INTERVAL: Duration = Duration::from_millis(INTERVAL_MS as u64);

/// The levels of a track's packets. Who sends nothing any more stays as it was, until its track goes.
#[derive(Debug)]
pub(crate) struct Speech {
    timestamp: Option<u32>,
    observed_ms: u32,
    active_ms: u32,
    loudest: u8,
    level: f64,
    active: bool,
    changed_at: Option<Instant>,
}

impl Default for Speech {
    fn default() -> Self {
        Self {
            timestamp: None,
            observed_ms: 0,
            active_ms: 0,
            loudest: SILENT_LEVEL,
            level: 0.0,
            active: false,
            changed_at: None,
        }
    }
}

impl Speech {
    /// Takes the level of a packet that came now, in dBov as the header extension has it, by the
    /// packet's timestamp. The level from 0 to 1 if who sends it has begun to speak, 0 if it has stopped; else `None`.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        dbov: i8,
        timestamp: u32,
        clock_rate: u32,
    ) -> Option<f32> {
        let since = timestamp.wrapping_sub(*self.timestamp.get_or_insert(timestamp));
        if since >= 1 << 31 {
            return None;
        }
        self.timestamp = Some(timestamp);
        let ms = u64::from(since) * 1_000 / u64::from(clock_rate.max(1));
        let ms = u32::try_from(ms).unwrap_or(u32::MAX);
        self.observed_ms = self.observed_ms.saturating_add(ms);
        let level = dbov.unsigned_abs();
        if level <= ACTIVE_LEVEL {
            self.active_ms = self.active_ms.saturating_add(ms);
            self.loudest = self.loudest.min(level);
        }
        if self.observed_ms < INTERVAL_MS {
            return None;
        }
        self.level = if self.active_ms >= ACTIVE_MS_MIN { self.smoothed() } else { 0.0 };
        (self.observed_ms, self.active_ms, self.loudest) = (0, 0, SILENT_LEVEL);
        let active = self.level >= linear(f64::from(ACTIVE_LEVEL));
        // What is too early is told with the next window, if it is so then.
        let is_early =
            self.changed_at.is_some_and(|at| now.saturating_duration_since(at) < CHANGE_INTERVAL);
        if active == self.active || is_early {
            return None;
        }
        (self.active, self.changed_at) = (active, Some(now));
        Some(if active { self.level as f32 } else { 0.0 })
    }

    /// What was loud for a part of the time counts for less.
    fn smoothed(&self) -> f64 {
        let share = f64::from(self.active_ms) / f64::from(INTERVAL_MS);
        let heard = linear(f64::from(self.loudest) - 20.0 * share.log10());
        self.level + (heard - self.level) * SMOOTHING
    }
}

/// A level below overload as a share of it.
fn linear(level: f64) -> f64 {
    10f64.powf(-level / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;
    /// Of a packet of 20 ms.
    const TICKS: u32 = 960;

    /// The numbers of the packets with which speech begins or ends, and whether it does.
    fn changes(levels: impl Iterator<Item = i8>, first: u32) -> Vec<(usize, bool)> {
        let (mut speech, start) = (Speech::default(), Instant::now());
        let heard = levels.enumerate().filter_map(|(number, level)| {
            let timestamp = first.wrapping_add(number as u32 * TICKS);
            let at = start + Duration::from_millis(20) * number as u32;
            Some((number, speech.hear(at, level, timestamp, RATE)? > 0.0))
        });
        heard.collect()
    }

    #[test]
    fn who_is_loud_for_long_enough_speaks_and_who_falls_silent_does_not() {
        let levels = [-127i8; 100].into_iter().chain([-20; 100]).chain([-127; 100]);
        let changes = changes(levels, u32::MAX - 50 * TICKS);
        // A packet's level counts for the time before it: the windows end with every twentieth.
        assert_eq!(changes, [(120, true), (220, false)]);
    }

    #[test]
    fn neither_a_click_nor_a_whisper_is_speech() {
        let click = [-127i8; 95].into_iter().chain([-1; 7]).chain([-127; 100]);
        assert_eq!(changes(click, 0), []);
        assert_eq!(changes([-36i8; 200].into_iter(), 0), []);
    }

    #[test]
    fn older_packets_change_nothing_and_pauses_count_as_long_as_they_were() {
        let (mut speech, start) = (Speech::default(), Instant::now());
        let mut hear = |level, number: u32| {
            speech.hear(start + Duration::from_millis(20) * number, level, number * TICKS, RATE)
        };
        assert_eq!(hear(-20, 10), None);
        assert_eq!(hear(-20, 9), None);
        let began = hear(-20, 30);
        assert!(began.is_some_and(|level| (0.06..0.07).contains(&level)), "{began:?}");
        // Silence that is left out (DTX): one packet tells of all of it.
        assert_eq!(hear(-127, 50), Some(0.0));
    }

    #[test]
    fn timestamps_that_run_ahead_tell_no_changes_sooner() {
        let (mut speech, start) = (Speech::default(), Instant::now());
        // Each packet claims to be 400 ms later, and they are loud and silent by turns.
        let changes = (0..500u32).filter(|number| {
            let level = if number % 2 == 0 { -127 } else { -20 };
            let at = start + Duration::from_millis(20) * *number;
            speech.hear(at, level, number * 20 * TICKS, RATE).is_some()
        });
        // In 10 s.
        assert!((10..=25).contains(&changes.count()));
    }
}
