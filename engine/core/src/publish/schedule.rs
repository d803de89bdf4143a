//! When which frame of a track is due.
//!
//! A track has one timeline in ticks of its RTP clock, from 0 at its start. A clip's frame lies on
//! it at `origin + lap × lap length + its own timestamp`; a jump to a keyframe moves `origin`, so
//! that the keyframe takes the place of the frame that was due next. RTP timestamps follow the
//! timeline and picture ids count frames sent, so neither knows of laps or jumps. All layers share
//! the origin: they stay aligned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_media::{ClipFrame, MediaClip};

/// A wanted keyframe that comes by itself within this is waited for; otherwise there is a jump.
pub const JUMP_BEYOND: Duration = Duration::from_millis(200);
/// Least time from a keyframe to the jump to another one (libwebrtc
/// `kDefaultMinKeyframeSendIntervalMs`). A request within it is served when it is over.
pub const KEYFRAME_SPACING_MIN: Duration = Duration::from_millis(300);
/// Publishers that start together are spread over this much time by their start offsets.
pub const START_SPREAD: Duration = Duration::from_millis(100);
/// Keyframes of different layers this close together belong to the same moment.
const ALIGN_WITHIN: Duration = Duration::from_millis(10);

/// One layer's clip and the numbers it begins with.
#[derive(Debug, Clone)]
pub struct LayerClip {
    /// What is sent.
    pub clip: Arc<MediaClip>,
    /// First picture id, of 15 bits.
    pub picture_id: u16,
    /// First TL0PICIDX.
    pub tl0_pic_idx: u8,
}

/// A frame whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueFrame {
    /// Index of the layer.
    pub layer: usize,
    /// Index of the frame in the layer's clip.
    pub frame: usize,
    /// When it was due.
    pub due: Instant,
    /// The same on the track's timeline: RTP timestamp without its random offset.
    pub due_ticks: u64,
    /// Picture id to send.
    pub picture_id: u16,
    /// TL0PICIDX to send.
    pub tl0_pic_idx: u8,
    /// Decoding can begin here.
    pub keyframe: bool,
    /// The schedule jumped here because a keyframe was wanted.
    pub jumped: bool,
}

#[derive(Debug)]
struct Layer {
    clip: Arc<MediaClip>,
    /// Next frame and the lap it is in.
    next: usize,
    lap: u64,
    picture_id: u16,
    tl0_pic_idx: u8,
    /// Timeline position of the last frame and the last keyframe sent.
    sent_ticks: Option<i64>,
    keyframe_ticks: Option<i64>,
    keyframe_wanted: bool,
}

/// The schedule of one track. Pure; see the module page.
#[derive(Debug)]
pub struct TrackSchedule {
    start: Instant,
    clock_rate: u32,
    lap_ticks: u64,
    origin_ticks: i64,
    layers: Vec<Layer>,
}

impl TrackSchedule {
    /// A schedule whose first frames, keyframes, are due shortly after `start`. `layers` must not
    /// be empty and share a clock rate; each clip has a frame, the first a keyframe
    /// ([`PublishTrack::validate`](super::PublishTrack::validate)).
    pub fn new(start: Instant, start_offset: Duration, layers: Vec<LayerClip>) -> Self {
        let clock_rate = layers.first().map_or(90_000, |layer| layer.clip.clock_rate.max(1));
        let lap_ticks = layers.iter().map(|layer| layer.clip.duration_ticks).max();
        let layer = |layer: LayerClip| Layer {
            clip: layer.clip,
            next: 0,
            lap: 0,
            picture_id: layer.picture_id & 0x7fff,
            tl0_pic_idx: layer.tl0_pic_idx,
            sent_ticks: None,
            keyframe_ticks: None,
            keyframe_wanted: false,
        };
        let spread_ns = START_SPREAD.as_nanos();
        let spread = Duration::from_nanos((start_offset.as_nanos() % spread_ns) as u64);
        let mut schedule = Self {
            start: start + spread,
            clock_rate,
            lap_ticks: lap_ticks.unwrap_or(1).max(1),
            origin_ticks: 0,
            layers: layers.into_iter().map(layer).collect(),
        };
        schedule.seek(ticks(start_offset, clock_rate) % schedule.lap_ticks);
        schedule
    }

