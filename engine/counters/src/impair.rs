//! What was done on purpose.

use crate::counters;

counters! {
    /// Packets and what was done to them on purpose. Received RTP, retransmissions included, but
    /// for `other_dropped` and `unsent`.
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
        /// Datagrams of ours that did not leave: the peer was cut off, or had no way yet after a
        /// change of its network.
        unsent: u64 = Packets, Neither;
    }
}
