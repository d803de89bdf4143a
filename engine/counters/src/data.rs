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
        /// Everything else.
        other (flatten): OtherDataCounters, metric "data_";
    }
}
