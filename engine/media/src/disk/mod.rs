//! The disk thread: recordings are muxed and written here, off the packet path.
//!
//! A [`DiskHandle`] puts frames into a bounded queue and never waits: when the queue is full, the
//! frame is dropped and counted. The thread muxes them, gathers up to [`CHUNK_BYTES`] or
//! [`FLUSH_INTERVAL`] a file, and writes through tokio-uring, or plainly where io_uring is
//! refused. A file that fails (full disk, lost permission) is given up with its reason; the others
//! go on.

mod exchange;
mod io;
mod thread;
#[cfg(feature = "virtual")]
pub mod virtual_disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
pub use stampede_counters::FileTiming;

use crate::clip::Codec;
use crate::record::DiskFrame;
use crate::recording::{Muxer, file_stem};
pub use exchange::{
    CHUNK_BYTES, DiskBackend, DiskOptions, DiskReport, ERRORS_KEPT_MAX, FLUSH_INTERVAL, FileReport,
};
use exchange::{Message, Shared};

/// Messages waiting for the thread. At the maximum a frame is dropped and counted.
pub const QUEUE_MESSAGES_MAX: usize = 16_384;
/// Bytes of frames waiting for the thread. At the maximum a frame is dropped and counted.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Recordings of one run. At the maximum [`DiskHandle::create`] refuses.
pub const RECORDINGS_MAX: u32 = 16_384;
/// How long [`DiskThread::finish`] waits for a disk that has stopped answering.
pub const FINISH_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why nothing can be recorded. Known before anything joins.
#[derive(Debug, thiserror::Error)]
pub enum DiskStartError {
    /// The folder does not exist and can't be made.
    #[error("recording folder {}: cannot be created: {source}; give another with --record",
        dir.display())]
    CreateDir {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file can't be made in it.
    #[error("recording folder {}: cannot be written to: {source}; give another with --record",
        dir.display())]
    NotWritable {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// [`DiskBackend::IoUring`] was asked for and is refused.
    #[error("io_uring is refused for recordings: {0}; let the program choose, or ask for plain")]
    IoUring(std::io::Error),
    /// The thread itself.
    #[error("the disk thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// Why a recording was not begun. Counted in the report as a dropped frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateRecordingError {
    /// The codec has no container here yet.
    #[error("{0} can't be recorded yet; VP8, H.264, H.265 and Opus can")]
    Unsupported(Codec),
    /// [`RECORDINGS_MAX`] reached.
    #[error("{RECORDINGS_MAX} recordings are the most of one run; record fewer subscribers")]
    TooMany,
    /// The queue is full; trying again later is right.
    #[error("the disk queue is full; the disk is slower than the recorded streams")]
    QueueFull,
    /// The disk thread has ended.
    #[error("the disk thread has ended")]
    Ended,
}

/// A frame was dropped instead of waiting for the disk. Counted already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame was dropped: the disk queue is full, or the disk thread has ended")]
pub struct FrameDropped;

/// One file being recorded, named by [`DiskHandle::create`].
#[derive(Debug)]
pub struct Recording {
    id: u32,
    dropped: Arc<AtomicU64>,
}

/// Counters while recording; all only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Frames in files.
    pub frames_written: u64,
    /// Bytes in files.
    pub bytes_written: u64,
    /// Frames dropped for any reason.
    pub frames_dropped: u64,
    /// Failed operations.
    pub errors: u64,
}

/// The way into the disk thread. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub struct DiskHandle {
    queue: Sender<Message>,
    shared: Arc<Shared>,
}

impl DiskHandle {
    /// Begins a recording. The file is named after `stem` (made safe; `-2` and so on is appended
    /// where the name is taken, nothing is ever overwritten) and made with its first frame.
    pub fn create(&self, stem: &str, codec: Codec) -> Result<Recording, CreateRecordingError> {
        let result = self.try_create(stem, codec);
        if result.is_err() {
            self.shared.frames_dropped.fetch_add(1, Relaxed);
        }
        result
    }

    fn try_create(&self, stem: &str, codec: Codec) -> Result<Recording, CreateRecordingError> {
        if self.shared.recordings.load(Relaxed) >= RECORDINGS_MAX {
            return Err(CreateRecordingError::TooMany);
        }
        let id = self.shared.next_id.fetch_add(1, Relaxed);
        let muxer = Muxer::new(codec, id.wrapping_add(1))
            .map_err(|unsupported| CreateRecordingError::Unsupported(unsupported.0))?;
        let dropped = Arc::new(AtomicU64::new(0));
        let message = Message::Create {
            id,
            stem: file_stem(stem),
            muxer: Box::new(muxer),
            dropped: Arc::clone(&dropped),
        };
        match self.send(message) {
            Ok(()) => {
                self.shared.recordings.fetch_add(1, Relaxed);
                Ok(Recording { id, dropped })
            }
            Err(TrySendError::Full(_)) => Err(CreateRecordingError::QueueFull),
            Err(TrySendError::Disconnected(_)) => Err(CreateRecordingError::Ended),
        }
    }

