//! What was published.

use crate::{Longest, counters};

counters! {
    /// What a publisher sent.
    pub struct PublishCounters: Peer {
        /// Tracks published.
        tracks: u64 = Tracks, Neither;
        /// Packets sent, resent ones left out.
        packets_sent: u64 = Packets, Neither, metric "published_packets";
        /// Payload of sent packets.
        bytes_sent: u64 = Bytes, Neither, metric "published_payload_bytes";
        /// Packets sent again (RTX), with `--adapt` padding among them.
        retransmitted: u64 = Packets, Lower, metric "published_resent_packets";
        /// NACK messages received; from statistics that are a second old at most.
        nack_received: u64 = Messages, Lower, metric "published_nacks_received";
        /// PLI messages received and acted on, FIR messages among them.
        pli_received: u64 = Messages, Lower, metric "published_plis_received";
        /// Frames sent.
        frames_sent: u64 = Frames, Neither;
        /// Video keyframes sent, all layers.
        keyframes_sent: u64 = Frames, Neither;
        /// Jumps to a keyframe because of a PLI.
        keyframe_jumps: u64 = Times, Neither;
        /// Packets lost on the way to the server, as its receiver reports say; unknown before the
        /// first.
        upstream_lost: Option<u64> = Packets, Lower;
        /// Packets that those reports cover; with it `upstream_lost` is a rate.
        upstream_expected: Option<u64> = Packets, Neither;
        /// Packets that left more than 10 ms after they were due.
        late_packets: u64 = Packets, Lower;
        /// How late the latest packet left.
        lateness_max_s: Longest = Seconds, Lower;
        /// Layers the server said nobody wants, each time it said so (dynacast).
        layer_pauses: u64 = Times, Neither;
        /// Layers that the way to the server had no room for any more, each time (`--adapt`).
        layer_drops: u64 = Times, Lower;
        /// Frames not sent for one of these reasons, or because the server muted the track.
        frames_withheld: u64 = Frames, Neither;
        /// Frames of silence that were not sent (DTX).
        frames_silent: u64 = Frames, Neither;
    }
}

impl PublishCounters {
    /// Share of packets that the server's receiver reports call lost; `None` before the first.
    pub fn upstream_loss_rate(&self) -> Option<f64> {
        let expected = self.upstream_expected.filter(|&expected| expected > 0)?;
        Some(self.upstream_lost? as f64 / expected as f64)
    }
}
