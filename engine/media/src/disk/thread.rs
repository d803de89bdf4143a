//! The thread's own side: muxes, gathers, writes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use stampede_counters::FileTiming;

use super::exchange::{
    CHUNK_BYTES, DiskBackend, DiskOptions, DiskReport, ERRORS_KEPT_MAX, FLUSH_INTERVAL, FileReport,
    Message, Shared,
};
use super::io::{Disk, DiskIo, Identity, Opener, PlainIo, RealDisk, Slot, UringIo, Write};
use crate::record::DiskFrame;
use crate::recording::{Muxed, Muxer};

/// Names tried for one file (`name`, `name-2`, ...) before giving up.
const NAMES_TRIED_MAX: u32 = 1_000;
/// How long to gather messages between two rounds.
pub(super) const GATHER: Duration = Duration::from_millis(10);

/// The thread's whole life.
pub(super) fn run(
    options: &DiskOptions,
    opener: Opener,
    shared: Arc<Shared>,
    messages: &Receiver<Message>,
    ready: &Sender<io::Result<()>>,
    report: &Sender<DiskReport>,
) {
    let (io, backend, backend_reason) = match choose(options.backend) {
        Ok(chosen) => chosen,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let disk = Box::new(RealDisk { opener, io });
    let mut writer = Writer::new(options.dir.clone(), disk, shared);
    (writer.report.backend, writer.report.backend_reason) = (backend, backend_reason);
    let _ = ready.send(Ok(()));
    writer.serve(messages);
    let _ = report.send(writer.into_report(messages));
}

type Chosen = (Box<dyn DiskIo>, &'static str, String);

fn choose(backend: DiskBackend) -> io::Result<Chosen> {
    let plain = |reason: String| Ok((Box::new(PlainIo::default()) as _, "plain", reason));
    if backend == DiskBackend::Plain {
        return plain("asked for".to_owned());
    }
    match UringIo::new() {
        Ok(io) => Ok((Box::new(io), "io_uring", "the kernel allows it".to_owned())),
        Err(error) if backend == DiskBackend::IoUring => Err(error),
        Err(error) => plain(format!("io_uring is refused: {error}")),
    }
}

struct OpenFile {
    muxer: Muxer,
    report: FileReport,
    /// Made with the first bytes.
    slot: Option<Slot>,
    /// Which file it is, once it is made.
    identity: Option<Identity>,
    buffer: Vec<u8>,
    buffer_frames: u64,
    /// Frames the queue did not take, counted by the handle.
    dropped_by_queue: Arc<AtomicU64>,
    finishing: bool,
}

/// What the thread does, but for the time that it takes.
pub(super) struct Writer {
    dir: PathBuf,
    disk: Box<dyn Disk>,
    shared: Arc<Shared>,
    /// Open files and finished ones' reports, by recording. At most `RECORDINGS_MAX`.
    files: BTreeMap<u32, Entry>,
    /// Some file [`OpenFile::is_urgent`]; spares looking at all of them after every message.
    urgent: bool,
    report: DiskReport,
}

enum Entry {
    Open(Box<OpenFile>),
    Done(FileReport, Option<Identity>),
}

impl Writer {
    pub(super) fn new(dir: PathBuf, disk: Box<dyn Disk>, shared: Arc<Shared>) -> Self {
        let (files, urgent, report) = (BTreeMap::new(), false, DiskReport::default());
        Self { dir, disk, shared, files, urgent, report }
    }

    /// Takes messages until told to stop, or until no handle is left.
    fn serve(&mut self, messages: &Receiver<Message>) {
        let mut flush_at = Instant::now() + FLUSH_INTERVAL;
        loop {
            let now = Instant::now();
            let due = now >= flush_at;
            if due {
                flush_at = now + FLUSH_INTERVAL;
            }
            self.round(due);
            match messages.recv_timeout(flush_at.saturating_duration_since(Instant::now())) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => continue,
            }
            // A thread that waits has to be woken by a system call of the packet path: while
            // frames flow, sleep and take what has come instead.
            std::thread::sleep(GATHER);
            // What comes while this runs is for the next round, so that flushing gets its turn.
            for _ in 0..messages.len() {
                match messages.try_recv() {
                    Ok(Message::Stop) => return,
                    Ok(message) => self.take(message),
                    Err(_) => break,
                }
            }
        }
    }

    /// Writes what is urgent, or everything where that is due, and ends what is to be ended.
    pub(super) fn round(&mut self, due: bool) {
        if due || std::mem::take(&mut self.urgent) {
            self.flush(|file| due || file.is_urgent());
            self.close(|file| file.finishing);
        }
    }

    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Create { id, stem, muxer, dropped } => {
                let path = self.dir.join(format!("{stem}.{}", muxer.extension()));
                let report = FileReport {
                    path,
                    frames: 0,
                    bytes: 0,
                    frames_before_keyframe: 0,
                    frames_dropped: 0,
                    timing: FileTiming::default(),
                    failed: None,
                };
                let file = OpenFile {
                    muxer: *muxer,
                    report,
                    slot: None,
                    identity: None,
                    buffer: Vec::new(),
                    buffer_frames: 0,
                    dropped_by_queue: dropped,
                    finishing: false,
                };
                self.files.insert(id, Entry::Open(Box::new(file)));
            }
            Message::Frame { id, frame } => {
                self.shared.queued_bytes.fetch_sub(frame.data.len(), Relaxed);
                self.frame(id, &frame);
            }
            Message::Finish { id } => {
                if let Some(Entry::Open(file)) = self.files.get_mut(&id) {
                    file.finishing = true;
                    self.urgent = true;
                }
            }
            Message::Stop => {}
        }
    }

    fn frame(&mut self, id: u32, frame: &DiskFrame) {
        let taken = match self.files.get_mut(&id) {
            Some(Entry::Open(file)) if file.report.failed.is_none() => {
                let taken = file.mux(frame);
                self.urgent |= file.is_urgent();
                taken
            }
            Some(Entry::Open(file)) => {
                file.report.frames_dropped += 1;
                false
            }
            Some(Entry::Done(..)) | None => false,
        };
        if !taken {
            self.shared.frames_dropped.fetch_add(1, Relaxed);
        }
    }

    /// Writes the gathered bytes of the files `which` says.
    fn flush(&mut self, which: impl Fn(&OpenFile) -> bool) {
        let mut writes = Vec::new();
        let mut ids = Vec::new();
        for (id, entry) in &mut self.files {
            let Entry::Open(file) = entry else { continue };
            if file.buffer.is_empty() || file.report.failed.is_some() || !which(file) {
                continue;
            }
            if file.slot.is_none() {
                match open(&mut *self.disk, &file.report.path) {
                    Ok((path, slot, identity)) => {
                        file.report.path = path;
                        (file.identity, file.slot) = (identity, Some(slot));
                    }
                    Err(error) => {
                        fail(&mut self.report, &self.shared, file, "cannot be created", &error);
                        continue;
                    }
                }
            }
            let Some(slot) = file.slot else { continue };
            let data = std::mem::take(&mut file.buffer);
            ids.push((*id, data.len() as u64));
            writes.push(Write { slot, offset: file.report.bytes, data });
        }
        if writes.is_empty() {
            return;
        }
        let results = self.disk.write(writes);
        for ((id, len), result) in ids.into_iter().zip(results) {
            let Some(Entry::Open(file)) = self.files.get_mut(&id) else { continue };
            let frames = std::mem::take(&mut file.buffer_frames);
            match result {
                Ok(()) => {
                    file.report.bytes += len;
                    file.report.frames += frames;
                    self.shared.bytes_written.fetch_add(len, Relaxed);
                    self.shared.frames_written.fetch_add(frames, Relaxed);
                }
                Err(error) => {
                    file.buffer_frames = frames;
                    fail(&mut self.report, &self.shared, file, "cannot be written", &error);
                    // So that what is there ends with a whole frame. A disk that fails to write may
                    // fail at this too, and players cope.
                    self.disk.cut(&file.report.path, file.report.bytes);
                }
            }
        }
    }

    /// Ends the files `which` says: last bytes, header, fsync.
    fn close(&mut self, which: impl Fn(&OpenFile) -> bool) {
        let mut patches = Vec::new();
        let mut ids = Vec::new();
        for (id, entry) in &mut self.files {
            let Entry::Open(file) = entry else { continue };
            if !which(file) {
                continue;
            }
            let patch = file.muxer.finish(&mut file.buffer);
            file.report.timing = file.muxer.timing();
            ids.push(*id);
            // A file given up keeps its "unknown length": that is the truth.
            patches.push(patch.filter(|_| file.report.failed.is_none()));
        }
        if ids.is_empty() {
            return;
        }
        self.flush(|file| which(file));
        self.write_patches(&ids, patches);
        self.close_files(&ids);
        for id in ids {
            if let Some(entry @ Entry::Open(_)) = self.files.get_mut(&id) {
                entry.finish();
            }
        }
    }

    fn write_patches(&mut self, ids: &[u32], patches: Vec<Option<crate::record::Patch>>) {
        let mut writes = Vec::new();
        let mut patched = Vec::new();
        for (id, patch) in ids.iter().zip(patches) {
            let (Some(Entry::Open(file)), Some(patch)) = (self.files.get(id), patch) else {
                continue;
            };
            if let (Some(slot), None) = (file.slot, &file.report.failed) {
                patched.push(*id);
                writes.push(Write { slot, offset: patch.offset, data: patch.bytes });
            }
        }
        let results = self.disk.write(writes);
        self.fail_those_with_errors("header cannot be completed", &patched, results);
    }

    fn close_files(&mut self, ids: &[u32]) {
        let mut slots = Vec::new();
        let mut closed = Vec::new();
        for id in ids {
            let Some(Entry::Open(file)) = self.files.get_mut(id) else { continue };
            if let Some(slot) = file.slot.take() {
                slots.push(slot);
                // What was given up has said why; its fsync adds nothing.
                closed.push((*id, file.report.failed.is_some()));
            }
        }
        let results = self.disk.close(&slots);
        let (ids, results): (Vec<u32>, Vec<_>) = closed
            .into_iter()
            .zip(results)
            .filter(|((_, failed), _)| !failed)
            .map(|((id, _), result)| (id, result))
            .unzip();
        self.fail_those_with_errors("cannot be made durable", &ids, results);
    }

    /// Gives up the files whose operation failed.
    fn fail_those_with_errors(&mut self, what: &str, ids: &[u32], results: Vec<io::Result<()>>) {
        for (id, result) in ids.iter().zip(results) {
            if let (Some(Entry::Open(file)), Err(error)) = (self.files.get_mut(id), result) {
                fail(&mut self.report, &self.shared, file, what, &error);
            }
        }
    }

    pub(super) fn into_report(mut self, messages: &Receiver<Message>) -> DiskReport {
        self.shared.ended.store(true, Relaxed);
        // Whoever sent behind the stop: dropped, and said so.
        for message in messages.try_iter() {
            if let Message::Frame { id, frame } = message {
                self.shared.queued_bytes.fetch_sub(frame.data.len(), Relaxed);
                self.shared.frames_dropped.fetch_add(1, Relaxed);
                if let Some(Entry::Open(file)) = self.files.get_mut(&id) {
                    file.report.frames_dropped += 1;
                }
            }
        }
        self.close(|_| true);
        let behind = messages.try_iter().filter(|message| matches!(message, Message::Frame { .. }));
        self.shared.frames_dropped.fetch_add(behind.count() as u64, Relaxed);
        let mut report = self.report;
        for entry in self.files.into_values() {
            let Entry::Done(mut file, identity) = entry else { continue };
            if let Err(what) = still_there(&*self.disk, &file, identity) {
                let text = format!("{}: {what}", file.path.display());
                tracing::warn!("{text}");
                self.shared.errors.fetch_add(1, Relaxed);
                if report.errors.len() < ERRORS_KEPT_MAX {
                    report.errors.push(text);
                }
                file.failed = Some(what);
            }
            report.files.push(file);
        }
        report.errors_total = self.shared.errors.load(Relaxed);
        report.frames_dropped = self.shared.frames_dropped.load(Relaxed);
        report
    }
}