    /// Queues one frame, or drops it (counted) where the queue is full.
    pub fn write(&self, recording: &Recording, frame: DiskFrame) -> Result<(), FrameDropped> {
        let len = frame.data.len();
        let queued = self.shared.queued_bytes.fetch_add(len, Relaxed);
        let sent = queued + len <= QUEUE_BYTES_MAX
            && self.send(Message::Frame { id: recording.id, frame }).is_ok();
        if sent {
            return Ok(());
        }
        self.shared.queued_bytes.fetch_sub(len, Relaxed);
        self.shared.frames_dropped.fetch_add(1, Relaxed);
        recording.dropped.fetch_add(1, Relaxed);
        Err(FrameDropped)
    }

    /// Ends a recording. Where the queue is full the file is ended with the run instead.
    pub fn finish(&self, recording: Recording) {
        let _ = self.send(Message::Finish { id: recording.id });
    }

    /// Counters so far.
    pub fn stats(&self) -> DiskStats {
        DiskStats {
            frames_written: self.shared.frames_written.load(Relaxed),
            bytes_written: self.shared.bytes_written.load(Relaxed),
            frames_dropped: self.shared.frames_dropped.load(Relaxed),
            errors: self.shared.errors.load(Relaxed),
        }
    }

    fn send(&self, message: Message) -> Result<(), TrySendError<Message>> {
        if self.shared.ended.load(Relaxed) {
            return Err(TrySendError::Disconnected(message));
        }
        self.queue.try_send(message)
    }
}

/// The thread. Ends with [`DiskThread::finish`], or by itself when it and all handles are dropped.
#[derive(Debug)]
pub struct DiskThread {
    handle: DiskHandle,
    report: Receiver<DiskReport>,
    thread: JoinHandle<()>,
}

impl DiskThread {
    /// Makes the folder, checks that it can be written to, and starts the thread.
    pub fn start(options: DiskOptions) -> Result<DiskThread, DiskStartError> {
        DiskThread::start_with(options, io::create_new, QUEUE_MESSAGES_MAX)
    }

    fn start_with(
        options: DiskOptions,
        opener: io::Opener,
        queue_messages_max: usize,
    ) -> Result<DiskThread, DiskStartError> {
        check_dir(&options.dir)?;
        let (queue, messages) = bounded(queue_messages_max);
        let (report_out, report) = bounded(1);
        let (ready_out, ready) = bounded(1);
        let shared = Arc::new(Shared::default());
        let handle = DiskHandle { queue, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("stampede-disk".to_owned())
            .spawn(move || {
                thread::run(&options, opener, shared, &messages, &ready_out, &report_out);
            })
            .map_err(DiskStartError::Thread)?;
        match ready.recv() {
            Ok(Ok(())) => Ok(DiskThread { handle, report, thread }),
            Ok(Err(error)) => Err(DiskStartError::IoUring(error)),
            Err(_) => {
                let error = std::io::Error::other("it ended before it was ready");
                Err(DiskStartError::Thread(error))
            }
        }
    }

    /// A way to write through it.
    pub fn handle(&self) -> DiskHandle {
        self.handle.clone()
    }

    /// Writes what is queued, closes every file and says what became of them. Frames that come
    /// after this are dropped and counted. Waits at most [`FINISH_WAIT_MAX`]: if the disk hangs
    /// longer, the report says so and the thread is left behind.
    pub fn finish(self) -> DiskReport {
        let _ = self.handle.queue.send_timeout(Message::Stop, FINISH_WAIT_MAX);
        match self.report.recv_timeout(FINISH_WAIT_MAX) {
            Ok(report) => {
                let _ = self.thread.join();
                report
            }
            Err(error) => self.report_without_thread(error.is_timeout()),
        }
    }

    fn report_without_thread(self, hangs: bool) -> DiskReport {
        let stats = self.handle.stats();
        let reason = if hangs {
            "the disk did not answer in time; recordings may be cut short".to_owned()
        } else {
            "the disk thread ended unexpectedly; recordings may be cut short".to_owned()
        };
        DiskReport {
            backend: "unknown",
            backend_reason: reason.clone(),
            files: Vec::new(),
            errors: vec![reason],
            errors_total: stats.errors + 1,
            frames_dropped: stats.frames_dropped,
        }
    }
}

fn check_dir(dir: &Path) -> Result<(), DiskStartError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| DiskStartError::CreateDir { dir: dir.to_owned(), source })?;
    // Permission bits don't tell (root, read-only mounts, quotas): only a file does.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let number = now.unwrap_or_default().as_nanos();
    let probe = dir.join(format!(".stampede-write-test-{}-{number}", std::process::id()));
    write_test(&probe).map_err(|source| DiskStartError::NotWritable { dir: dir.to_owned(), source })
}

/// Makes a file and removes it again. Nothing may be there, no symbolic link either (O_EXCL): what is
/// there is somebody else's, and so is what it points to.
fn write_test(probe: &Path) -> std::io::Result<()> {
    std::fs::File::create_new(probe)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"test"))
        .and_then(|()| std::fs::remove_file(probe))
}

#[cfg(test)]
mod tests;
