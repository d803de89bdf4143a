//! What was received.

use crate::{Longest, Seconds, counters};

counters! {
    /// Packets of one or more received streams, after docs/measurement.md. Counts are over the
    /// measured window; packets without payload (padding, probes) are excluded from all but
    /// `padding_only`.
    ///
    /// `missing == repaired + repaired_by_red + unrecovered + pending`, `late <= unrecovered`, and
    /// `expected == received + missing - repaired - late`.
    ///
    /// A stream that ends while numbers are missing whose playout deadline has not passed leaves
    /// them out of both `expected` and `missing`: they were cut off by us, not lost. The same holds
    /// of what went to where a peer was before it changed its network on purpose.
    pub struct PacketCounters: Stream {
        /// Packets that should have arrived: extended highest − first sequence number + 1
        /// (RFC 3550 A.3), less `padding_only` and `cut_off`.
        expected: u64 = Packets, Neither;
        /// Packets that arrived, each once; late ones are among them.
        received: u64 = Packets, Higher;
        /// Packets not there when passed over: a higher sequence number had arrived.
        missing: u64 = Packets, Lower;
        /// Missing packets that came in time: within the playout deadline, by RTX or on the primary
        /// SSRC.
        repaired: u64 = Packets, Neither;
        /// Missing packets that did not come in time, and whose payload did, with a later packet
        /// (RED, RFC 2198). They are not in `received`.
        repaired_by_red: u64 = Packets, Neither;
        /// Missing packets that came too late.
        late: u64 = Packets, Lower;
        /// Missing packets lost for good: not repaired in time, late ones included.
        unrecovered: u64 = Packets, Lower;
        /// Missing packets whose deadline has not passed yet; 0 in a final report.
        pending: u64 = Packets, Lower;
        /// Packets not there yet when a stream was ended, and within the playout deadline, and those
        /// that were sent to where we no longer were (`network_change`): they might have come had
        /// we stayed. Neither `expected` nor `missing`.
        cut_off: u64 = Packets, Neither;
        /// Packets that came again, on the primary SSRC.
        duplicate: u64 = Packets, Lower;
        /// Packets that came after a higher sequence number, on the primary SSRC; each of them is
        /// in `missing` too. `missing - reordered` is what was lost in first transmission.
        reordered: u64 = Packets, Lower;
        /// Repairs that came by RTX, within `repaired` and `late`.
        rtx_repairs: u64 = Packets, Neither;
        /// RTX packets that brought nothing: padding, probes, repeats.
        rtx_redundant: u64 = Packets, Neither;
        /// Packets on the primary SSRC without payload, or with a blank frame of the server's own.
        padding_only: u64 = Packets, Neither;
        /// Silence and blank frames of the server's own, while a track is muted; within
        /// `padding_only`.
        server_made: u64 = Packets, Neither;
        /// Packets from too far behind, or from before the measured window, to be told from
        /// duplicates; in no other count.
        stale: u64 = Packets, Neither;
        /// Packets of redundant audio (RED) that can't be taken apart; to all other counts they never
        /// came.
        red_malformed: u64 = Packets, Lower;
        /// Payload of received packets.
        bytes: u64 = Bytes, Higher, column "payload_bytes", metric "received_payload_bytes";
    }
}

impl PacketCounters {
    /// `unrecovered / expected`; `None` while nothing is expected.
    pub fn loss_rate(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.unrecovered as f64 / self.expected as f64)
    }

    /// `missing / expected`; `None` while nothing is expected.
    pub fn missing_rate(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.missing as f64 / self.expected as f64)
    }
}

counters! {
    /// Frames of one or more received streams.
    pub struct FrameCounters: Stream {
        /// Frames of which a packet arrived in time.
        received: u64 = Frames, Higher;
        /// Frames with all packets in time.
        complete: u64 = Frames, Higher;
        /// Complete frames whose references are decodable too. Unknown for codecs whose
        /// dependencies are not followed.
        decodable: Option<u64> = Frames, Higher;
        /// Frames known to exist that can't be shown: incomplete, undecodable, or lost whole.
        /// Unknown where `decodable` is.
        dropped: Option<u64> = Frames, Lower;
        /// Keyframes with all packets in time.
        keyframes: u64 = Frames, Neither, column "keyframes", metric "keyframes_complete";
    }
}

