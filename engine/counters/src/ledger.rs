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
        /// Packets that were asked for again and not sent again, because they had just been, or three
        /// times already.
        resends_refused: u64 = Packets, Neither;
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
        /// Times the layer changed: the simulcast layer, or the spatial one of several in one stream.
        layer_switches: u64 = Times, Neither;
        /// Times the track was paused because its lowest layer did not fit the way to the subscriber.
        pauses: u64 = Times, Lower;
    }
}

counters! {
    /// What subscribers told of the way to them, and what the SFU made of it.
    pub struct CongestionCounters: Run {
        /// Estimates received (REMB).
        estimates: u64 = Messages, Neither;
        /// Reports of when packets arrived that were received (transport-wide feedback).
        arrival_reports: u64 = Messages, Neither;
        /// Receiver reports that came since the first of either.
        reports: u64 = Messages, Neither;
        /// Times the way to a subscriber was found congested, so that it got less.
        congestions: u64 = Times, Lower;
        /// Probes for more room.
        probes: u64 = Times, Neither;
        /// Those that congested the way.
        probes_congested: u64 = Times, Neither;
        /// Packets of padding sent in them; in no other count.
        padding_packets: u64 = Packets, Neither;
    }
}

counters! {
    /// Participants that came and went.
    pub struct AttendanceCounters: Run {
        /// Participants that joined.
        joins: u64 = Participants, Neither;
        /// Participants that left or were removed.
        leaves: u64 = Participants, Neither;
    }
}

counters! {
    /// What the SFU's signalling counts.
    pub struct SfuSignallingCounters: Run {
        /// In all rooms.
        attendance (flatten): AttendanceCounters;
        /// Joins by protocol v1: a single peer connection for both directions.
        joins_v1: u64 = Times, Neither;
        /// WebSocket upgrades refused, any reason.
        joins_refused: u64 = Times, Lower;
        /// Signalling connections closed because the client read too slowly: 200 messages waited for it, or
        /// one for 10 s.
        signalling_overflows: u64 = Times, Lower;
        /// Signalling messages that were not carried out because they can't be read, or hold more than
        /// anybody has use for.
        requests_refused: u64 = Messages, Lower;
        /// Times the requests of a participant were read later because it had made more than any client
        /// has to: a thousand a second, 10,000 at once, and fewer where others are told of them.
        requests_delayed: u64 = Times, Lower;
        /// Messages of data channels that were not passed on: they can't be read, name too many
        /// receivers, are of no data track of their sender's, or it may not send any.
        messages_refused: u64 = Messages, Lower;
        /// Messages of data channels for participants without a connection to get them by, once for each
        /// of them.
        messages_undeliverable: u64 = Messages, Lower;
        /// Signalling connections closed because the client said nothing for 30 s, not even in answer to pings.
        signalling_timeouts: u64 = Times, Lower;
        /// Connections closed before they joined because a request took too long, or the next one did not
        /// come.
        connections_timed_out: u64 = Times, Neither;
        /// Connections closed before they joined because another one needed their place.
        connections_displaced: u64 = Times, Lower;
        /// New signalling connections that took over a participant.
        resumes: u64 = Times, Neither;
        /// Those that were told to join anew, because there was no such participant.
        resumes_refused: u64 = Times, Neither;
        /// Peer connections that got new ICE credentials, whoever asked for it.
        ice_restarts: u64 = Times, Neither;
        /// Peer connections on which the client fell silent, so that it was told to resume.
        media_lost: u64 = Times, Lower;
        /// Participants removed because nobody resumed them within the departure time.
        departures: u64 = Participants, Lower;
        /// Participants removed because their primary connection was not up within a minute.
        joins_timed_out: u64 = Participants, Lower;
        /// `SimulateScenario` requests played.
        scenarios_simulated: u64 = Times, Neither;
        /// Participants moved to another room; each is among the leaves of one and the joins of the
        /// other.
        moves: u64 = Times, Neither;
    }
}

