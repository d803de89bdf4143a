//! How participants that had been connected came back.

use crate::counters;

counters! {
    /// Tries to come back in one way. `tries` is always `recovered`, `failed` and `unfinished`
    /// together.
    pub struct RecoveryCounters: Run {
        /// Tries made: websockets that were dialled to come back, and moves that the server made.
        tries: u64 = Times, Neither;
        /// Tries after which session and media connection stood again.
        recovered: u64 = Times, Neither;
        /// Tries that did not get so far: refused, broken again, or out of time.
        failed: u64 = Times, Lower;
        /// Tries under way when the run ended or the participant was told to leave.
        unfinished: u64 = Times, Neither;
    }
}

counters! {
    /// By the way in which participants came back.
    pub struct RecoveryGroups: Run {
        /// A new websocket took the session up again; the media connection had stood meanwhile.
        resume: RecoveryCounters;
        /// A new websocket, and ICE restarted over it: the media connection was lost, or the network
        /// changed.
        ice_restart: RecoveryCounters;
        /// A new session of the same identity, with new media connections and subscriptions.
        full_reconnect: RecoveryCounters;
        /// The server moved the participant to another room.
        moved: RecoveryCounters;
    }
}
