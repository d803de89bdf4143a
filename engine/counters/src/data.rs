//! Data messages (docs/measurement.md, "Data").

use crate::counters;

counters! {
    /// Data messages of one kind, sent and received. `expected == received + lost`, and
    /// `late <= received`.
    pub struct MessageCounters: Peer {
        /// Messages handed to a data channel.
        sent: u64 = Messages, Neither;
        /// Messages that were due and not sent: the channel was not open, its buffer was full, or
        /// its connection was lost or cut off. They have no number, so nobody expects them.
        not_sent: u64 = Messages, Lower;
        /// What was sent, without LiveKit's envelope.
        bytes_sent: u64 = Bytes, Neither;
        /// Messages that somebody was there to get, each once for each of them, of which it is known
        /// what became.
        expected: u64 = Messages, Neither;
        /// Messages that came, each once for each who got them; late ones are among them.
        received: u64 = Messages, Higher;
        /// Messages that came more than a second after they were sent.
        late: u64 = Messages, Lower;
        /// Messages that were not there a second after they were sent, and have not come since.
        lost: u64 = Messages, Lower, gauge "data_lost";
        /// Messages of `expected` that were sent so long ago that they would be lost had they not
        /// come: what `loss_rate` is a share of.
        decided: u64 = Messages, Neither;
        /// Messages that came again.
        duplicate: u64 = Messages, Lower;
        /// Messages that came after a later one of the same sender.
        reordered: u64 = Messages, Lower;
        /// Messages not there yet, and less than a second old, when who waited for them left or lost
        /// its connection. Neither `expected` nor `lost`.
        cut_off: u64 = Messages, Neither;
        /// Messages that came and that nobody had to expect: sent before the channel of who got them
        /// had been open for a second, or while its connection was lost. In no other count.
        unexpected: u64 = Messages, Neither;
        /// Messages too far behind to be told from duplicates; in no other count.
        stale: u64 = Messages, Neither;
        /// What was received, without LiveKit's envelope; duplicates left out.
        bytes_received: u64 = Bytes, Higher;
    }
}

impl MessageCounters {
    /// `lost / decided`; `None` while nothing is. Those that came at once and are not older than
    /// a lost one would have to be are left out: it would seem that less is lost than is.
    pub fn loss_rate(&self) -> Option<f64> {
        (self.decided > 0).then(|| self.lost as f64 / self.decided as f64)
    }
}

counters! {
    /// What comes over data channels and is no message of this run.
    pub struct OtherDataCounters: Peer {
        /// Messages of other clients, and parts of their text and byte streams. They are read and
        /// dropped.
        foreign: u64 = Messages, Neither;
        /// Messages that are none of LiveKit's, or broken.
        malformed: u64 = Messages, Lower;
    }
}

counters! {
    /// Data messages of a peer.
    pub struct DataCounters: Peer {
        /// Over the channel that loses nothing and keeps the order.
        reliable: MessageCounters, metric "data_";
        /// Over the channel that does neither.
        lossy: MessageCounters, metric "data_";
        /// As frames of data tracks, which may be lost too.
        track: MessageCounters, metric "data_";
        /// Everything else.
        other (flatten): OtherDataCounters, metric "data_";
    }
}

impl DataCounters {
    /// All kinds of messages, by name.
    pub fn named(&self) -> [(&'static str, &MessageCounters); 3] {
        [("reliable", &self.reliable), ("lossy", &self.lossy), ("track", &self.track)]
    }
}

counters! {
    /// Errors that calls were answered with, by LiveKit's codes.
    pub struct RpcErrorCounters: Peer {
        /// 1400: who was called does not know the method.
        unsupported_method: u64 = Times, Lower;
        /// 1402: the payload is too long for who was called; of a client of protocol 0 known before
        /// anything is sent.
        request_too_large: u64 = Times, Lower;
        /// 1404: who was called does not know the version of the request.
        unsupported_version: u64 = Times, Lower;
        /// 1500: the method failed.
        application_error: u64 = Times, Lower;
        /// 1504: the answer is too long for us.
        response_too_large: u64 = Times, Lower;
        /// Any other code.
        other_error: u64 = Times, Lower;
    }
}

impl RpcErrorCounters {
    /// All of them.
    pub fn sum(&self) -> u64 {
        let Self { unsupported_method, request_too_large, unsupported_version, .. } = *self;
        let Self { application_error, response_too_large, other_error, .. } = *self;
        unsupported_method
            + request_too_large
            + unsupported_version
            + application_error
            + response_too_large
            + other_error
    }
}

counters! {
    /// Calls from participant to participant (LiveKit's RPC). What became of each is in one of
    /// `answered`, `errors`, `ack_timeouts`, `response_timeouts` and `cut_off`, once it is known.
    pub struct RpcCounters: Peer {
        /// Calls made.
        called: u64 = Times, Neither;
        /// Calls that were due and not made: the channel was not open, its buffer was full, its
        /// connection was lost or cut off, or too many calls were open.
        not_called: u64 = Times, Lower;
        /// Calls whose request was acknowledged.
        acked: u64 = Times, Neither;
        /// Calls that were answered in time.
        answered: u64 = Times, Higher;
        /// Calls that were answered with an error.
        errors: RpcErrorCounters;
        /// Calls not acknowledged within 7 s (1501).
        ack_timeouts: u64 = Times, Lower;
        /// Calls not answered in time (1502).
        response_timeouts: u64 = Times, Lower;
        /// Answers that came when their call had been given up.
        late: u64 = Times, Lower;
        /// Calls without an answer when who called left or lost its connection for good, or who was
        /// called left the room.
        cut_off: u64 = Times, Neither;
        /// Calls made so long ago that their timeout is over, however they ended: what `failure_rate`
        /// is a share of.
        decided: u64 = Times, Neither;
        /// Those of `decided` that got no answer in time, or an error.
        decided_failed: u64 = Times, Lower;
        /// Payload of requests.
        bytes_sent: u64 = Bytes, Neither;
        /// Payload of answers.
        bytes_received: u64 = Bytes, Neither;
        /// Requests that came.
        requests: u64 = Times, Neither;
        /// Requests that were answered, with an error or without.
        responses: u64 = Times, Neither;
        /// Requests whose answer was dropped: the channel took nothing for too long.
        unanswered: u64 = Times, Lower;
        /// Answers that came and that no call waits for: it was answered already, or is another's.
        unasked: u64 = Times, Neither;
        /// Requests and answers that came and were dropped: too many were under way at a time, or
        /// their ids were too long.
        dropped: u64 = Times, Lower;
    }
}

impl RpcCounters {
    /// Calls that got no answer, or an error.
    pub fn failed(&self) -> u64 {
        self.errors.sum() + self.ack_timeouts + self.response_timeouts
    }

    /// `decided_failed / decided`; `None` while nothing is. Calls that were answered at once and
    /// are not as old as one without an answer would have to be are left out: it would seem that
    /// fewer fail than do.
    pub fn failure_rate(&self) -> Option<f64> {
        (self.decided > 0).then(|| self.decided_failed as f64 / self.decided as f64)
    }
}
