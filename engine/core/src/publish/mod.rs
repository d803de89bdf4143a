//! Publishing: what is sent, and when each packet of a shared clip is due.

mod audio;
mod schedule;
mod speaking;
mod track;

pub use audio::{AudioFrames, AudioOptions, AudioPayload};
pub use schedule::{
    DueFrame, JUMP_BEYOND, KEYFRAME_SPACING_MIN, LayerClip, START_SPREAD, TrackSchedule,
};
pub use speaking::SpeakingTurns;
pub use track::{CID_CHARS_MAX, LAYERS_MAX, PublishLayer, PublishTrack, TrackError};

use std::time::Duration;

/// A packet that leaves later than this after it was due counts as late.
pub const LATE_AFTER: Duration = Duration::from_millis(10);
