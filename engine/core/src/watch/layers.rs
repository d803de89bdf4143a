//! How long which layer of a track was on the screen.

use std::time::{Duration, Instant};

/// Most layers told apart between two looks. Time of further ones counts as that of the last.
pub const LAYERS_MAX: usize = 16;

/// Time in which pictures of one layer were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerTime {
    /// Height of the pictures in pixels, where known.
    pub height: Option<u16>,
    /// Highest temporal layer that came; `None` where the stream does not say.
    pub temporal: Option<u8>,
    /// What its pictures covered.
    pub played: Duration,
    /// Its pictures.
    pub frames: u64,
}

/// Puts the time that the pictures of one stream cover down to its layers. A picture covers the time
/// up to the next one, but no longer than [`Intervals::cover`](super::Intervals::cover) says; the last
/// one of a stream covers nothing.
///
/// Which temporal layers a server forwards shows only in what comes between two pictures of the lowest
/// one: the highest of them is that of the whole stretch.
#[derive(Debug, Clone, Default)]
pub struct LayerMeter {
    /// Since the last [`Self::take`]: at most [`LAYERS_MAX`].
    rows: Vec<LayerTime>,
    /// Since the last picture of the lowest temporal layer.
    open: LayerTime,
    last: Option<Instant>,
    known: bool,
    up: u64,
    down: u64,
    /// Sums of heights by milliseconds and of milliseconds, where the height is known.
    height_ms: u64,
    known_ms: u64,
}

impl LayerMeter {
    /// A picture of this layer could be shown; `cover` is what the intervals before it say.
    pub fn shown(
        &mut self,
        at: Instant,
        cover: Duration,
        height: Option<u16>,
        temporal: Option<u8>,
    ) {
        if let Some(last) = self.last {
            self.open.played += at.saturating_duration_since(last).min(cover);
        }
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        if temporal.is_none_or(|layer| layer == 0) || height != self.open.height {
            self.close();
        }
        match (self.open.height, height) {
            (Some(before), Some(now)) if now > before => self.up += 1,
            (Some(before), Some(now)) if now < before => self.down += 1,
            _ => {}
        }
        self.known |= height.is_some();
        self.open.height = height.or(self.open.height);
        self.open.temporal = self.open.temporal.max(temporal);
        self.open.frames += 1;
    }

    /// What is new since the last call. What is open stays for the next one; at the end of the stream,
    /// `last`, it is in it.
    pub fn take(&mut self, last: bool) -> Vec<LayerTime> {
        if last {
            self.close();
        }
        std::mem::take(&mut self.rows)
    }

    /// Counts from `now` on only.
    pub fn restart_counting(&mut self, now: Instant) {
        self.rows.clear();
        (self.open.played, self.open.frames) = (Duration::ZERO, 0);
        self.last = self.last.map(|last| last.max(now));
        (self.up, self.down, self.height_ms, self.known_ms) = (0, 0, 0, 0);
    }

    /// Changes of the height so far, to larger and to smaller pictures; `None` before one is known.
    pub fn switches(&self) -> Option<(u64, u64)> {
        self.known.then_some((self.up, self.down))
    }

    /// Mean height over the time so far; `None` where it is not known.
    pub fn height_mean(&self) -> Option<f64> {
        (self.known_ms > 0).then(|| self.height_ms as f64 / self.known_ms as f64)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<LayerTime>()
    }

    fn close(&mut self) {
        let height = self.open.height;
        let open = std::mem::replace(&mut self.open, LayerTime { height, ..LayerTime::default() });
        if open.frames == 0 && open.played.is_zero() {
            return;
        }
        if let Some(height) = open.height {
            let played_ms = open.played.as_millis() as u64;
            self.height_ms += u64::from(height) * played_ms;
            self.known_ms += played_ms;
        }
        let same = |row: &LayerTime| (row.height, row.temporal) == (open.height, open.temporal);
        let full = self.rows.len() >= LAYERS_MAX;
        let known = self.rows.iter().position(same).or(full.then_some(LAYERS_MAX - 1));
        match known.and_then(|index| self.rows.get_mut(index)) {
            Some(row) => {
                row.played += open.played;
                row.frames += open.frames;
            }
            None => {
                if self.rows.capacity() == 0 {
                    // Mostly one layer is shown at a time.
                    self.rows.reserve_exact(1);
                }
                self.rows.push(open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COVER: Duration = Duration::from_millis(190);

    struct Rig {
        start: Instant,
        meter: LayerMeter,
    }

    impl Rig {
        fn new() -> Self {
            Self { start: Instant::now(), meter: LayerMeter::default() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn frame(&mut self, ms: u64, height: u16, temporal: Option<u8>) {
            self.meter.shown(self.at(ms), COVER, Some(height), temporal);
        }

        /// Height, temporal layer, milliseconds and pictures of each layer.
        fn rows(&mut self) -> Vec<(Option<u16>, Option<u8>, u64, u64)> {
            let rows = self.meter.take(true);
            let told = rows
                .iter()
                .map(|row| (row.height, row.temporal, row.played.as_millis() as u64, row.frames));
            told.collect()
        }
    }

    #[test]
    fn a_picture_covers_up_to_the_next_and_a_gap_is_nobodys() {
        let mut rig = Rig::new();
        (0..10).for_each(|frame| rig.frame(frame * 40, 720, None));
        (10..15).for_each(|frame| rig.frame(frame * 40, 180, None));
        rig.frame(5_000, 180, None);
        rig.frame(5_040, 720, None);
        let wanted = [(Some(720), None, 400, 11), (Some(180), None, 4 * 40 + 190 + 40, 6)];
        assert_eq!(rig.rows(), wanted);
        assert_eq!(rig.meter.switches(), Some((1, 1)));
        assert_eq!(rig.rows(), [], "each row is handed out once");
    }

    #[test]
    fn the_highest_temporal_layer_between_two_of_the_lowest_is_that_of_both() {
        let mut rig = Rig::new();
        // L1T3: 0 2 1 2; then the server leaves the highest out; then all but the lowest.
        for cycle in 0..5 {
            for (frame, layer) in [0, 2, 1, 2].into_iter().enumerate() {
                rig.frame(cycle * 160 + frame as u64 * 40, 360, Some(layer));
            }
        }
        for cycle in 5..8 {
            rig.frame(cycle * 160, 360, Some(0));
            rig.frame(cycle * 160 + 80, 360, Some(1));
        }
        (8..10).for_each(|cycle| rig.frame(cycle * 160, 360, Some(0)));
        let wanted = [
            (Some(360), Some(2), 800, 20),
            (Some(360), Some(1), 480, 6),
            (Some(360), Some(0), 160, 2),
        ];
        assert_eq!(rig.rows(), wanted);
    }

    #[test]
    fn counting_begins_anew_in_the_middle_of_a_picture() {
        let mut rig = Rig::new();
        rig.frame(0, 180, None);
        rig.frame(100, 720, None);
        let begin = rig.at(150);
        rig.meter.restart_counting(begin);
        rig.frame(200, 720, None);
        assert_eq!(rig.rows(), [(Some(720), None, 50, 1)]);
        assert_eq!(rig.meter.switches(), Some((0, 0)));
        assert_eq!(rig.meter.height_mean(), Some(720.0));
    }

    #[test]
    fn too_many_layers_are_put_together() {
        let mut rig = Rig::new();
        (1..=40).for_each(|height| rig.frame(u64::from(height) * 10, height, None));
        let rows = rig.meter.take(true);
        assert_eq!(rows.len(), LAYERS_MAX);
        assert_eq!(rows.iter().map(|row| row.frames).sum::<u64>(), 40);
    }
}
