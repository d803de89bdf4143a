//! Announcing tracks.

use std::time::Instant;

use livekit_protocol as proto;

use super::track::{LocalBackup, LocalLayer, LocalTrack, TrackSource};
use stampede_sdp::MediaKind;

#[derive(Debug)]
pub(super) struct Publishing {
    tracks: Vec<LocalTrack>,
    /// An offer of them was asked for.
    offered: bool,
    /// `cid`s not yet published or refused.
    pending: Vec<String>,
    published: usize,
    /// What the server said of the tracks it took, for a sync state.
    accepted: Vec<proto::TrackPublishedResponse>,
    /// What it may ask for yet.
    backups: Vec<Backup>,
    pub(super) deadline: Option<Instant>,
}

/// A track in another codec.
#[derive(Debug)]
struct Backup {
    /// Client id of the track.
    of: String,
    codec: String,
    /// Announces it, but for the track's sid.
    request: proto::AddTrackRequest,
    state: BackupState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackupState {
    /// Nobody wanted it yet.
    Unwanted,
    /// It was announced. Till when the server may answer; else the track goes on without it.
    Announced(Option<Instant>),
    /// It was answered, or not in time.
    Over,
}

/// What is left of the tracks to publish after the answer to one `add_track`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remaining {
    /// Not one of ours, or answered before.
    Unknown,
    /// Others are still pending.
    Others,
    /// That was the last one; some are published.
    NonePending,
    /// That was the last one, and every track was refused.
    AllRefused,
}

impl Publishing {
    pub(super) fn new(tracks: Vec<LocalTrack>) -> Self {
        Self {
            tracks,
            offered: false,
            pending: Vec::new(),
            published: 0,
            accepted: Vec::new(),
            backups: Vec::new(),
            deadline: None,
        }
    }

    /// True once an offer of the tracks was asked for.
    pub(super) fn is_offered(&self) -> bool {
        self.offered
    }

    /// True the first time: an offer of the tracks is to be asked for.
    pub(super) fn is_to_be_offered(&mut self) -> bool {
        !std::mem::replace(&mut self.offered, true)
    }

    /// The requests to send after `join`, in order.
    pub(super) fn start(&mut self, deadline: Option<Instant>) -> Vec<proto::AddTrackRequest> {
        self.backups = self.tracks.iter().filter_map(backup).collect();
        let requests: Vec<_> = self.tracks.drain(..).map(add_track_request).collect();
        self.pending = requests.iter().map(|request| request.cid.clone()).collect();
        self.deadline = if requests.is_empty() { None } else { deadline };
        requests
    }

    pub(super) fn answered_track(&mut self, cid: &str, published: bool) -> Remaining {
        let is_it = |backup: &&mut Backup| {
            backup.request.cid == cid && matches!(backup.state, BackupState::Announced(_))
        };
        if let Some(backup) = self.backups.iter_mut().find(is_it) {
            // The tracks themselves do not wait for it.
            backup.state = BackupState::Over;
            return Remaining::Others;
        }
        let Some(index) = self.pending.iter().position(|pending| pending == cid) else {
            return Remaining::Unknown;
        };
        self.pending.swap_remove(index);
        self.published += usize::from(published);
        match (self.pending.is_empty(), self.published) {
            (false, _) => Remaining::Others,
            (true, 0) => Remaining::AllRefused,
            (true, _) => Remaining::NonePending,
        }
    }

    /// The server took this track. At most [`PUBLISH_TRACKS_MAX`](super::PUBLISH_TRACKS_MAX).
    pub(super) fn remember(&mut self, published: proto::TrackPublishedResponse) {
        self.accepted.push(published);
    }

    /// The server took this track out of the room: a sync state is not to name it.
    pub(super) fn forget(&mut self, sid: &str) {
        self.accepted.retain(|one| one.track.as_ref().is_none_or(|track| track.sid != sid));
    }

    /// Of the track that has this sid somebody wants this codec: the request that announces it, the
    /// first time. What is not answered till then is not waited for.
    pub(super) fn wanted(
        &mut self,
        sid: &str,
        codec: &str,
        until: Option<Instant>,
    ) -> Option<proto::AddTrackRequest> {
        let codec = codec.strip_prefix("video/").unwrap_or(codec);
        let has_sid = |one: &&proto::TrackPublishedResponse| {
            one.track.as_ref().is_some_and(|track| track.sid == sid)
        };
        let of = &self.accepted.iter().find(has_sid)?.cid;
        let is_it = |backup: &&mut Backup| {
            backup.of == *of
                && backup.codec.eq_ignore_ascii_case(codec)
                && backup.state == BackupState::Unwanted
        };
        let backup = self.backups.iter_mut().find(is_it)?;
        backup.state = BackupState::Announced(until);
        Some(proto::AddTrackRequest { sid: sid.to_owned(), ..backup.request.clone() })
    }

    /// When [`Self::give_up_backups`] is due.
    pub(super) fn backups_until(&self) -> Option<Instant> {
        let until = |backup: &Backup| match backup.state {
            BackupState::Announced(until) => until,
            BackupState::Unwanted | BackupState::Over => None,
        };
        self.backups.iter().filter_map(until).min()
    }

    /// Waits no more for those whose announcement was not answered in time.
    pub(super) fn give_up_backups(&mut self, now: Instant) {
        for backup in &mut self.backups {
            if let BackupState::Announced(Some(until)) = backup.state
                && now >= until
            {
                backup.state = BackupState::Over;
            }
        }
    }

