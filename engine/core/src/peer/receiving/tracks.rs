//! What a subscriber knows of tracks from signalling, kept until an offer names them.

use rustc_hash::FxHashMap;

use crate::PeerUpdate;
use crate::accounting::StreamLedger;

/// Most tracks remembered. Further ones are not: their streams have no latency, and a mute counts
/// as what it looks like.
pub const TRACK_STATES_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy, Default)]
struct TrackState {
    same_clock: bool,
    muted: bool,
    /// The server paused the stream, or we asked it to.
    paused: bool,
    /// It was unpublished.
    over: bool,
}

/// States by LiveKit track id.
#[derive(Debug, Default)]
pub(super) struct TrackStates(FxHashMap<String, TrackState>);

impl TrackStates {
    /// Takes what signalling says; returns the track whose ledgers it concerns.
    pub(super) fn take(&mut self, update: PeerUpdate) -> Option<String> {
        match update {
            PeerUpdate::Track { track_id, same_clock, muted } => {
                if self.0.len() < TRACK_STATES_MAX || self.0.contains_key(&track_id) {
                    let paused = self.0.get(&track_id).is_some_and(|known| known.paused);
                    let state = TrackState { same_clock, muted, paused, over: false };
                    self.0.insert(track_id.clone(), state);
                }
                Some(track_id)
            }
            PeerUpdate::Muted { track_id, muted } => {
                self.0.get_mut(&track_id)?.muted = muted;
                Some(track_id)
            }
            PeerUpdate::Paused { track_id, paused } => {
                self.0.get_mut(&track_id)?.paused = paused;
                Some(track_id)
            }
            PeerUpdate::TrackGone { track_id, orderly: true } => {
                self.0.get_mut(&track_id)?.over = true;
                Some(track_id)
            }
            PeerUpdate::TrackGone { track_id, orderly: false } => {
                self.0.remove(&track_id);
                None
            }
            PeerUpdate::Leaving
            | PeerUpdate::Moved
            | PeerUpdate::Met { .. }
            | PeerUpdate::Parted { .. }
            | PeerUpdate::DataTrackPublished { .. }
            | PeerUpdate::PacketTrailer
            | PeerUpdate::LayersWanted { .. }
            | PeerUpdate::BackupWanted { .. }
            | PeerUpdate::PublishMuted { .. } => None,
        }
    }

    /// Sets a ledger to what is known of its track.
    pub(super) fn apply(&self, track_id: &str, ledger: &mut StreamLedger) {
        if let Some(state) = self.0.get(track_id) {
            ledger.set_same_clock(state.same_clock);
            ledger.set_muted(state.muted || state.paused || state.over);
        }
    }

    /// Forgets a track that is over.
    pub(super) fn forget_over(&mut self, track_id: &str) {
        if self.0.get(track_id).is_some_and(|state| state.over) {
            self.0.remove(track_id);
        }
    }
}
