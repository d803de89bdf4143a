//! What participants tell and hear of each other over signalling.

use crate::counters;

counters! {
    /// Updates that participants made of themselves in the measured window
    /// (`--metadata-updates-per-second`), and what the others of their rooms were told of them.
    /// `expected` is always `seen`, `superseded` and `missing` together.
    pub struct MetadataCounters: Run {
        /// Updates sent.
        sent: u64 = Times, Neither;
        /// Updates that the server refused, or answered with an error.
        refused: u64 = Times, Lower;
        /// For each update, others in the room that were to be told of it.
        expected: u64 = Times, Neither;
        /// Of them told.
        seen: u64 = Times, Neither;
        /// Of them told of a newer update in its place, as servers gather updates.
        superseded: u64 = Times, Neither;
        /// Of them told of neither within 10 s.
        missing: u64 = Times, Lower;
    }
}

counters! {
    /// Turns of speakers (`--simulate-speakers`) that began in the measured window, and what the
    /// subscribers of their rooms were told of them. `expected` is always `named` and `missed`
    /// together.
    pub struct SpeakerCounters: Run {
        /// Times that somebody began to speak, by its first loud packet.
        turns: u64 = Times, Neither;
        /// For each turn, subscribers that were to be told who speaks.
        expected: u64 = Times, Neither;
        /// Of them told so before the turn was over.
        named: u64 = Times, Neither;
        /// Of them not told before the turn was over.
        missed: u64 = Times, Lower;
        /// Times that a subscriber who had been told of a speaker was told the contrary while the
        /// turn went on.
        flaps: u64 = Times, Lower;
    }
}

counters! {
    /// Counters of signalling besides joins.
    pub struct SignallingGroups: Run {
        /// Of updates that participants made of themselves.
        metadata: MetadataCounters;
        /// Of speakers.
        speakers: SpeakerCounters;
    }
}