counters! {
    /// Freezes by libwebrtc's rule (docs/measurement.md).
    pub struct FreezeCounters: Stream {
        /// Freezes by libwebrtc's rule.
        count: u64 = Times, Lower, column "freezes", metric "freezes";
        /// Length of all freezes together.
        total_s: Seconds = Seconds, Lower, metric "freeze_seconds";
        /// Streams with at least one.
        streams: u64 = Streams, Lower;
        /// The same by cause.
        causes: FreezeCauses, column "freezes_", metric "freezes_";
    }
}

counters! {
    /// Freezes by cause.
    pub struct FreezeCauses: Stream {
        /// A frame in them was lost or could not be decoded.
        loss: FreezeCause;
        /// Every frame came, but later than its RTP timestamp says.
        late: FreezeCause;
        /// Every frame came when its RTP timestamp says: there was none in between. So it is with a
        /// file or an encoder of variable rate, and with one that stood still.
        silent: FreezeCause;
    }
}

counters! {
    /// Freezes of one cause.
    pub struct FreezeCause: Stream {
        /// How many freezes had this cause.
        count: u64 = Times, Lower;
        /// Their length together.
        total_s: Seconds = Seconds, Lower;
    }
}

counters! {
    /// What was sent back to the sender of a stream, and what became of it.
    pub struct FeedbackCounters: Stream {
        /// NACK messages sent.
        nack_sent: u64 = Messages, Lower, metric "nacks_sent";
        /// PLI messages sent.
        pli_sent: u64 = Messages, Lower, metric "plis_sent";
        /// REMB messages sent, each with an estimate of all video of a peer; counted for the stream
        /// that carries them.
        remb_sent: u64 = Messages, Neither, metric "rembs_sent";
        /// Transport-wide congestion control messages sent, each with the arrivals of all streams of a
        /// peer; counted for the stream that carries them.
        twcc_sent: u64 = Messages, Neither, metric "twccs_sent";
        /// Switches between layers: pictures of another height; unknown where no height is known.
        layer_switches: Option<u64> = Times, Neither;
        /// Of them those to smaller pictures.
        layer_switches_down: Option<u64> = Times, Neither;
    }
}

counters! {
    /// Frames that were complete in time, by what is known of their latency.
    pub struct LatencyCounters: Stream {
        /// Frames measured by LiveKit's packet trailer.
        packet_trailer: u64 = Frames, Neither;
        /// Frames measured by the header extension abs-capture-time.
        abs_capture_time: u64 = Frames, Neither;
        /// Frames whose stamp was reckoned from an earlier frame's.
        interpolated: u64 = Frames, Neither;
        /// Frames without a stamp.
        unstamped: u64 = Frames, Neither;
        /// Frames of publishers that are not this run's: their clock is not known.
        other_clock: u64 = Frames, Neither;
        /// Frames stamped after their arrival, or absurdly long before: a clock was set.
        implausible: u64 = Frames, Neither;
        /// The longest latency measured.
        max_s: Longest = Seconds, Lower;
    }
}

impl LatencyCounters {
    /// Frames measured.
    pub fn measured(&self) -> u64 {
        self.packet_trailer.saturating_add(self.abs_capture_time).saturating_add(self.interpolated)
    }
}

counters! {
    /// Streams (primary SSRCs) of a peer.
    pub struct StreamsCounters: Peer {
        /// Streams the server announced, closed ones included.
        announced as "streams_announced": u64 = Streams, Neither;
        /// Streams of which a packet arrived.
        received as "streams_received": u64 = Streams, Neither;
    }
}

counters! {
    /// What was received of one kind of media.
    pub struct MediaCounters: Stream {
        /// How many streams.
        streams (flatten): StreamsCounters;
        /// Packets.
        packets: PacketCounters, column "";
        /// Frames.
        frames: FrameCounters;
        /// Freezes; stays 0 for audio.
        freezes: FreezeCounters;
        /// What was sent back.
        feedback (flatten): FeedbackCounters;
        /// What is known of the latency of complete frames. The latencies themselves are a
        /// distribution.
        latency as "latency_source": LatencyCounters, column "latency_", metric "latency_";
    }
}
