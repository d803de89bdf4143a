//! Datagrams of peers and workers.

use crate::counters;

counters! {
    /// Datagrams of one peer.
    pub struct PeerDatagrams: Peer {
        /// Datagrams given to peers.
        received: u64 = Packets, Neither;
        /// Datagrams that peers handed out.
        sent: u64 = Packets, Neither;
    }
}

counters! {
    /// Datagrams of one peer, and what it counts that fits no other count.
    pub struct TransportCounters: Peer {
        /// All of them.
        datagrams (skip): PeerDatagrams;
        /// Datagrams that are not STUN, DTLS, RTP or RTCP, or are broken, and those of a DTLS handshake from
        /// where the server is not.
        malformed: u64 = Packets, Neither;
        /// RTP packets of an SSRC that no offer named.
        unknown_ssrc: u64 = Packets, Neither;
        /// RTP packets of a known SSRC that failed authentication or have an unknown payload type,
        /// and RTCP packets that failed authentication.
        rejected: u64 = Packets, Neither;
        /// RTP packets that came before DTLS was up.
        before_connected: u64 = Packets, Neither;
        /// Errors of ICE, DTLS or SDP, for example a handshake that failed.
        errors as "connection_errors": u64 = Times, Neither;
        /// Datagrams of ours that were dropped because a peer had too many waiting.
        dropped_unsent as "unsent": u64 = Packets, Neither;
        /// Streams without a row of their own because their peer closed too many; they are in the
        /// sums.
        streams_left_out: u64 = Streams, Neither;
    }
}

counters! {
    /// What a UDP backend did; all only grow.
    pub struct UdpStats: Worker {
        /// UDP datagrams received.
        datagrams_in as "packets_in": u64 = Packets, Neither, metric "worker_datagrams_received";
        /// Segment runs that they came in: what the kernel keeps together (UDP GRO) it queues,
        /// hands over and drops as one. A datagram alone is one.
        segment_runs_in as "udp_runs_in": u64 = Times, Neither;
        /// Of those the ones that came through the packet ring, where there is one: media does, STUN
        /// and DTLS do not.
        ring_runs_in: u64 = Times, Neither;
        /// UDP payload received.
        bytes_in: u64 = Bytes, Neither, metric "worker_received_bytes";
        /// UDP datagrams sent: the kernel took them.
        datagrams_out as "packets_out": u64 = Packets, Neither, metric "worker_datagrams_sent";
        /// UDP payload sent.
        bytes_out: u64 = Bytes, Neither, metric "worker_sent_bytes";
        /// Datagrams our kernel dropped, because a socket's receive buffer was full. It counts a
        /// segment run as one; those are taken to be as long as the socket's segment runs are on
        /// average.
        kernel_drops as "udp_dropped": u64 = Packets, Lower, metric "worker_kernel_drops";
        /// Segment runs it dropped, as it counts them.
        segment_runs_dropped as "udp_runs_dropped": u64 = Times, Lower;
        /// Segment runs that found the packet ring full and went to their socket's receive buffer
        /// instead, as they do without a ring; none is lost by that.
        ring_spills: u64 = Times, Lower;
        /// Datagrams the kernel refused to send.
        send_errors: u64 = Packets, Lower, metric "worker_send_errors";
        /// Datagrams that left and that the network reported as undeliverable (ICMP), as it does
        /// for a peer that has closed its socket; not among `send_errors`.
        undeliverable: u64 = Packets, Neither;
        /// Datagrams that found our send queue full, and were not sent.
        send_queue_full: u64 = Packets, Lower, metric "worker_send_queue_full";
        /// System calls made.
        syscalls: u64 = Times, Neither;
        /// What fits no other count.
        uncategorised (skip): UdpUncategorisedCounters;
    }
}

impl UdpStats {
    /// Datagrams of both ways.
    pub fn datagrams(&self) -> u64 {
        self.datagrams_in.saturating_add(self.datagrams_out)
    }

    /// Datagrams that were to be sent and did not leave.
    pub fn unsent(&self) -> u64 {
        self.send_errors.saturating_add(self.send_queue_full)
    }
}

counters! {
    /// What a UDP backend did that fits no other count.
    pub struct UdpUncategorisedCounters: Worker {
        /// Datagrams that are not handed out: longer than 2,048 bytes, or cut by the kernel.
        truncated: u64 = Packets, Neither;
        /// Datagrams that a packet ring still had of a socket that was closed, which nobody gets. What a
        /// socket itself still has is not counted.
        for_closed_sockets: u64 = Packets, Neither;
        /// Times a socket's receiving paused because all receive buffers were in use. Nothing is
        /// lost by that: datagrams wait in the socket. Many pauses mean that there are few buffers.
        receive_pauses: u64 = Times, Neither;
    }
}

counters! {
    /// What was sent and received over TCP: by ICE's framing, or to a TURN server. All only grow.
    pub struct StreamStats: Worker {
        /// TCP connections that came up.
        connected as "tcp_connected": u64 = Times, Neither;
        /// TCP connections that did not come up.
        connects_failed as "tcp_failed": u64 = Times, Neither;
        /// Datagrams received over TCP.
        datagrams_in as "tcp_packets_in": u64 = Packets, Neither;
        /// Datagrams sent over TCP: the kernel took them.
        datagrams_out as "tcp_packets_out": u64 = Packets, Neither;
        /// Bytes received over TCP.
        bytes_in as "tcp_bytes_in": u64 = Bytes, Neither;
        /// Bytes sent over TCP.
        bytes_out as "tcp_bytes_out": u64 = Bytes, Neither;
        /// Datagrams of ours that were dropped because a TCP connection had too many waiting: the
        /// network or the server takes no more.
        write_queue_full as "tcp_unsent": u64 = Packets, Lower;
        /// Datagrams of ours that waited for a TCP connection when it ended, or were for one that was
        /// not there.
        ended_unsent as "tcp_ended_unsent": u64 = Packets, Neither;
        /// Times that a TCP connection took no more for a while. Nothing is lost by that.
        write_waits as "tcp_write_waits": u64 = Times, Neither;
        /// Datagrams over TCP longer than 2,048 bytes, which are not handed out.
        too_long as "tcp_too_long": u64 = Packets, Neither;
        /// System calls made for TCP, to write, to read and to ask what is ready.
        syscalls as "tcp_syscalls": u64 = Times, Neither;
    }
}

counters! {
    /// What a worker counts that fits no other count.
    pub struct WorkerUncategorisedCounters: Worker {
        /// Datagrams for a peer that had just been closed.
        orphans: u64 = Packets, Neither;
        /// Snapshots that were not made because too many events waited.
        snapshots_dropped: u64 = Times, Neither;
    }
}

counters! {
    /// What fits no other count of the measured window. Little of it is no trouble: packets of a
    /// stream or a peer that has just been closed, for example.
    pub struct UncategorisedCounters: Worker {
        /// Of peers.
        peers (flatten): TransportCounters;
        /// Of the UDP backend.
        udp (flatten): UdpUncategorisedCounters;
        /// Of the worker.
        worker (flatten): WorkerUncategorisedCounters;
    }
}

counters! {
    /// What the load box itself sent and received, and what it lost.
    pub struct GeneratorCounters: Worker {
        /// Of the UDP backend.
        udp (flatten): UdpStats;
        /// Over TCP.
        streams (flatten): StreamStats;
        /// Datagrams by the peers' own count.
        peer_datagrams: PeerDatagrams;
        /// What fits no other count.
        uncategorised: UncategorisedCounters;
    }
}
