//! Watch time: how long a subscriber could watch or hear a track, and why not.
//!
//! Losing is counted packet by packet elsewhere; what never comes has no number to be missed by.
//! So time is accounted here: a track is *expected* to play over some stretches, frames *cover*
//! time, and what is expected and not covered is a gap. These make an account:
//!
//! - [`Cover`], in each received stream, turns the moments of playable frames into [`Span`]s.
//! - [`LayerMeter`], in each received video stream, says how long which layer was shown.
//! - [`Timeline`]s hold what signalling says: published, muted, shown, connected.
//! - [`TrackWatch`] is one (subscriber, publisher, source) over all its streams, tries and
//!   reconnects; [`TrackWatch::tally`] parts the expected time without overlap into played, short
//!   gaps and interruptions. It changes nothing, so that it does not matter who reads when.
//!
//! Pure: every moment comes in as an argument.

mod account;
mod cover;
mod layers;
#[cfg(test)]
mod maxima_tests;
#[cfg(test)]
mod model_tests;
mod tally;
mod timeline;

pub use account::{Facts, SPANS_MAX, Seat, Stay, TrackWatch};
pub use cover::{
    Cover, FALLBACK_COVER, FrameTime, Intervals, PAUSE_COVER, PAUSE_MAX, Span, StreamCover, Trouble,
};
pub use layers::{LAYERS_MAX, LayerMeter, LayerTime};
pub use tally::{Cause, INTERRUPTIONS_MAX, Interruption, Rules, SHORT_GAPS_KEPT_MAX, Tally};
pub use timeline::{CHANGES_MAX, Connection, Publishing, Timeline};
