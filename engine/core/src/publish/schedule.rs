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
        let (layer, _) = self.next_layer().filter(|&(_, due)| self.instant(due) <= now)?;
        let jumped = self.serve_keyframe_request(layer);
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
        let popped = DueFrame {
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
        layer.tl0_pic_idx = layer.tl0_pic_idx.wrapping_add(1);
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

    /// True if there was a jump.
    fn serve_keyframe_request(&mut self, index: usize) -> bool {
        let Some(layer) = self.layers.get(index).filter(|layer| layer.keyframe_wanted) else {
            return false;
        };
        let next = self.position(layer, layer.lap, layer.next);
        let (_, _, keyframe) = self.keyframe_from(layer, next);
        let signed = |duration| ticks(duration, self.clock_rate) as i64;
        if keyframe - next <= signed(JUMP_BEYOND) {
            self.layers[index].keyframe_wanted = false;
            return false;
        }
        let since = layer.keyframe_ticks.map(|last| next + self.origin_ticks - last);
        if since.is_some_and(|since| since < signed(KEYFRAME_SPACING_MIN)) {
            return false;
        }
        let aligned = (keyframe - signed(ALIGN_WITHIN)).max(next);
        self.move_layers(aligned);
        self.origin_ticks -= keyframe - next;
        true
    }
}

fn ticks(duration: Duration, clock_rate: u32) -> u64 {
    let rate = u64::from(clock_rate);
    duration.as_secs() * rate + u64::from(duration.subsec_nanos()) * rate / 1_000_000_000
}