    /// When the next frame of any layer is due; `None` without layers.
    pub fn next_due(&self) -> Option<Instant> {
        self.next_layer().map(|(_, due_ticks)| self.instant(due_ticks))
    }

    /// The earliest frame due at `now`, each once, none left out.
    pub fn pop_due(&mut self, now: Instant) -> Option<DueFrame> {
        let (_, slot) = self.next_layer().filter(|&(_, due)| self.instant(due) <= now)?;
        let jumped = self.serve_keyframe_request(slot);
        // Another layer may be first after a jump.
        let (index, due_ticks) = self.next_layer()?;
        let due = self.instant(due_ticks);
        let layer = self.layers.get_mut(index)?;
        // A keyframe aligned with another layer's may lie a little before this layer's last frame;
        // timestamps rise all the same.
        let due_ticks = layer.sent_ticks.map_or(due_ticks, |sent| due_ticks.max(sent + 1));
        layer.sent_ticks = Some(due_ticks);
        let frame = layer.next;
        let keyframe = layer.clip.frames.get(frame).is_some_and(|frame| frame.keyframe);
        let mut popped = DueFrame {
            layer: index,
            frame,
            due,
            due_ticks: u64::try_from(due_ticks).unwrap_or(0),
            picture_id: layer.picture_id,
            tl0_pic_idx: layer.tl0_pic_idx,
            keyframe,
            jumped,
        };
        if keyframe {
            layer.keyframe_ticks = Some(due_ticks);
        }
        layer.picture_id = (layer.picture_id + 1) & 0x7fff;
        // It counts pictures of the lowest temporal layer (RFC 9628 §4.2).
        let scalability = layer.clip.scalability.as_ref();
        if scalability.is_none_or(|layers| layers.is_base(frame)) {
            layer.tl0_pic_idx = layer.tl0_pic_idx.wrapping_add(1);
        } else {
            popped.tl0_pic_idx = popped.tl0_pic_idx.wrapping_sub(1);
        }
        layer.next += 1;
        if layer.next >= layer.clip.frames.len() {
            layer.next = 0;
            layer.lap += 1;
        }
        Some(popped)
    }

    /// The frame of a [`DueFrame`].
    pub fn frame(&self, due: &DueFrame) -> Option<&ClipFrame> {
        self.layers.get(due.layer)?.clip.frames.get(due.frame)
    }

    /// This frame, popped just now, is not sent. The next one of its layer gets its numbers: they
    /// count frames sent, and a receiver takes a step in them for a loss.
    pub fn withhold(&mut self, due: &DueFrame) {
        if let Some(layer) = self.layers.get_mut(due.layer) {
            layer.picture_id = due.picture_id;
            let scalability = layer.clip.scalability.as_ref();
            if scalability.is_none_or(|layers| layers.is_base(due.frame)) {
                layer.tl0_pic_idx = due.tl0_pic_idx;
            }
        }
    }

