//! The other workers: where a track's packets go that is subscribed to there, and where the
//! publisher of a track is that is subscribed to here.

use std::sync::{Arc, OnceLock};

use super::handle::WorkerHandle;
use super::message::Command;
use super::packet::MediaBatch;
use super::track::Track;

/// Handles of all workers.
pub(crate) struct Siblings {
    /// Set once all have started.
    workers: Arc<OnceLock<Vec<WorkerHandle>>>,
    packets_dropped: u64,
}

impl Siblings {
    pub(crate) fn new(workers: Arc<OnceLock<Vec<WorkerHandle>>>) -> Self {
        Self { workers, packets_dropped: 0 }
    }

    /// Gives what is new of a track's burst to the workers that have subscribers for it.
    pub(crate) fn share(&mut self, track: &mut Track) {
        let key = track.key();
        let Some((interested, params, new)) = track.unshared() else { return };
        for &worker in interested {
            let Some(handle) = self.workers.get().and_then(|workers| workers.get(worker)) else {
                continue;
            };
            if !handle.try_media(MediaBatch { track: key, params, packets: new.to_vec() }) {
                self.packets_dropped += new.len() as u64;
            }
        }
    }

    /// Asks the worker of a track's publisher for a keyframe.
    pub(crate) fn ask_keyframe(&self, track: &Track, layer: u8) {
        let home = self.workers.get().and_then(|workers| workers.get(track.home()));
        if let Some(home) = home {
            home.try_command(Command::Keyframe { track: track.key(), layer });
        }
    }

    /// Packets that were not shared because a worker's queue was full.
    pub(crate) fn packets_dropped(&self) -> u64 {
        self.packets_dropped
    }
}

#[cfg(test)]
mod tests;
