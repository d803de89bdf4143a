//! What signalling counts.

use crate::counters;

counters! {
    /// The server's signalling messages, and what was made of them. What was not used is counted
    /// here and changed nothing else.
    pub struct SessionCounters: Peer {
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
    /// Joins that had neither ended nor failed, by what they were waiting for.
    pub struct PendingAt: Run {
        /// For the websocket to open, or for another try.
        websocket: u64 = Participants, Lower;
        /// For the join response.
        signal: u64 = Participants, Lower;
        /// For ICE to connect.
        ice: u64 = Participants, Lower;
        /// For DTLS to connect.
        dtls: u64 = Participants, Lower;
    }
}

impl PendingAt {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.websocket + self.signal + self.ice + self.dtls
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
    /// Counters of joins.
    pub struct JoinGroups: Run {
        /// By what they waited for.
        pending_at: PendingAt;
        /// Of signalling.
        signalling: SessionCounters;
    }
}
