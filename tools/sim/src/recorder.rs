//! The recordings of a peer: what the engine's recorder (`engine/src/recorder.rs`) does with the disk
//! thread's queue.

use std::collections::BTreeMap;

use stampede_core::{RecordedFrame, RecordedStream};
use stampede_media::AssemblerCounters;
use stampede_media::disk::{DiskHandle, Recording};
use stampede_media::record::DiskFrame;

/// A file a stream.
pub struct Recorder {
    disk: DiskHandle,
    label: String,
    recordings: BTreeMap<u32, Recording>,
    /// What became of the packets of streams that have ended.
    pub assembled: AssemblerCounters,
    /// Frames that were to be written.
    pub frames: u64,
}

impl Recorder {
    /// Of who is called so.
    #[must_use]
    pub fn new(disk: DiskHandle, label: String) -> Self {
        let assembled = AssemblerCounters::default();
        Self { disk, label, recordings: BTreeMap::new(), assembled, frames: 0 }
    }

    /// Takes a frame of a stream; the first one begins its file.
    pub fn frame(&mut self, stream: &RecordedStream, frame: &RecordedFrame) {
        self.frames += 1;
        if !self.recordings.contains_key(&stream.id) {
            let track = stream.track_id.as_deref().unwrap_or("track");
            let stem = format!("{}-{}-{track}", self.label, stream.kind);
            // A refusal is counted by the handle, and the next frame tries again.
            let Ok(recording) = self.disk.create(&stem, stream.codec) else { return };
            self.recordings.insert(stream.id, recording);
        }
        let data = frame.data.clone();
        let _ = self.disk.write(
            &self.recordings[&stream.id],
            DiskFrame { timestamp: frame.timestamp_ticks, data },
        );
    }

    /// A stream is over.
    pub fn end(&mut self, stream: u32, counted: &AssemblerCounters) {
        self.assembled.merge(counted);
        if let Some(recording) = self.recordings.remove(&stream) {
            self.disk.finish(recording);
        }
    }

    /// Its peer is closed.
    pub fn finish(&mut self) {
        for (_, recording) in std::mem::take(&mut self.recordings) {
            self.disk.finish(recording);
        }
    }
}