    /// The receiver wants a keyframe of this layer: its next frame is one, or one comes within
    /// [`JUMP_BEYOND`]. All layers jump together, as libwebrtc's VP8 simulcast encoder makes
    /// keyframes for all.
    pub fn request_keyframe(&mut self, layer: usize) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.keyframe_wanted = true;
        }
    }

    fn next_layer(&self) -> Option<(usize, i64)> {
        let due = |layer: &Layer| self.position(layer, layer.lap, layer.next) + self.origin_ticks;
        self.layers.iter().map(due).enumerate().min_by_key(|&(_, due)| due)
    }

    /// Where a frame lies without jumps.
    fn position(&self, layer: &Layer, lap: u64, frame: usize) -> i64 {
        let own = layer.clip.frames.get(frame).map_or(0, |frame| frame.timestamp_ticks);
        i64::try_from(lap * self.lap_ticks + own).unwrap_or(i64::MAX)
    }

    fn instant(&self, due_ticks: i64) -> Instant {
        let (rate, due) = (u64::from(self.clock_rate), u64::try_from(due_ticks).unwrap_or(0));
        let ns = (due % rate) * 1_000_000_000 / rate;
        self.start + Duration::new(due / rate, ns as u32)
    }

    /// The first keyframe of a layer at or after a position: (lap, frame, position).
    fn keyframe_from(&self, layer: &Layer, position: i64) -> (u64, usize, i64) {
        let lap = u64::try_from(position).unwrap_or(0) / self.lap_ticks;
        for lap in [lap, lap + 1] {
            for (frame, _) in layer.clip.frames.iter().enumerate().filter(|(_, f)| f.keyframe) {
                let at = self.position(layer, lap, frame);
                if at >= position {
                    return (lap, frame, at);
                }
            }
        }
        (lap + 1, 0, self.position(layer, lap + 1, 0))
    }

    fn seek(&mut self, position_ticks: u64) {
        let position = i64::try_from(position_ticks).unwrap_or(0);
        let first = self.layers.iter().map(|layer| self.keyframe_from(layer, position).2).min();
        let Some(first) = first else { return };
        self.move_layers(first);
        self.origin_ticks = -first;
    }

    /// Puts every layer on its first keyframe at or after a position.
    fn move_layers(&mut self, position: i64) {
        for index in 0..self.layers.len() {
            let (lap, frame, _) = self.keyframe_from(&self.layers[index], position);
            let layer = &mut self.layers[index];
            (layer.lap, layer.next) = (lap, frame);
            layer.keyframe_wanted = false;
        }
    }

    /// Jumps if a layer wants a keyframe and none is near; the frame due next, of whatever layer,
    /// is at `slot` on the timeline. True if there was a jump.
    fn serve_keyframe_request(&mut self, slot: i64) -> bool {
        let Some(index) = self.layers.iter().position(|layer| layer.keyframe_wanted) else {
            return false;
        };
        let layer = &self.layers[index];
        let next = self.position(layer, layer.lap, layer.next);
        let (_, _, keyframe) = self.keyframe_from(layer, next);
        let signed = |duration| ticks(duration, self.clock_rate) as i64;
        if keyframe + self.origin_ticks - slot <= signed(JUMP_BEYOND) {
            self.layers[index].keyframe_wanted = false;
            return false;
        }
        let since = layer.keyframe_ticks.map(|last| slot - last);
        if since.is_some_and(|since| since < signed(KEYFRAME_SPACING_MIN)) {
            return false;
        }
        let aligned = (keyframe - signed(ALIGN_WITHIN)).max(next);
        self.move_layers(aligned);
        self.origin_ticks = slot - keyframe;
        true
    }
}

