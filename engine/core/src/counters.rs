//! What a peer counted. Units are in the last word of a name; unknown is `None`, never 0.

use std::time::Duration;

use stampede_media::Codec;

use crate::accounting::LatencyCounters;
use crate::{Arrival, MediaKind};

/// Packets of one or more received streams (docs/measurement.md, "Packets"). Counts are over the
/// measured window; packets without payload (padding, probes) are excluded from all but
/// `padding_only`.
///
/// `missing == repaired + unrecovered + pending`, `late <= unrecovered`, and
/// `expected == received + missing - repaired - late`.
///
/// A stream that ends while numbers are missing whose playout deadline has not passed leaves them
/// out of both `expected` and `missing`: they were cut off by us, not lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketCounters {
    /// Extended highest − first sequence number + 1 (RFC 3550 A.3), less `padding_only` and
    /// `cut_off`.
    pub expected: u64,
    /// Distinct packets that arrived, late ones included.
    pub received: u64,
    /// Sequence numbers that had not arrived when a higher one did.
    pub missing: u64,
    /// Missing ones that arrived within the playout deadline, by RTX or on the primary SSRC.
    pub repaired: u64,
    /// Missing ones that arrived after it.
    pub late: u64,
    /// Missing ones that are not repaired and can't be any more; `late` ones included.
    pub unrecovered: u64,
    /// Missing ones whose deadline has not passed yet; 0 in a final report.
    pub pending: u64,
    /// Sequence numbers still open when the stream ended: they might have come in time had we
    /// stayed. Neither `expected` nor `missing`.
    pub cut_off: u64,
    /// Packets of a sequence number that had arrived before, on the primary SSRC.
    pub duplicate: u64,
    /// Packets on the primary SSRC that came after a higher sequence number; each of them is in
    /// `missing` too. `missing - reordered` is what was lost in first transmission.
    pub reordered: u64,
    /// Repairs that came by RTX, within `repaired` and `late`.
    pub rtx_repairs: u64,
    /// RTX packets that brought nothing: padding, probes, repeats.
    pub rtx_redundant: u64,
    /// Packets on the primary SSRC without payload, or with a blank frame of the server's own.
    pub padding_only: u64,
    /// Of them those with a blank frame of the server's own: silence while a track is muted.
    pub server_made: u64,
    /// Packets from too far behind, or from before the measured window, to be told from
    /// duplicates; in no other count.
    pub stale: u64,
    /// Payload bytes of received packets.
    pub bytes: u64,
}

/// Frames of one or more received streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounters {
    /// Frames of which any packet arrived in time.
    pub received: u64,
    /// Frames with every packet there by the deadline.
    pub complete: u64,
    /// Complete frames whose references are all decodable. `None` for codecs whose dependencies
    /// are not followed yet.
    pub decodable: Option<u64>,
    /// Frames known to exist that can't be shown: incomplete, undecodable, or lost whole.
    /// `None` where `decodable` is.
    pub dropped: Option<u64>,
    /// Complete keyframes.
    pub keyframes: u64,
}

/// Freezes by libwebrtc's rule (docs/measurement.md, "Freezes").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FreezeCounters {
    /// How many.
    pub count: u64,
    /// Their lengths added up.
    pub total: Duration,
    /// Streams with at least one.
    pub streams: u64,
    /// Of `count` those with a frame in them that was lost or could not be decoded. In the others
    /// every frame came, but late.
    pub lossy: u64,
    /// Their lengths added up, within `total`.
    pub lossy_total: Duration,
}

/// What was received of one kind of media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaCounters {
    /// Streams (primary SSRCs) the server announced, closed ones included.
    pub streams_announced: u64,
    /// Streams of which at least one packet arrived.
    pub streams_received: u64,
    /// Packets.
    pub packets: PacketCounters,
    /// Frames.
    pub frames: FrameCounters,
    /// Freezes; stays 0 for audio.
    pub freezes: FreezeCounters,
    /// NACK messages sent.
    pub nack_sent: u64,
    /// PLI messages sent.
    pub pli_sent: u64,
    /// Switches between simulcast layers; `None` where no stream's can be seen.
    pub layer_switches: Option<u64>,
    /// What is known of the latency of complete frames. The latencies go to
    /// [`PeerSink::sample`](crate::PeerSink::sample).
    pub latency: LatencyCounters,
}

