//! What became of recorded streams.

use crate::counters;

counters! {
    /// What became of recorded streams' packets on their way into frames. Whole frames are written
    /// only if they can be decoded.
    pub struct AssemblerCounters: Stream {
        /// Frames that were whole: handed out or waiting for it.
        frames_complete: u64 = Frames, Neither;
        /// Frames that lacked a packet: at least one came and at least one was abandoned.
        frames_incomplete: u64 = Frames, Neither;
        /// Frames whose beginning came before the first packet: joining, not loss.
        frames_cut_at_start: u64 = Frames, Neither;
        /// Whole frames dropped because too many waited.
        frames_not_polled as "frames_not_taken": u64 = Frames, Neither;
        /// Packets taken.
        packets: u64 = Packets, Neither;
        /// Sequence numbers of padding: said to carry nothing.
        packets_skipped: u64 = Packets, Neither;
        /// Sequence numbers given up without a packet.
        packets_abandoned: u64 = Packets, Neither;
        /// Packets that were there already.
        packets_duplicate: u64 = Packets, Neither;
        /// Packets behind all that is decided: too late, or duplicates.
        packets_late: u64 = Packets, Neither;
        /// Packets that can't be read or are too long; their sequence number is lost.
        packets_malformed: u64 = Packets, Neither;
    }
}

counters! {
    /// What had to be done to the timestamps of a file's frames.
    pub struct FileTiming: Stream {
        /// Video frames whose timestamp was not after the one before, and was moved there.
        frames_moved: u64 = Frames, Neither;
        /// Opus packets written in the place of missing ones.
        packets_concealed: u64 = Packets, Neither;
        /// Jumps of Opus timestamps, backwards or too far, that were not filled.
        jumps as "timestamp_jumps": u64 = Times, Neither;
    }
}

counters! {
    /// What was written of recorded streams.
    pub struct RecordingCounters: Run {
        /// Frames written.
        frames_written: u64 = Frames, Neither;
        /// Frames not written: the disk was too slow or refused them.
        frames_dropped: u64 = Frames, Neither;
        /// What had to be done to timestamps.
        timing (flatten): FileTiming;
        /// What became of the packets of recorded streams on their way into frames.
        assembly: AssemblerCounters;
    }
}
