//! What was done on purpose.

use crate::counters;

counters! {
    /// Received packets and what was done to them on purpose. RTP, retransmissions included, but
    /// for `other_dropped`.
    pub struct ImpairCounters: Peer {
        /// Packets dropped: by loss, by an outage, or in front of a limited rate.
        dropped: u64 = Packets, Lower;
        /// Packets accounted later than they arrived.
        delayed: u64 = Packets, Neither;
        /// Packets held back so that others overtook them; among the delayed.
        reordered: u64 = Packets, Lower;
        /// Packets given to the peer twice.
        duplicated: u64 = Packets, Neither;
        /// RTCP packets dropped, and in outages everything else.
        other_dropped: u64 = Packets, Neither;
    }
}