/// What a publisher sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublishCounters {
    /// Tracks.
    pub tracks: u64,
    /// RTP packets of media, retransmissions not included.
    pub packets_sent: u64,
    /// Their payload bytes.
    pub bytes_sent: u64,
    /// Retransmitted packets (RTX).
    pub retransmitted: u64,
    /// NACK messages received; up to [`crate::peer::STATS_INTERVAL`] old.
    pub nack_received: u64,
    /// PLI and FIR messages acted on.
    pub pli_received: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Video keyframes sent.
    pub keyframes_sent: u64,
    /// Jumps to a keyframe because of a PLI.
    pub keyframe_jumps: u64,
    /// Packets the server's receiver reports call lost, cumulative; `None` before the first.
    pub upstream_lost: Option<u64>,
    /// Packets the server's receiver reports cover; with it `upstream_lost` is a rate.
    pub upstream_expected: Option<u64>,
    /// Packets that left more than [`crate::publish::LATE_AFTER`] after they were due.
    pub late_packets: u64,
    /// How late the latest left. All lateness goes to
    /// [`PeerSink::sample`](crate::PeerSink::sample).
    pub lateness_max: Duration,
    /// Layers the server said nobody wants, each time it said so (dynacast).
    pub layer_pauses: u64,
    /// Frames not sent for that reason, or because the server muted the track.
    pub frames_withheld: u64,
}

/// Datagrams of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Datagrams given to the peer.
    pub datagrams_received: u64,
    /// Datagrams handed to the sink.
    pub datagrams_sent: u64,
    /// Not STUN, DTLS, RTP or RTCP, or broken.
    pub malformed: u64,
    /// RTP of an SSRC no offer named.
    pub unknown_ssrc: u64,
    /// RTP of a known SSRC that failed authentication or has an unknown payload type; RTCP that
    /// failed authentication.
    pub rejected: u64,
    /// RTP that arrived before DTLS was up.
    pub before_connected: u64,
    /// Errors of str0m, for example a handshake that failed.
    pub errors: u64,
    /// Datagrams of ours dropped because nobody drained the peer.
    pub dropped_unsent: u64,
}

/// One value of a distribution, handed out as it is measured: a histogram for each stream would
/// cost more memory than the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A frame was complete: from its publisher's stamp to the kernel's for its last packet.
    Latency {
        /// Audio or video.
        kind: MediaKind,
        /// Height of the picture in pixels, where known: tells simulcast layers apart.
        height: Option<u16>,
        /// How long.
        latency: Duration,
    },
    /// From a PLI (the first since the last keyframe) to a complete keyframe.
    KeyframeAfterPli(Duration),
    /// A publisher's frame left this late.
    Published {
        /// After it was due.
        lateness: Duration,
        /// Its packets.
        packets: u64,
    },
}

/// A peer's counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Received video.
    pub video: MediaCounters,
    /// Received audio.
    pub audio: MediaCounters,
    /// Sent media.
    pub publish: PublishCounters,
    /// Datagrams.
    pub transport: TransportCounters,
}

/// What the sender says it sent between two of its reports, and what came of it. Both reports lie
/// in the measured window; the sender's count is of every packet of the SSRC, padding included or
/// not as the sender sees fit (RFC 3550 §6.4.1 leaves retransmissions open too).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderWindow {
    /// Growth of the sender's packet count.
    pub sent: u64,
    /// Sequence numbers passed over, padding-only ones included.
    pub span: u64,
    /// Of them received padding-only.
    pub padding_only: u64,
    /// Of them not received in first transmission.
    pub missing: u64,
}

/// One received stream (primary SSRC) at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamReport {
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec; `None` if no packet came.
    pub codec: Option<Codec>,
    /// Primary SSRC.
    pub ssrc: u32,
    /// Mid of its m-line.
    pub mid: String,
    /// LiveKit track id (`TR_…`), from `mid_to_track_id`, else from `a=msid`.
    pub track_id: Option<String>,
    /// Packets.
    pub packets: PacketCounters,
    /// Frames.
    pub frames: FrameCounters,
    /// Freezes.
    pub freezes: FreezeCounters,
    /// Interarrival jitter at the end (RFC 3550 A.8); `None` with fewer than two frames.
    pub jitter: Option<Duration>,
    /// NACK messages sent.
    pub nack_sent: u64,
    /// PLI messages sent.
    pub pli_sent: u64,
    /// Switches between simulcast layers; `None` where they can't be seen.
    pub layer_switches: Option<u64>,
    /// What is known of the latency of complete frames.
    pub latency: LatencyCounters,
    /// First packet with payload.
    pub first_packet: Option<Arrival>,
    /// Last packet with payload.
    pub last_packet: Option<Arrival>,
    /// First complete keyframe.
    pub first_keyframe: Option<Arrival>,
    /// Packets the sender says it sent, from its last sender report.
    pub sender_packets: Option<u64>,
    /// When that report came.
    pub sender_report_at: Option<Arrival>,
    /// Between the first and the last sender report of the measured window; `None` with fewer than
    /// two.
    pub sender_window: Option<SenderWindow>,
    /// Payload bits a second between first and last packet; `None` with fewer than two.
    pub bitrate_bps: Option<f64>,
    /// The stream was replaced or removed by a later offer.
    pub closed: bool,
}

/// One published layer at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishReport {
    /// Client track id.
    pub cid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Simulcast layer.
    pub rid: Option<&'static str>,
    /// Primary SSRC once negotiated.
    pub ssrc: Option<u32>,
    /// Counts of this layer; `tracks` is 1.
    pub counters: PublishCounters,
}

