//! One participant's side of the LiveKit signalling protocol, as a pure state machine.

mod event;

pub use event::{
    EndReason, Joined, LocalLayer, LocalTrack, MediaCommand, MediaInput, Output, Quality,
    RemoteTrack, Role, SessionEvent, Subscription, Target, TrackKind, WantedCodec,
};

/// Most tracks a publisher may announce: the server queues no more than 20 pending ones.
pub const PUBLISH_TRACKS_MAX: usize = 20;