fn ticks(duration: Duration, clock_rate: u32) -> u64 {
    let rate = u64::from(clock_rate);
    duration.as_secs() * rate + u64::from(duration.subsec_nanos()) * rate / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_media::Codec;

    fn clip(frames: usize, fps: u64, keyframe_every: usize) -> Arc<MediaClip> {
        let frame = |index: usize| ClipFrame {
            timestamp_ticks: index as u64 * 90_000 / fps,
            keyframe: index.is_multiple_of(keyframe_every),
            packets: vec![Arc::from([0_u8].as_slice())],
            frame_bytes: 1,
        };
        Arc::new(MediaClip {
            name: "test".to_owned(),
            codec: Codec::Vp8,
            clock_rate: 90_000,
            width: 1,
            height: 1,
            channels: 0,
            duration_ticks: frames as u64 * 90_000 / fps,
            frame_rate: fps as f64,
            scalability: None,
            frames: (0..frames).map(frame).collect(),
        })
    }

    fn schedule(start: Instant, offset: Duration, clips: Vec<Arc<MediaClip>>) -> TrackSchedule {
        let layer = |clip| LayerClip { clip, picture_id: 0x7ffe, tl0_pic_idx: 254 };
        TrackSchedule::new(start, offset, clips.into_iter().map(layer).collect())
    }

    fn all(schedule: &mut TrackSchedule, until: Instant) -> Vec<DueFrame> {
        std::iter::from_fn(|| schedule.pop_due(until)).collect()
    }

    #[test]
    fn keeps_the_files_own_timing_over_laps() {
        let start = Instant::now();
        let mut schedule = schedule(start, Duration::ZERO, vec![clip(45, 30, 15)]);
        assert_eq!(schedule.pop_due(start).map(|due| due.due), Some(start));
        assert_eq!(schedule.pop_due(start), None);
        let frames = all(&mut schedule, start + Duration::from_secs(10));
        assert_eq!(frames.len(), 300);
        for (number, due) in (1..).zip(&frames) {
            assert_eq!(due.due_ticks, number * 3_000);
            assert_eq!(due.frame, (number % 45) as usize);
            assert_eq!(due.picture_id, (0x7ffe + number as u16) & 0x7fff);
            assert_eq!(due.tl0_pic_idx, 254_u8.wrapping_add(number as u8));
            assert!(!due.jumped);
        }
    }

    #[test]
    fn frames_withheld_take_no_numbers() {
        let start = Instant::now();
        let mut schedule = schedule(start, Duration::ZERO, vec![clip(45, 30, 15)]);
        let mut sent = all(&mut schedule, start + Duration::from_millis(90));
        for _ in 0..7 {
            let due = schedule.pop_due(start + Duration::from_secs(1)).unwrap();
            schedule.withhold(&due);
        }
        sent.extend(all(&mut schedule, start + Duration::from_secs(2)));
        assert_eq!(sent.len(), 61 - 7);
        for (number, due) in sent.iter().enumerate() {
            assert_eq!(due.picture_id, (0x7ffe + number as u16) & 0x7fff);
            assert_eq!(due.tl0_pic_idx, 254_u8.wrapping_add(number as u8));
        }
    }

    #[test]
    fn begins_at_the_first_keyframe_after_its_offset() {
        let start = Instant::now();
        let offset = Duration::from_millis(1_020);
        let clips = vec![clip(60, 15, 30), clip(120, 30, 60)];
        let mut schedule = schedule(start, offset, clips);
        let spread = start + Duration::from_millis(20);
        let first: Vec<_> = all(&mut schedule, spread).iter().map(|d| (d.layer, d.frame)).collect();
        assert_eq!(first, [(0, 30), (1, 60)]);
    }

    #[test]
    fn jumps_keep_ticks_and_ids_continuous_and_layers_aligned() {
        let start = Instant::now();
        let mut schedule =
            schedule(start, Duration::ZERO, vec![clip(150, 15, 150), clip(300, 30, 300)]);
        let mut frames = all(&mut schedule, start + Duration::from_millis(1_010));
        schedule.request_keyframe(0);
        frames.extend(all(&mut schedule, start + Duration::from_secs(4)));
        let jumps: Vec<_> = frames.iter().filter(|due| due.jumped).collect();
        assert_eq!(jumps.len(), 1);
        assert_eq!(
            jumps[0].due - start,
            Duration::from_nanos(1_033_333_333),
            "the next slot of all"
        );
        for layer in 0..2 {
            let own: Vec<_> = frames.iter().filter(|due| due.layer == layer).collect();
            let keys: Vec<_> = own.iter().filter(|due| due.keyframe).collect();
            assert_eq!(keys.len(), 2);
            assert_eq!(keys[1].due_ticks, jumps[0].due_ticks);
            assert!(own.windows(2).all(|pair| pair[0].due_ticks < pair[1].due_ticks));
            assert!(own.windows(2).all(|p| (p[0].picture_id + 1) & 0x7fff == p[1].picture_id));
        }
    }

    #[test]
    fn a_near_keyframe_is_waited_for_and_jumps_keep_their_distance() {
        let start = Instant::now();
        let mut schedule = schedule(start, Duration::ZERO, vec![clip(90, 30, 45)]);
        all(&mut schedule, start + Duration::from_millis(1_320));
        schedule.request_keyframe(0);
        let frames = all(&mut schedule, start + Duration::from_millis(1_500));
        assert!(frames.iter().all(|due| !due.jumped));
        assert!(frames.iter().any(|due| due.keyframe));
        // 0 ms after a keyframe: served when the spacing is over, and only once.
        schedule.request_keyframe(0);
        let frames = all(&mut schedule, start + Duration::from_millis(2_500));
        let jumps: Vec<_> = frames.iter().filter(|due| due.jumped).collect();
        assert_eq!(jumps.len(), 1);
        assert_eq!(jumps[0].due - start, Duration::from_millis(1_800));
    }
}
