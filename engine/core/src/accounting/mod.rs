//! Ledgers of received packets and frames, after design.md §3. Pure: arrival times come in.
//!
//! A stream has one [`SequenceLedger`], and a [`FrameLedger`] if its codec has frames. The
//! sequence ledger says which sequence numbers may still arrive in time
//! ([`SequenceLedger::open_floor`]); the frame ledger settles frames behind that line.

mod frame;
#[cfg(test)]
mod frame_tests;
mod freeze;
mod jitter;
mod references;
mod sequence;
#[cfg(test)]
mod sequence_tests;
mod stream;

pub use frame::{FrameLedger, FramePacket, OPEN_FRAMES_MAX, SKIPS_MAX};
pub use freeze::FreezeDetector;
pub use jitter::JitterMeter;
pub use sequence::{
    GAPS_MAX, LOWER_PACKETS_MAX, Placement, Receipt, SequenceLedger, Via, WINDOW_PACKETS,
};
pub use stream::{MediaPacket, StreamLedger};
