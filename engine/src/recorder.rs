//! From a recording peer's frames to the disk thread.

use rustc_hash::FxHashMap;
use stampede_core::{RecordedFrame, RecordedStream};
use stampede_media::AssemblerCounters;
use stampede_media::disk::{DiskHandle, Recording};
use stampede_media::record::DiskFrame;

/// The recordings of one peer, a file a stream. Never waits: what the disk can't take is dropped
/// and counted by the [`DiskHandle`].
pub(crate) struct PeerRecorder {
    disk: DiskHandle,
    /// The peer's label; files are named after it, the media kind and the track.
    label: String,
    /// By [`RecordedStream::id`]; as many entries as the peer has streams.
    recordings: FxHashMap<u32, Recording>,
    /// Of the streams that have ended.
    assembled: AssemblerCounters,
}

impl PeerRecorder {
    pub(crate) fn new(disk: DiskHandle, label: String) -> Self {
        Self {
            disk,
            label,
            recordings: FxHashMap::default(),
            assembled: AssemblerCounters::default(),
        }
    }

    pub(crate) fn frame(&mut self, stream: &RecordedStream, frame: RecordedFrame) {
        let recording = match self.recordings.get(&stream.id) {
            Some(recording) => recording,
            None => {
                let track = stream.track_id.as_deref().unwrap_or("track");
                let stem = format!("{}-{}-{track}", self.label, stream.kind);
                // A refusal is counted by the handle, and the next frame tries again.
                let Ok(recording) = self.disk.create(&stem, stream.codec) else { return };
                self.recordings.entry(stream.id).or_insert(recording)
            }
        };
        let frame = DiskFrame { timestamp: frame.timestamp_ticks, data: frame.data };
        // A drop is counted by the handle, for the file and for the run.
        let _ = self.disk.write(recording, frame);
    }

    /// Closes a stream's file; if more comes of it, that goes into another one.
    pub(crate) fn end(&mut self, stream: u32, counted: &AssemblerCounters) {
        self.assembled.merge(counted);
        if let Some(recording) = self.recordings.remove(&stream) {
            self.disk.finish(recording);
        }
    }

    /// Closes all files; what became of the packets of all streams that have ended.
    pub(crate) fn finish(self) -> AssemblerCounters {
        for (_, recording) in self.recordings {
            self.disk.finish(recording);
        }
        self.assembled
    }
}
