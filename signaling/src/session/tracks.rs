//! The tracks others publish. Participants without tracks are never kept: a room of 2,000
//! subscribers and one publisher costs each session one entry.

use std::collections::HashMap;

use livekit_protocol::{DisconnectReason, ParticipantInfo, TrackInfo, TrackType};
use stampede_sdp::{Description, MediaKind};

use super::event::SessionEvent;
use super::track::{Departure, Quality, RemoteTrack, TrackSource, VideoSize};

/// Most tracks of others a session keeps. Further ones are counted and otherwise ignored: they are
/// neither subscribed manually nor given a quality.
pub const REMOTE_TRACKS_MAX: usize = 4_096;

/// Most layers of a track that are kept; there are three qualities.
const LAYERS_MAX: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Known {
    kind: MediaKind,
    muted: bool,
    /// In the last offer.
    offered: bool,
    /// Told about by its publisher's `ParticipantInfo` rather than only by an offer.
    announced: bool,
}

/// A track that its publisher has.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) sid: String,
    pub(super) kind: MediaKind,
    pub(super) publisher_sid: String,
}

/// What a change of the table asks for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) events: Vec<SessionEvent>,
    /// Video tracks whose quality must be (re)sent.
    pub(super) video_sids: Vec<String>,
    /// Newly announced tracks, for manual subscription.
    pub(super) announced: Vec<Announced>,
    /// Tracks past [`REMOTE_TRACKS_MAX`].
    pub(super) ignored: u64,
}

#[derive(Debug, Default)]
struct KnownPublisher {
    /// Of the latest `ParticipantInfo`.
    version: u32,
    /// Its tracks' sids.
    tracks: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct TrackTable {
    tracks: HashMap<String, Known>,
    /// By publisher sid; only publishers with tracks.
    publishers: HashMap<String, KnownPublisher>,
}

impl TrackTable {
    pub(super) fn len(&self) -> usize {
        self.tracks.len()
    }

    pub(super) fn kind(&self, sid: &str) -> Option<MediaKind> {
        self.tracks.get(sid).map(|known| known.kind)
    }

    /// True if this participant has tracks here.
    pub(super) fn is_publisher(&self, participant_sid: &str) -> bool {
        self.publishers.contains_key(participant_sid)
    }

    /// Announced tracks of the wanted kinds.
    pub(super) fn sids(&self, audio: bool, video: bool) -> Vec<String> {
        let wanted = |known: &Known| match known.kind {
            MediaKind::Audio => audio,
            MediaKind::Video => video,
        };
        let tracks = self.tracks.iter().filter(|(_, known)| known.announced && wanted(known));
        tracks.map(|(sid, _)| sid.clone()).collect()
    }

    /// A participant that is there, with all its tracks. Servers gather updates, so that an older one
    /// may come after a newer; it says nothing (as client-sdk-js, `Participant.updateInfo`, has it).
    pub(super) fn update(&mut self, participant: ParticipantInfo, changes: &mut Changes) {
        let ParticipantInfo { sid: publisher_sid, identity, tracks, version, .. } = participant;
        if self.publishers.get(&publisher_sid).is_some_and(|known| version < known.version) {
            return;
        }
        let before = self.publishers.remove(&publisher_sid).unwrap_or_default().tracks;
        if tracks.is_empty() && before.is_empty() {
            return;
        }
        for sid in &before {
            if !tracks.iter().any(|track| track.sid == *sid) {
                self.forget(sid, Departure::Unpublished, changes);
            }
        }
        let mut now = Vec::with_capacity(tracks.len());
        for track in tracks {
            if let Some(sid) = self.update_track(track, &publisher_sid, &identity, changes) {
                now.push(sid);
            }
        }
        if !now.is_empty() {
            self.publishers.insert(publisher_sid, KnownPublisher { version, tracks: now });
        }
    }

    /// A participant that left.
    pub(super) fn remove_publisher(
        &mut self,
        publisher_sid: &str,
        reason: DisconnectReason,
        changes: &mut Changes,
    ) {
        for sid in self.publishers.remove(publisher_sid).unwrap_or_default().tracks {
            self.forget(&sid, Departure::Left { reason }, changes);
        }
    }

    /// We are in another room: nothing of the former one is there any more.
    pub(super) fn remove_all(&mut self, changes: &mut Changes) {
        self.publishers.clear();
        let sids: Vec<String> = self.tracks.keys().cloned().collect();
        for sid in sids {
            self.forget(&sid, Departure::Moved, changes);
        }
    }

    fn forget(&mut self, sid: &str, departure: Departure, changes: &mut Changes) {
        if self.tracks.remove(sid).is_some() {
            changes.events.push(SessionEvent::TrackGone { sid: sid.to_owned(), departure });
        }
    }

