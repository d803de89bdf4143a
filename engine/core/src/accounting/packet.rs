//! A packet as frames are made of it.

use crate::Arrival;

/// One packet that arrived in time.
#[derive(Debug, Clone, Copy)]
pub struct FramePacket<'a> {
    /// Extended sequence number.
    pub sequence: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker: the frame ends here.
    pub marker: bool,
    /// Payload; `None` where only the header could be read.
    pub payload: Option<&'a [u8]>,
    /// Value of the dependency descriptor header extension, where the packet has one.
    pub dependency_descriptor: Option<&'a [u8]>,
    /// When it arrived.
    pub at: Arrival,
}
