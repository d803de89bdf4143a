//! What a server may make a session do: bounds far above what any participant has use for, and far
//! below what would keep the machine from its other participants.
//!
//! Each is a bucket that fills with time: so much at once, and so much a second for good.

use std::fmt;
use std::time::Instant;

use crate::error_kind::Flooded;

/// Most messages at once, and a second: everybody of a room of 10,000 may be announced singly.
pub const MESSAGES_BURST_MAX: u32 = 32_768;
/// See [`MESSAGES_BURST_MAX`].
pub const MESSAGES_PER_SECOND_MAX: u32 = 2_048;
/// Most bytes of messages at once, and a second; so long can one message be at most.
pub const BYTES_BURST_MAX: u32 = 64 << 20;
/// See [`BYTES_BURST_MAX`].
pub const BYTES_PER_SECOND_MAX: u32 = 8 << 20;
/// Most events for the media plane and the run at once, and a second: each track of
/// [`REMOTE_TRACKS_MAX`](super::REMOTE_TRACKS_MAX) comes, is subscribed, changes and goes.
pub const EVENTS_BURST_MAX: u32 = 16_384;
/// See [`EVENTS_BURST_MAX`].
pub const EVENTS_PER_SECOND_MAX: u32 = 1_024;
/// Most offers at once, and a second. livekit-server waits for each answer, and 150 ms between two
/// (pkg/rtc/transport.go); one that does not wait may offer for each track that comes.
pub const OFFERS_BURST_MAX: u32 = 1_024;
/// See [`OFFERS_BURST_MAX`].
pub const OFFERS_PER_SECOND_MAX: u32 = 32;
/// Most candidates at once, and a second: a server has a few for each of its interfaces.
pub const CANDIDATES_BURST_MAX: u32 = 256;
/// See [`CANDIDATES_BURST_MAX`].
pub const CANDIDATES_PER_SECOND_MAX: u32 = 16;
/// Largest message taken unless told otherwise; a larger one ends the connection with
/// [`EndReason::ServerFlooded`](super::EndReason::ServerFlooded). A `join` tells of each participant in
/// about 70 bytes, or 490 if it publishes video and audio, besides its metadata and attributes. Of the SDKs
/// livekit-client takes any size, and the Rust SDK 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Longest SDP taken: about a thousand tracks.
pub const SDP_BYTES_MAX: usize = stampede_sdp::DESCRIPTION_BYTES_MAX;

/// What a server sent too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Messages ([`MESSAGES_BURST_MAX`]).
    Messages,
    /// Bytes of messages ([`BYTES_BURST_MAX`]).
    Bytes,
    /// Mutes, tracks that come and go, and the like ([`EVENTS_BURST_MAX`]).
    Events,
    /// Offers ([`OFFERS_BURST_MAX`]).
    Offers,
    /// Candidates ([`CANDIDATES_BURST_MAX`]).
    Candidates,
    /// One SDP that is too long ([`SDP_BYTES_MAX`]).
    Sdp {
        /// Its length.
        bytes: usize,
    },
    /// One message that is too long
    /// ([`ConnectOptions::message_bytes_max`](crate::ConnectOptions::message_bytes_max)).
    Message {
        /// Its length, as far as it is known.
        bytes: usize,
        /// The longest that is taken.
        most: usize,
    },
    /// One message that holds more of something than a room has.
    Entries {
        /// Of what.
        what: &'static str,
        /// The most that is taken.
        most: usize,
    },
}

impl Flood {
    /// What it is counted by.
    #[must_use]
    pub fn kind(self) -> Flooded {
        match self {
            Self::Messages => Flooded::Messages,
            Self::Bytes => Flooded::Bytes,
            Self::Events => Flooded::Events,
            Self::Offers => Flooded::Offers,
            Self::Candidates => Flooded::Candidates,
            Self::Sdp { .. } => Flooded::Sdp,
            Self::Message { .. } => Flooded::MessageSize,
            Self::Entries { .. } => Flooded::Entries,
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rate = |what: &str, burst: u32, per_second: u32| {
            write!(f, "more {what} than {burst} at once and {per_second} a second")
        };
        match self {
            Self::Messages => rate("messages", MESSAGES_BURST_MAX, MESSAGES_PER_SECOND_MAX),
            Self::Bytes => rate("bytes", BYTES_BURST_MAX, BYTES_PER_SECOND_MAX),
            Self::Events => rate("changes of tracks", EVENTS_BURST_MAX, EVENTS_PER_SECOND_MAX),
            Self::Offers => rate("offers", OFFERS_BURST_MAX, OFFERS_PER_SECOND_MAX),
            Self::Candidates => rate("candidates", CANDIDATES_BURST_MAX, CANDIDATES_PER_SECOND_MAX),
            Self::Sdp { bytes } => {
                write!(f, "an SDP of {bytes} bytes (the most taken is {SDP_BYTES_MAX})")
            }
            Self::Message { bytes, most } => write!(
                f,
                "a message of {bytes} bytes (--message-size-max is {most}; a room of thousands is \
                 announced in one message: if this one is so large, raise it)"
            ),
            Self::Entries { what, most } => {
                write!(f, "a message with more {what} than {most}")
            }
        }
    }
}

/// A bucket: `burst` at once, `per_second` for good.
#[derive(Debug, Clone, Copy)]
struct Meter {
    burst: u32,
    per_second: u32,
    /// What is in it, in thousandths.
    left_milli: u64,
    filled: Instant,
}

impl Meter {
    fn new(now: Instant, burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, left_milli: u64::from(burst) * 1_000, filled: now }
    }

