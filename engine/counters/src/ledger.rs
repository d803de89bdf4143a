//! What the embedded SFU counts.

use crate::counters;

counters! {
    /// What the SFU sent to subscribers, and what they asked for.
    pub struct ForwardCounters: Run {
        /// First transmissions sent or held back to be sent; injected drops are not among them.
        packets_sent: u64 = Packets, Neither;
        /// Bytes of `packets_sent` and `retransmitted` as UDP payload.
        bytes_sent: u64 = Bytes, Neither;
        /// Retransmissions handed to the socket.
        retransmitted: u64 = Packets, Lower;
        /// First transmissions dropped by injection.
        dropped: u64 = Packets, Lower;
        /// Those of `dropped` that lie between two that were sent: what the subscriber can know to
        /// be missing.
        dropped_between: u64 = Packets, Neither;
        /// Retransmissions dropped by injection.
        retransmits_dropped: u64 = Packets, Neither;
        /// Packets sent later than they could have been, on purpose; retransmissions included.
        delayed: u64 = Packets, Neither;
        /// Packets held back until later ones overtook them; retransmissions included.
        reordered: u64 = Packets, Lower;
        /// Packets sent twice; counted once in `packets_sent` or `retransmitted`.
        duplicated: u64 = Packets, Neither;
        /// Broken datagrams sent in addition.
        malformed: u64 = Packets, Neither;
        /// RTCP packets with NACKs received from subscribers; of one track's row, shared by its
        /// streams.
        nacks_received: u64 = Messages, Neither;
        /// Keyframe requests received from subscribers.
        plis_received: u64 = Messages, Neither;
        /// Times the simulcast layer changed.
        layer_switches: u64 = Times, Neither;
    }
}

counters! {
    /// What the SFU received of publishers.
    pub struct UpstreamCounters: Run {
        /// Packets received, all layers, retransmitted ones included, duplicates not.
        publisher_packets_received: u64 = Packets, Neither;
        /// Sequence numbers that never arrived, over all layers.
        publisher_packets_lost: u64 = Packets, Neither;
        /// PLIs sent to publishers.
        plis_relayed: u64 = Messages, Neither;
    }
}

counters! {
    /// Sums over rooms, subscribers and tracks.
    pub struct LedgerTotals: Run {
        /// To subscribers.
        forward (flatten): ForwardCounters;
        /// Of publishers.
        upstream (flatten): UpstreamCounters;
    }
}
