//! Ledgers of received packets and frames, after docs/measurement.md. Pure: arrival times come in.
//!
//! A stream has one [`SequenceLedger`], and a [`FrameLedger`] if its codec has frames. The
//! sequence ledger says which sequence numbers may still arrive in time
//! ([`SequenceLedger::open_floor`]); the frame ledger judges frames behind that line.

mod arrived;
mod frame;
#[cfg(test)]
mod frame_tests;
mod freeze;
mod heard;
mod jitter;
mod latency;
#[cfg(test)]
mod maxima_tests;
mod packet;
mod picture;
#[cfg(test)]
mod purity_tests;
mod references;
mod sequence;
#[cfg(test)]
mod sequence_tests;
mod silence;
mod stream;

pub use arrived::WINDOW_PACKETS;
pub use frame::{FinishedFrame, FrameLedger, OPEN_FRAMES_MAX, SKIPS_MAX};
pub use freeze::FreezeDetector;
pub use jitter::JitterMeter;
pub use latency::{
    INTERPOLATE_MAX, LATENCY_MAX, LatencyCounters, LatencyMeter, STAMPS_MAX, Stamp, StampSource,
};
pub use packet::FramePacket;
pub use picture::PictureSize;
pub use sequence::{GAPS_MAX, LOWER_PACKETS_MAX, Placement, Receipt, SequenceLedger, Via};
pub use silence::is_server_made;
pub use stream::{MediaPacket, StreamLedger};