    /// True if so many more are within the bounds.
    fn take(&mut self, now: Instant, count: usize) -> bool {
        let wanted_milli = (count as u64).saturating_mul(1_000);
        if self.left_milli < wanted_milli {
            // Only looked at when it is needed: most messages cost a subtraction.
            let since_ms = now.saturating_duration_since(self.filled).as_millis();
            let more_milli = since_ms.saturating_mul(u128::from(self.per_second));
            let full_milli = u64::from(self.burst) * 1_000;
            let more_milli = u64::try_from(more_milli).unwrap_or(full_milli);
            self.left_milli = self.left_milli.saturating_add(more_milli).min(full_milli);
            self.filled = now;
        }
        let within = self.left_milli >= wanted_milli;
        self.left_milli = self.left_milli.saturating_sub(wanted_milli);
        within
    }
}

/// The meters of one session.
#[derive(Debug)]
pub(super) struct Meters {
    messages: Meter,
    bytes: Meter,
    events: Meter,
    offers: Meter,
    candidates: Meter,
}

impl Meters {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            messages: Meter::new(now, MESSAGES_BURST_MAX, MESSAGES_PER_SECOND_MAX),
            bytes: Meter::new(now, BYTES_BURST_MAX, BYTES_PER_SECOND_MAX),
            events: Meter::new(now, EVENTS_BURST_MAX, EVENTS_PER_SECOND_MAX),
            offers: Meter::new(now, OFFERS_BURST_MAX, OFFERS_PER_SECOND_MAX),
            candidates: Meter::new(now, CANDIDATES_BURST_MAX, CANDIDATES_PER_SECOND_MAX),
        }
    }

    /// A message came.
    pub(super) fn message(&mut self, now: Instant, bytes: usize) -> Result<(), Flood> {
        self.messages.take(now, 1).then_some(()).ok_or(Flood::Messages)?;
        self.bytes.take(now, bytes).then_some(()).ok_or(Flood::Bytes)
    }

    /// A message made so many events and commands.
    pub(super) fn events(&mut self, now: Instant, count: usize) -> Result<(), Flood> {
        self.events.take(now, count).then_some(()).ok_or(Flood::Events)
    }

    /// An offer came, with an SDP this long.
    pub(super) fn offer(&mut self, now: Instant, sdp_bytes: usize) -> Result<(), Flood> {
        sdp(sdp_bytes)?;
        self.offers.take(now, 1).then_some(()).ok_or(Flood::Offers)
    }

    /// A candidate came.
    pub(super) fn candidate(&mut self, now: Instant) -> Result<(), Flood> {
        self.candidates.take(now, 1).then_some(()).ok_or(Flood::Candidates)
    }
}

/// Checks the length of an SDP.
pub(super) fn sdp(bytes: usize) -> Result<(), Flood> {
    if bytes > SDP_BYTES_MAX { Err(Flood::Sdp { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_a_rate_are_within_the_bounds_and_no_more() {
        let start = Instant::now();
        let mut meter = Meter::new(start, 100, 10);
        assert!((0..100).all(|_| meter.take(start, 1)), "the burst");
        assert!(!meter.take(start, 1));
        let later = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert!((0..10).all(|_| meter.take(later(1.0), 1)), "what a second brought");
        assert!(!meter.take(later(1.0), 1));
        // For good at the rate.
        assert!((1..1_000).all(|tenth| meter.take(later(1.0 + f64::from(tenth) * 0.1), 1)));
        assert!(!meter.take(later(101.0), 5));
        // Never more than the burst.
        assert!(meter.take(later(10_000.0), 100) && !meter.take(later(10_000.0), 1));
        assert!(!meter.take(start, usize::MAX), "a clock that went back and a count too large");
    }
}