/// Everything a peer counted, at its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PeerReport {
    /// Received streams, closed ones included.
    pub streams: Vec<StreamReport>,
    /// Published layers.
    pub published: Vec<PublishReport>,
    /// The sums.
    pub counters: PeerCounters,
    /// Reports left out of `streams` because more than
    /// [`crate::peer::CLOSED_STREAMS_MAX`] streams were closed; their counts are in the sums.
    pub streams_left_out: u64,
}

fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0) + value);
    }
}

impl PacketCounters {
    /// Adds another stream's counts.
    pub fn merge(&mut self, other: &Self) {
        self.expected += other.expected;
        self.received += other.received;
        self.missing += other.missing;
        self.repaired += other.repaired;
        self.late += other.late;
        self.unrecovered += other.unrecovered;
        self.pending += other.pending;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.rtx_repairs += other.rtx_repairs;
        self.rtx_redundant += other.rtx_redundant;
        self.padding_only += other.padding_only;
        self.server_made += other.server_made;
        self.cut_off += other.cut_off;
        self.stale += other.stale;
        self.bytes += other.bytes;
    }

    /// `unrecovered / expected`; `None` while nothing is expected.
    pub fn loss_rate(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.unrecovered as f64 / self.expected as f64)
    }

    /// `missing / expected`; `None` while nothing is expected.
    pub fn missing_rate(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.missing as f64 / self.expected as f64)
    }
}

impl FrameCounters {
    /// Adds another stream's counts.
    pub fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.complete += other.complete;
        self.keyframes += other.keyframes;
        add(&mut self.decodable, other.decodable);
        add(&mut self.dropped, other.dropped);
    }
}

impl FreezeCounters {
    /// Adds another stream's counts.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.total += other.total;
        self.streams += other.streams;
        self.lossy += other.lossy;
        self.lossy_total += other.lossy_total;
    }
}

impl MediaCounters {
    /// Adds another peer's counts.
    pub fn merge(&mut self, other: &Self) {
        self.streams_announced += other.streams_announced;
        self.streams_received += other.streams_received;
        self.packets.merge(&other.packets);
        self.frames.merge(&other.frames);
        self.freezes.merge(&other.freezes);
        self.nack_sent += other.nack_sent;
        self.pli_sent += other.pli_sent;
        add(&mut self.layer_switches, other.layer_switches);
        self.latency.merge(&other.latency);
    }
}

impl PublishCounters {
    /// Adds another publisher's counts.
    pub fn merge(&mut self, other: &Self) {
        self.tracks += other.tracks;
        self.packets_sent += other.packets_sent;
        self.bytes_sent += other.bytes_sent;
        self.retransmitted += other.retransmitted;
        self.nack_received += other.nack_received;
        self.pli_received += other.pli_received;
        self.frames_sent += other.frames_sent;
        self.keyframes_sent += other.keyframes_sent;
        self.keyframe_jumps += other.keyframe_jumps;
        add(&mut self.upstream_lost, other.upstream_lost);
        add(&mut self.upstream_expected, other.upstream_expected);
        self.late_packets += other.late_packets;
        self.lateness_max = self.lateness_max.max(other.lateness_max);
        self.layer_pauses += other.layer_pauses;
        self.frames_withheld += other.frames_withheld;
    }

    /// Share of packets that the server's receiver reports call lost; `None` before the first.
    pub fn upstream_loss_rate(&self) -> Option<f64> {
        let expected = self.upstream_expected.filter(|&expected| expected > 0)?;
        Some(self.upstream_lost? as f64 / expected as f64)
    }
}

impl TransportCounters {
    /// Adds another peer's counts.
    pub fn merge(&mut self, other: &Self) {
        self.datagrams_received += other.datagrams_received;
        self.datagrams_sent += other.datagrams_sent;
        self.malformed += other.malformed;
        self.unknown_ssrc += other.unknown_ssrc;
        self.rejected += other.rejected;
        self.before_connected += other.before_connected;
        self.errors += other.errors;
        self.dropped_unsent += other.dropped_unsent;
    }
}

impl PeerCounters {
    /// RTP packets that reached the peer, whatever became of them: padding, duplicates and resent
    /// ones included.
    pub fn rtp_arrived(&self) -> u64 {
        let of = |media: &MediaCounters| {
            let packets = &media.packets;
            packets.received
                + packets.duplicate
                + packets.rtx_redundant
                + packets.padding_only
                + packets.stale
        };
        let transport = &self.transport;
        let unaccounted = transport.unknown_ssrc + transport.rejected + transport.before_connected;
        of(&self.video) + of(&self.audio) + unaccounted
    }

    /// Adds another peer's counts.
    pub fn merge(&mut self, other: &Self) {
        self.video.merge(&other.video);
        self.audio.merge(&other.audio);
        self.publish.merge(&other.publish);
        self.transport.merge(&other.transport);
    }
}