counters! {
    /// What a media worker of the SFU counts.
    pub struct SfuWorkerCounters: Worker {
        /// Datagrams received.
        datagrams_in: u64 = Packets, Neither;
        /// Datagrams the kernel took for sending.
        datagrams_out: u64 = Packets, Neither;
        /// Received datagrams that belong to no peer.
        datagrams_unknown: u64 = Packets, Neither;
        /// Connectivity checks that count for nothing for the address they came from, datagrams that were
        /// not sent for theirs, and media that is not of who lives where it came from: an address belongs
        /// to the peer that lives there, and a peer has a few in all.
        addresses_refused: u64 = Packets, Neither;
        /// TCP connections closed because no peer came by them within 10 s, or theirs was gone for so long.
        tcp_timed_out: u64 = Times, Neither;
        /// TCP connections closed because there were too many, in all or of their source, and no peer had
        /// come by them.
        tcp_displaced: u64 = Times, Lower;
        /// Datagrams that no peer could make anything of although they came from its address: broken
        /// DTLS, or feedback that can't be read.
        datagrams_malformed: u64 = Packets, Neither;
        /// Datagrams the kernel refused.
        send_errors: u64 = Packets, Lower;
        /// Datagrams for clients over TCP whose connection was gone, which is no loss of the SFU's. Of
        /// UDP none is told: the kernel keeps to itself that a receiver was gone (its report would hold
        /// up what goes to others).
        undeliverable: u64 = Packets, Neither;
        /// Datagrams not sent because the send queue was full.
        send_queue_full: u64 = Packets, Lower;
        /// Datagrams the kernel dropped on the worker's receive socket.
        kernel_drops: u64 = Packets, Lower;
        /// Media packets from other workers lost because this worker's mailbox was full.
        mailbox_full: u64 = Packets, Lower;
        /// Media packets not forwarded because too many of their track waited already; once for each
        /// subscriber of the worker that lacks them.
        backlog_full: u64 = Packets, Lower;
        /// Messages that came over clients' data channels.
        messages_received: u64 = Messages, Neither;
        /// Messages handed to data channels, once for each client that was to get them.
        messages_sent: u64 = Messages, Neither;
        /// Messages that a client did not get because its data channel was not open, its buffer was full
        /// or it was gone.
        messages_unsent: u64 = Messages, Lower;
        /// Those of `messages_unsent` that were to come by the reliable channel, whose sender was promised
        /// that they would.
        messages_unsent_reliable: u64 = Messages, Lower;
        /// Messages of data channels beyond the 16 that a client may open.
        messages_ignored: u64 = Messages, Lower;
        /// Messages dropped on purpose on their way to a client.
        messages_withheld: u64 = Messages, Neither;
        /// Messages of clients' data channels dropped because too many waited for the signalling
        /// thread.
        messages_dropped: u64 = Messages, Lower;
        /// Datagrams of clients that were joining, dropped because too many waited for the worker to have
        /// time for them. ICE and DTLS repeat theirs, so the join took longer.
        joins_dropped: u64 = Packets, Lower;
        /// Packets of publishers' SSRCs beyond the 512 of each that are looked at.
        media_ignored: u64 = Packets, Lower;
        /// Packets not sent because the queue of packets held back was full; among the tracks'
        /// `dropped`.
        delay_queue_full: u64 = Packets, Lower;
        /// Publishers' packets dropped on purpose before they were counted as received.
        upstream_dropped: u64 = Packets, Neither;
    }
}

impl SfuWorkerCounters {
    /// Packets that its kernel or its queues lost, which nobody asked for.
    pub fn lost_inside(&self) -> u64 {
        let queues = self.send_queue_full + self.mailbox_full + self.backlog_full;
        self.send_errors + self.kernel_drops + queues
    }
}

counters! {
    /// What the SFU received of one published track.
    pub struct PublishedCounters: Run {
        /// Packets received, all layers, retransmitted ones included, duplicates not.
        packets_received: u64 = Packets, Neither;
        /// Their payload bytes.
        bytes_received: u64 = Bytes, Neither;
        /// Sequence numbers that never arrived, over all layers.
        packets_lost: u64 = Packets, Lower;
        /// Packets without payload, which are not forwarded.
        padding_only: u64 = Packets, Neither;
        /// Packets of redundant audio (RED) that can't be taken apart, which are not forwarded.
        red_malformed: u64 = Packets, Lower;
        /// Keyframes seen, all layers.
        keyframes: u64 = Frames, Neither;
        /// PLIs sent to the publisher for this track.
        plis_sent: u64 = Messages, Neither;
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
        /// Of the way to them.
        congestion (flatten): CongestionCounters;
        /// Of publishers.
        upstream (flatten): UpstreamCounters;
    }
}