    /// True for the client id of a track's backup.
    pub(super) fn is_backup(&self, cid: &str) -> bool {
        self.backups.iter().any(|backup| backup.request.cid == cid)
    }

    /// No `add_track` of a track itself waits for its answer.
    pub(super) fn are_tracks_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// The same of their backups too.
    pub(super) fn is_settled(&self) -> bool {
        let is_announced = |backup: &Backup| matches!(backup.state, BackupState::Announced(_));
        self.are_tracks_settled() && !self.backups.iter().any(is_announced)
    }

    /// What the server took so far.
    pub(super) fn published(&self) -> &[proto::TrackPublishedResponse] {
        &self.accepted
    }
}

/// livekit_rtc.proto `AddTrackRequest`; the codec goes into `simulcast_codecs` even for one layer,
/// as LiveKit's clients do it.
#[allow(deprecated)] // `layers`, `disable_dtx` and `stereo` are what older servers read
fn add_track_request(track: LocalTrack) -> proto::AddTrackRequest {
    let layers: Vec<proto::VideoLayer> = track.layers.iter().map(video_layer).collect();
    let source = track.source.to_proto();
    let kind = match track.kind {
        MediaKind::Audio => proto::TrackType::Audio,
        MediaKind::Video => proto::TrackType::Video,
    };
    let audio = track.kind == MediaKind::Audio;
    // What a screen plays has two channels, as livekit-client finds them in its track's settings.
    let stereo = track.source == TrackSource::ScreenShareAudio;
    let features = [
        (stereo, proto::AudioTrackFeature::TfStereo),
        (audio && !track.dtx, proto::AudioTrackFeature::TfNoDtx),
    ];
    let features = features.into_iter().filter(|(has, _)| *has);
    // One that is named and has no client id yet is published when the server asks for it.
    let backup = track.backup.map(|backup| proto::SimulcastCodec {
        layers: backup.layers.iter().map(video_layer).collect(),
        codec: backup.codec,
        video_layer_mode: proto::video_layer::Mode::OneSpatialLayerPerStream as i32,
        ..proto::SimulcastCodec::default()
    });
    let simulcast_codec = proto::SimulcastCodec {
        codec: track.codec,
        cid: track.cid.clone(),
        layers: layers.clone(),
        video_layer_mode: match track.layers_in_one_stream {
            _ if audio => proto::video_layer::Mode::Unused,
            true => proto::video_layer::Mode::MultipleSpatialLayersPerStream,
            false => proto::video_layer::Mode::OneSpatialLayerPerStream,
        } as i32,
    };
    proto::AddTrackRequest {
        cid: track.cid,
        name: track.name,
        r#type: kind as i32,
        width: track.width,
        height: track.height,
        source: source as i32,
        layers,
        simulcast_codecs: match audio {
            true => Vec::new(),
            false => std::iter::once(simulcast_codec).chain(backup).collect(),
        },
        disable_red: audio && !track.red,
        disable_dtx: audio && !track.dtx,
        audio_features: features.map(|(_, feature)| feature as i32).collect(),
        stereo,
        // Lets the server strip our stamps for subscribers that don't know them.
        packet_trailer_features: if audio {
            Vec::new()
        } else {
            vec![proto::PacketTrailerFeature::PtfUserTimestamp as i32]
        },
        ..proto::AddTrackRequest::default()
    }
}

/// What announces a track's backup (client-sdk-js src/room/participant/LocalParticipant.ts,
/// `publishAdditionalCodecForTrack`).
fn backup(track: &LocalTrack) -> Option<Backup> {
    let LocalBackup { cid, codec, layers } = &**track.backup.as_ref()?;
    let request = proto::AddTrackRequest {
        cid: cid.clone(),
        name: track.name.clone(),
        r#type: proto::TrackType::Video as i32,
        source: track.source.to_proto() as i32,
        width: track.width,
        height: track.height,
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: codec.clone(),
            cid: cid.clone(),
            layers: layers.iter().map(video_layer).collect(),
            video_layer_mode: proto::video_layer::Mode::OneSpatialLayerPerStream as i32,
        }],
        ..proto::AddTrackRequest::default()
    };
    Some(Backup {
        of: track.cid.clone(),
        codec: codec.clone(),
        request,
        state: BackupState::Unwanted,
    })
}

fn video_layer(layer: &LocalLayer) -> proto::VideoLayer {
    proto::VideoLayer {
        quality: layer.quality.to_proto() as i32,
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate_bps,
        ..proto::VideoLayer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(deprecated)] // `stereo` is what older servers read
    fn the_sound_of_a_screen_is_stereo_and_a_microphone_is_not() {
        let request = |source, dtx| {
            add_track_request(LocalTrack {
                cid: "a".to_owned(),
                name: "audio".to_owned(),
                kind: MediaKind::Audio,
                source,
                codec: "opus".to_owned(),
                width: 0,
                height: 0,
                layers: Vec::new(),
                red: dtx,
                dtx,
                layers_in_one_stream: false,
                backup: None,
            })
        };
        let screen = request(TrackSource::ScreenShareAudio, false);
        let features: Vec<_> = screen.audio_features().collect();
        let both = [proto::AudioTrackFeature::TfStereo, proto::AudioTrackFeature::TfNoDtx];
        assert_eq!((screen.stereo, &features[..]), (true, &both[..]));
        let microphone = request(TrackSource::Microphone, true);
        assert!(!microphone.stereo && microphone.audio_features.is_empty());
    }
}
