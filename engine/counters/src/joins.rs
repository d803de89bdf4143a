//! What signalling counts.

use crate::counters;

counters! {
    /// The server's signalling messages, and what was made of them. What was not used is counted
    /// here and changed nothing else.
    pub struct SessionCounters: Peer {
        /// Sessions joined by protocol v0: a peer connection for each direction.
        joined_v0: u64 = Times, Neither;
        /// Sessions joined by protocol v1: a single peer connection.
        joined_v1: u64 = Times, Neither;
        /// Messages of the server that were understood.
        messages: u64 = Messages, Neither;
        /// Messages that were not understood: bad protobuf, text frames, missing parts.
        malformed: u64 = Messages, Neither;
        /// Messages of a kind that this client doesn't know or need.
        unneeded: u64 = Messages, Neither;
        /// Offers of the server that were repeated, outdated or not for this role.
        offers_ignored: u64 = Messages, Neither;
        /// Answers, of either side, to no offer that was open.
        answers_ignored: u64 = Messages, Neither;
        /// Candidates that were malformed, for another peer connection, or too many.
        candidates_dropped: u64 = Times, Neither;
        /// Tracks past the most that a session takes.
        tracks_ignored: u64 = Tracks, Neither;
    }
}

counters! {
    /// Where participants stand, and what became of their tries to join. `requested` is always
    /// `joined`, `failed`, `pending` and `not_started` together.
    pub struct JoinCounters: Run {
        /// Participants that are to join.
        requested: u64 = Participants, Neither, gauge "participants_requested";
        /// Participants started before the run ended.
        started: u64 = Participants, Neither, metric "participants_started";
        /// Participants connected (DTLS up) at least once.
        joined: u64 = Participants, Higher, metric "participants_joined";
        /// Participants given up without ever being connected, after their last try.
        failed: u64 = Participants, Lower, metric "participants_failed";
        /// Participants still joining: started, and neither joined nor failed at the end.
        pending: u64 = Participants, Lower, gauge "participants_pending";
        /// Participants not started when the run ended.
        not_started: u64 = Participants, Lower, gauge "participants_not_started";
        /// Joined participants that were lost for good before they were told to leave, and those on
        /// their way back at the end.
        dropped: u64 = Participants, Lower, metric "participants_dropped";
        /// Times that a session of a joined participant ended unasked and could not be resumed; what
        /// a full reconnect made up for is among them, what a `--fault` broke is not, unless the
        /// participant gave up.
        drops: u64 = Times, Lower;
        /// Tries that ended without being connected, of whomever.
        tries_failed: u64 = Times, Lower;
        /// Further tries to join (`--retry`).
        retries: u64 = Times, Lower;
        /// Sessions that the server took up again over a new websocket; no drop and no retry.
        resumed: u64 = Times, Neither;
        /// Stays that ended as planned before the run did (`--stay`, `leave_rejoin`).
        leaves: u64 = Times, Neither;
        /// Times that a participant that had left so joined again.
        rejoins: u64 = Times, Neither;
    }
}

counters! {
    /// Joins that had neither ended nor failed, by what they were waiting for.
    pub struct PendingAt: Run {
        /// For the websocket to open, or for another try.
        websocket: u64 = Participants, Lower, gauge "participants_joining";
        /// For the join response.
        signal: u64 = Participants, Lower, gauge "participants_joining";
        /// For ICE to connect.
        ice: u64 = Participants, Lower, gauge "participants_joining";
        /// For DTLS to connect.
        dtls: u64 = Participants, Lower, gauge "participants_joining";
    }
}

impl PendingAt {
    /// All of them.
    pub fn total(&self) -> u64 {
        let ice = self.ice.saturating_add(self.dtls);
        self.websocket.saturating_add(self.signal).saturating_add(ice)
    }

    /// In the order of the steps, with their keys and with what people call them.
    pub fn named(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("websocket", "the websocket", self.websocket),
            ("signal", "the join response", self.signal),
            ("ice", "ICE", self.ice),
            ("dtls", "DTLS", self.dtls),
        ]
    }
}

counters! {
    /// Participants by what their media first came up by (`--transport`); together they are `joined`.
    pub struct JoinPaths: Run {
        /// Participants that joined over UDP.
        udp: u64 = Participants, Neither;
        /// Participants that joined by ICE over TCP.
        tcp: u64 = Participants, Neither;
        /// Participants that joined by way of a TURN server, over UDP.
        turn_udp: u64 = Participants, Neither;
        /// Participants that joined by way of a TURN server, over TCP.
        turn_tcp: u64 = Participants, Neither;
        /// Participants that joined by way of a TURN server, over TLS.
        turn_tls: u64 = Participants, Neither;
    }
}

impl JoinPaths {
    /// In the order in which they are tried, with what people call them.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("UDP", self.udp),
            ("TCP", self.tcp),
            ("TURN over UDP", self.turn_udp),
            ("TURN over TCP", self.turn_tcp),
            ("TURN over TLS", self.turn_tls),
        ]
    }
}

counters! {
    /// Counters of joins.
    pub struct JoinGroups: Run {
        /// Of participants and their tries.
        counted (flatten): JoinCounters;
        /// By what they waited for.
        pending_at: PendingAt;
        /// By what they joined.
        paths: JoinPaths;
        /// Of signalling.
        signalling: SessionCounters;
    }
}
