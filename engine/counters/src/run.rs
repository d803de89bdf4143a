//! The counters of a peer, of a run, and all there are.

use crate::{
    DataCounters, GeneratorCounters, ImpairCounters, JoinGroups, LedgerTotals, MediaCounters,
    PacketCounters, PublishCounters, RecordingCounters, RecoveryGroups, RpcCounters,
    SfuSignallingCounters, SignallingGroups, StreamStats, TransportCounters, UdpStats,
    UncategorisedCounters, WorkerUncategorisedCounters, counters,
};

counters! {
    /// A peer's counters at one moment.
    pub struct PeerCounters: Peer {
        /// Received video.
        video: MediaCounters;
        /// Received audio.
        audio: MediaCounters;
        /// Sent media.
        publish: PublishCounters;
        /// Data messages.
        data: DataCounters;
        /// Calls between participants.
        rpc: RpcCounters;
        /// Datagrams.
        transport: TransportCounters;
        /// What was done on purpose. What is done to received packets is done before they get to
        /// the peer, which knows nothing of it.
        impairment: ImpairCounters;
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
}

counters! {
    /// Everything that workers count while a run is under way, under the keys of the report.
    pub struct RunCounters: Worker {
        /// Received video.
        video: MediaCounters, metric "";
        /// Received audio.
        audio: MediaCounters, metric "";
        /// Sent media.
        publish: PublishCounters, metric "published_";
        /// Data messages.
        data: DataCounters, metric "";
        /// Calls between participants.
        rpc: RpcCounters, metric "rpc_";
        /// The load box itself.
        generator: GeneratorCounters, metric "worker_";
        /// What was injected on purpose.
        impairment: ImpairCounters;
    }
}

impl RunCounters {
    /// Of a worker: the sums of its peers, its sockets' counts, and its own.
    pub fn new(
        peers: &PeerCounters,
        udp: UdpStats,
        streams: StreamStats,
        worker: WorkerUncategorisedCounters,
    ) -> Self {
        let PeerCounters { video, audio, publish, data, rpc, transport: peers, impairment } =
            *peers;
        let uncategorised = UncategorisedCounters { peers, udp: udp.uncategorised, worker };
        let peer_datagrams = peers.datagrams;
        let generator = GeneratorCounters { udp, streams, peer_datagrams, uncategorised };
        Self { video, audio, publish, data, rpc, generator, impairment }
    }

    /// Packets of both kinds of media.
    pub fn packets(&self) -> PacketCounters {
        let mut sum = self.video.packets;
        sum.merge(&self.audio.packets);
        sum
    }
}

counters! {
    /// What became of received media in one second, video and audio together.
    pub struct SecondCounters: Run {
        /// Packets that should have arrived in this second.
        expected: u64 = Packets, Neither;
        /// Packets found missing in this second.
        missing: u64 = Packets, Lower;
        /// Missing packets that came in time in this second.
        repaired: u64 = Packets, Neither;
        /// Missing packets whose payload came in time with a later packet (RED) in this second.
        repaired_by_red: u64 = Packets, Neither;
        /// Missing packets that came too late in this second.
        late: u64 = Packets, Lower;
        /// Packets given up in this second.
        unrecovered: u64 = Packets, Lower;
        /// Freezes that ended in this second.
        freezes: u64 = Times, Lower;
    }
}

impl SecondCounters {
    /// Of what the counters of a run grew by in it.
    pub fn of(grown: &RunCounters) -> Self {
        let packets = grown.packets();
        let PacketCounters { expected, missing, repaired, repaired_by_red, late, .. } = packets;
        let (unrecovered, freezes) = (packets.unrecovered, grown.video.freezes.count);
        Self { expected, missing, repaired, repaired_by_red, late, unrecovered, freezes }
    }
}

counters! {
    /// All counters there are, under the keys of the report.
    pub struct ReportCounters: Run {
        /// Of the workers.
        run (flatten): RunCounters;
        /// Of joins.
        join: JoinGroups;
        /// How participants that had been connected came back.
        recoveries: RecoveryGroups;
        /// What participants told and heard of each other over signalling.
        signalling: SignallingGroups;
        /// Of recordings.
        recordings: RecordingCounters;
        /// The server's own.
        server: ServerGroups;
    }
}

counters! {
    /// The server's own counters.
    pub struct ServerGroups: Run {
        /// Of the embedded SFU.
        embedded: EmbeddedGroups;
    }
}

counters! {
    /// The embedded SFU's counters.
    pub struct EmbeddedGroups: Run {
        /// Of its signalling, since it started.
        signalling (flatten): SfuSignallingCounters;
        /// Since it started.
        totals: LedgerTotals;
        /// In the measured window.
        measured: LedgerTotals;
    }
}