impl OpenFile {
    /// To be written before the next regular flush.
    fn is_urgent(&self) -> bool {
        self.finishing || self.buffer.len() >= CHUNK_BYTES
    }

    /// False if the frame is dropped.
    fn mux(&mut self, frame: &DiskFrame) -> bool {
        match self.muxer.frame(frame, &mut self.buffer) {
            Muxed::Taken => {
                self.buffer_frames += 1;
                true
            }
            Muxed::BeforeKeyframe => {
                self.report.frames_before_keyframe += 1;
                true
            }
            Muxed::Unusable => {
                self.report.frames_dropped += 1;
                false
            }
        }
    }
}

impl Entry {
    /// From open to done: only the report is kept.
    fn finish(&mut self) {
        if let Entry::Open(file) = self {
            file.report.frames_dropped += file.dropped_by_queue.load(Relaxed);
            *self = Entry::Done(file.report.clone(), file.identity);
        }
    }
}

/// Gives a file up: what it still holds is dropped and counted, the reason is kept.
fn fail(
    report: &mut DiskReport,
    shared: &Shared,
    file: &mut OpenFile,
    what: &str,
    error: &io::Error,
) {
    let text = format!("{}: {what}: {error}", file.report.path.display());
    tracing::warn!("{text}; its later frames are dropped");
    shared.errors.fetch_add(1, Relaxed);
    shared.frames_dropped.fetch_add(file.buffer_frames, Relaxed);
    file.report.frames_dropped += std::mem::take(&mut file.buffer_frames);
    file.buffer = Vec::new();
    if report.errors.len() < ERRORS_KEPT_MAX {
        report.errors.push(text);
    }
    file.report.failed.get_or_insert(format!("{what}: {error}"));
}