    fn update_track(
        &mut self,
        track: TrackInfo,
        publisher_sid: &str,
        publisher_identity: &str,
        changes: &mut Changes,
    ) -> Option<String> {
        let kind = match TrackType::try_from(track.r#type) {
            Ok(TrackType::Audio) => MediaKind::Audio,
            Ok(TrackType::Video) => MediaKind::Video,
            Ok(TrackType::Data) | Err(_) => return None,
        };
        if track.sid.is_empty() {
            return None;
        }
        if let Some(known) = self.tracks.get_mut(&track.sid)
            && known.announced
        {
            if known.muted != track.muted {
                known.muted = track.muted;
                let (sid, muted) = (track.sid.clone(), track.muted);
                changes.events.push(SessionEvent::TrackMuted { sid, muted });
            }
            return Some(track.sid);
        }
        let offered = self.tracks.get(&track.sid).is_some_and(|known| known.offered);
        if !offered && self.tracks.len() >= REMOTE_TRACKS_MAX {
            changes.ignored += 1;
            return None;
        }
        let known = Known { kind, muted: track.muted, offered, announced: true };
        self.tracks.insert(track.sid.clone(), known);
        if kind == MediaKind::Video {
            changes.video_sids.push(track.sid.clone());
        }
        let layers = layers_offered(&track);
        let (sid, publisher) = (track.sid.clone(), publisher_sid.to_owned());
        changes.announced.push(Announced { sid, kind, publisher_sid: publisher });
        changes.events.push(SessionEvent::TrackAvailable(Box::new(RemoteTrack {
            sid: track.sid.clone(),
            kind,
            source: TrackSource::from_proto(track.source),
            publisher_sid: publisher_sid.to_owned(),
            publisher_identity: publisher_identity.to_owned(),
            width: track.width,
            height: track.height,
            mime_type: track.mime_type,
            muted: track.muted,
            layers,
        })));
        Some(track.sid)
    }

    /// The tracks that the server's description names. Quality is asked for again for each video
    /// track that is new to them: a server may have dropped what it was told before the subscription
    /// stood.
    pub(super) fn named(
        &mut self,
        mid_to_track_id: &[(String, String)],
        sdp: &str,
        changes: &mut Changes,
    ) {
        let mut offer: Option<Option<Description<'_>>> = None;
        for (mid, sid) in mid_to_track_id {
            let kind = match self.tracks.get_mut(sid) {
                Some(known) if known.offered => continue,
                Some(known) => {
                    known.offered = true;
                    known.kind
                }
                None => {
                    let offer = offer.get_or_insert_with(|| Description::parse(sdp).ok());
                    let Some(kind) = sent_kind(offer.as_ref(), mid) else { continue };
                    if self.tracks.len() >= REMOTE_TRACKS_MAX {
                        changes.ignored += 1;
                        continue;
                    }
                    let known = Known { kind, muted: false, offered: true, announced: false };
                    self.tracks.insert(sid.clone(), known);
                    kind
                }
            };
            if kind == MediaKind::Video {
                changes.video_sids.push(sid.clone());
            }
            let (sid, mid) = (sid.clone(), mid.clone());
            changes.events.push(SessionEvent::TrackSubscribed { sid, mid });
        }
        self.no_longer_offered(mid_to_track_id, changes);
    }

    fn no_longer_offered(&mut self, offered: &[(String, String)], changes: &mut Changes) {
        let count = self.tracks.values().filter(|known| known.offered).count();
        if count == offered.len() {
            return;
        }
        let now: std::collections::HashSet<&str> =
            offered.iter().map(|(_, sid)| sid.as_str()).collect();
        self.tracks.retain(|sid, known| {
            if known.offered && !now.contains(sid.as_str()) {
                known.offered = false;
                changes.events.push(SessionEvent::TrackUnsubscribed { sid: sid.clone() });
            }
            known.announced || known.offered
        });
    }
}

/// The layers that a publisher has announced of its first codec, at most [`LAYERS_MAX`].
#[allow(deprecated)] // `layers` is where older servers have them
fn layers_offered(track: &TrackInfo) -> Vec<VideoSize> {
    let mut by_codec = track.codecs.iter().map(|codec| &codec.layers);
    let layers = by_codec.find(|layers| !layers.is_empty()).unwrap_or(&track.layers);
    let known = layers.iter().filter_map(|layer| {
        let quality = Quality::from_proto(layer.quality)?;
        Some(VideoSize { quality, width: layer.width, height: layer.height })
    });
    known.take(LAYERS_MAX).collect()
}

/// What the server sends on this m-line of its offer. An offer that can't be read has none: the
/// engine is about to refuse it.
fn sent_kind(offer: Option<&Description<'_>>, mid: &str) -> Option<MediaKind> {
    let media = offer?.media.iter().find(|media| media.mid == mid)?;
    media.media_type.kind().filter(|_| media.direction.sends())
}
