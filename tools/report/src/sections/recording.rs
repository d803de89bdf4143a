//! Recordings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_media::AssemblerCounters;

/// Recordings.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecordingSection {
    /// The folder.
    pub dir: String,
    /// Files finished.
    pub files: Vec<String>,
    /// Frames written.
    pub frames_written: u64,
    /// Frames not written: the disk was too slow or refused them.
    pub frames_dropped: u64,
    /// Video frames whose timestamp was not after the one before, and was moved there.
    #[serde(default)]
    pub frames_moved: u64,
    /// Opus packets written in the place of missing ones.
    #[serde(default)]
    pub packets_concealed: u64,
    /// Jumps of Opus timestamps that were not filled.
    #[serde(default)]
    pub timestamp_jumps: u64,
    /// What became of the packets of recorded streams on their way into frames.
    #[serde(default)]
    pub assembly: AssemblySection,
    /// What went wrong, in plain words.
    pub errors: Vec<String>,
}

/// Recorded streams' packets, made into frames again; over the whole run. Whole frames are written
/// only if they can be decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AssemblySection {
    /// Frames that were whole.
    pub frames_complete: u64,
    /// Frames that lacked a packet.
    pub frames_incomplete: u64,
    /// Frames whose beginning came before the first packet: joining, not loss.
    pub frames_cut_at_start: u64,
    /// Whole frames dropped because too many waited.
    pub frames_not_taken: u64,
    /// Packets taken.
    pub packets: u64,
    /// Sequence numbers of padding.
    pub packets_skipped: u64,
    /// Sequence numbers given up without a packet.
    pub packets_abandoned: u64,
    /// Packets that were there already.
    pub packets_duplicate: u64,
    /// Packets behind all that was settled.
    pub packets_late: u64,
    /// Packets that can't be read.
    pub packets_malformed: u64,
}

impl AssemblySection {
    /// Of these counters.
    pub fn of(counted: &AssemblerCounters) -> Self {
        Self {
            frames_complete: counted.frames_complete,
            frames_incomplete: counted.frames_incomplete,
            frames_cut_at_start: counted.frames_cut_at_start,
            frames_not_taken: counted.frames_not_polled,
            packets: counted.packets,
            packets_skipped: counted.packets_skipped,
            packets_abandoned: counted.packets_abandoned,
            packets_duplicate: counted.packets_duplicate,
            packets_late: counted.packets_late,
            packets_malformed: counted.packets_malformed,
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.frames_complete += other.frames_complete;
        self.frames_incomplete += other.frames_incomplete;
        self.frames_cut_at_start += other.frames_cut_at_start;
        self.frames_not_taken += other.frames_not_taken;
        self.packets += other.packets;
        self.packets_skipped += other.packets_skipped;
        self.packets_abandoned += other.packets_abandoned;
        self.packets_duplicate += other.packets_duplicate;
        self.packets_late += other.packets_late;
        self.packets_malformed += other.packets_malformed;
    }
}