/// Whether a file that was written without an error is, at the end of the run, where it was written
/// and as long as it was made: somebody may have removed its folder, or the file, or put another in
/// its place. What was given up, or is not a regular file, is no matter here.
fn still_there(
    disk: &dyn Disk,
    report: &FileReport,
    identity: Option<Identity>,
) -> Result<(), String> {
    if report.failed.is_some() || report.bytes == 0 {
        return Ok(());
    }
    let found = match disk.look(&report.path) {
        Ok(found) => found,
        Err(error) => return Err(format!("it was written, and is not there any more: {error}")),
    };
    if identity.is_some_and(|identity| identity != found.identity) {
        return Err("it was written, and another file is in its place".to_owned());
    }
    if let Some(bytes) = found.bytes.filter(|bytes| *bytes != report.bytes) {
        let written = report.bytes;
        return Err(format!("{written} bytes were written, and it has {bytes}"));
    }
    Ok(())
}

/// Makes `path`, or `path-2`, `path-3`, ... where it exists already.
fn open(disk: &mut dyn Disk, path: &Path) -> io::Result<(PathBuf, Slot, Option<Identity>)> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let mut candidate = path.to_owned();
    for number in 2..=NAMES_TRIED_MAX {
        match disk.create(&candidate) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                candidate = path.with_file_name(format!("{stem}-{number}.{extension}"));
            }
            result => return result.map(|(slot, identity)| (candidate, slot, identity)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
