//! What the disk thread is given and what it gives back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

use stampede_counters::FileTiming;

use crate::record::DiskFrame;
use crate::recording::Muxer;

/// A file's bytes are written once this many are gathered.
pub const CHUNK_BYTES: usize = 256 << 10;
/// ... or after this long: as much an interrupted recording loses at most.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Error texts kept for the report; further ones are only counted.
pub const ERRORS_KEPT_MAX: usize = 16;

/// Which way to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskBackend {
    /// io_uring where the kernel allows it, plain otherwise.
    #[default]
    Auto,
    /// io_uring or an error at start.
    IoUring,
    /// Blocking system calls.
    Plain,
}

/// Where and how to record.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// The folder; created with its parents where it is missing.
    pub dir: PathBuf,
    /// Which way to write.
    pub backend: DiskBackend,
}

impl DiskOptions {
    /// Recording into `dir`, the way the kernel allows.
    pub fn new(dir: impl Into<PathBuf>) -> DiskOptions {
        DiskOptions { dir: dir.into(), backend: DiskBackend::Auto }
    }
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Its path; the file does not exist if `frames` is 0.
    pub path: PathBuf,
    /// Frames in the file; of a failed Opus file up to a page (1 s) of them may be missing.
    pub frames: u64,
    /// Its length.
    pub bytes: u64,
    /// Frames before the first keyframe, not recorded because nothing could show them.
    pub frames_before_keyframe: u64,
    /// Frames that should be in the file and are not: queue full, write failed, or not what the
    /// codec's name says.
    pub frames_dropped: u64,
    /// What had to be done to its timestamps.
    pub timing: FileTiming,
    /// Why it was given up, if it was.
    pub failed: Option<String>,
}

/// What the disk thread did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// `io_uring` or `plain`.
    pub backend: &'static str,
    /// Why that one.
    pub backend_reason: String,
    /// Every recording, in the order they began.
    pub files: Vec<FileReport>,
    /// The first [`ERRORS_KEPT_MAX`] errors, each with its path.
    pub errors: Vec<String>,
    /// All errors.
    pub errors_total: u64,
    /// Frames dropped for any reason, those of recordings that never began included.
    pub frames_dropped: u64,
}

/// Counters that both sides keep.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queued_bytes: AtomicUsize,
    pub(super) recordings: AtomicU32,
    /// Also counts recordings that were not begun; wraps long after `RECORDINGS_MAX`.
    pub(super) next_id: AtomicU32,
    pub(super) ended: AtomicBool,
    pub(super) frames_written: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) frames_dropped: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// What goes through the queue.
#[derive(Debug)]
pub(super) enum Message {
    Create { id: u32, stem: String, muxer: Box<Muxer>, dropped: Arc<AtomicU64> },
    Frame { id: u32, frame: DiskFrame },
    Finish { id: u32 },
    Stop,
}
